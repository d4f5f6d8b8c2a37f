//! What is no model of ours, and what is damaged, is refused in one sentence that names the finding.
#![cfg(feature = "files")]

#[allow(dead_code)]
#[path = "common/checkpoints.rs"]
mod checkpoints;
#[allow(dead_code)] // each test file uses its own part of it
mod common;
#[allow(dead_code)]
#[path = "common/torch.rs"]
mod torch;

use burn::tensor::Device;
use checkpoints::{HEAD, POINTER, import, imported, mdlm, plain, refusal, safetensors_file};
use common::Golden;
use pgm_model::ModelConfig;
use pgm_model::import::{CheckpointWeights, ImportOverrides, PublishedCheckpoint, SpecialIds};
use pgm_model::model_folder::{self, WEIGHTS_FILE};
use safetensors::tensor::{Dtype, TensorView};
use torch::{Py, dict, save};

#[test]
fn models_that_are_none_of_ours_are_refused_by_key_and_value() {
    let named = mdlm();
    let cases = [
        (r#"{"parameterization": "sedd", "time_conditioning": true}"#, "parameterization = sedd", "SEDD"),
        (r#"{"algo": {"parameterization": "score"}}"#, "algo.parameterization = score", "SEDD"),
        (r#"{"graph": {"type": "absorb"}}"#, "graph.type = absorb", "SEDD"),
        (r#"{"model_type": "SEDD"}"#, "model_type = SEDD", "SEDD"),
        (r#"{"parameterization": "d3pm"}"#, "parameterization = d3pm", "D3PM"),
        (r#"{"algo": {"name": "d3pm", "parameterization": "mean"}}"#, "algo.name = d3pm", "D3PM"),
        (r#"{"algo": {"parameterization": "mean"}}"#, "algo.parameterization = mean", "D3PM"),
        (r#"{"diffusion": "uniform", "parameterization": "d3pm"}"#, "diffusion = uniform", "UDLM"),
        (r#"{"architectures": ["UDLM"]}"#, "architectures.0 = UDLM", "UDLM"),
        (r#"{"model_type": "udlm"}"#, "model_type = udlm", "UDLM"),
        (r#"{"algo": {"name": "duo_base"}}"#, "algo.name = duo_base", "Duo"),
        (r#"{"algo": {"name": "bd3lm", "parameterization": "subs"}}"#, "algo.name = bd3lm", "BD3LM"),
        (r#"{"model_type": "bd3lm", "block_size": 4}"#, "model_type = bd3lm", "BD3LM"),
        (r#"{"algo": {"cross_attn": true}}"#, "algo.cross_attn = true", "BD3LM"),
        (r#"{"block_size": 4, "model": {"length": 24}}"#, "block_size = 4", "BD3LM"),
        (r#"{"time_conditioning": true}"#, "time_conditioning = true", "the time"),
        (r#"{"algo": {"time_conditioning": true}}"#, "algo.time_conditioning = true", "the time"),
        (r#"{"config": {"algo": {"time_conditioning": true}}}"#, "config.algo.time_conditioning = true", "the time"),
        (r#"{"model_type": "mdlm", "time_conditioning": true}"#, "time_conditioning = true", "the time"),
        (r#"{"backbone": "dimamba"}"#, "backbone = dimamba", "Mamba"),
        (r#"{"quantization_config": {"quant_method": "fp8"}}"#, "quant_method = fp8", "quantised"),
    ];
    let file = save(&plain(&named));
    for (json, finding, kind) in cases {
        let parse = PublishedCheckpoint::parse_shards(
            &[(&file, "m/pytorch_model.bin")],
            "m/pytorch_model.bin",
            Some((json.as_bytes(), "m/config.json")),
        );
        let sentence = parse.expect_err(json).to_string();
        assert!(sentence.contains("m/config.json") && sentence.contains(finding), "{json}: {sentence}");
        assert!(sentence.contains(kind) && sentence.contains("take"), "{json}: {sentence}");

        // A pickled list has no keys.
        if json.contains("architectures") {
            continue;
        }
        let pickled = pickled(&serde_json::from_str(json).unwrap());
        for hyper in [dict([("config", pickled.clone())]), pickled.clone()] {
            let file = save(&dict([("state_dict", plain(&named)), ("hyper_parameters", hyper)]));
            let sentence = refusal(&file);
            // The wrapper of the hub's mixin is the usual one here.
            let finding = finding.strip_prefix("config.").unwrap_or(finding);
            assert!(sentence.contains(finding), "{json}: {sentence}");
        }
    }
    // What these keys say of ordinary models.
    for json in [
        r#"{"model_type": "mdlm", "time_conditioning": false, "n_heads": 4, "model_length": 24}"#,
        r#"{"algo": {"name": "mdlm", "parameterization": "subs"}, "block_size": 4, "diffusion": "absorbing_state"}"#,
        r#"{"diffusion": "absorbing_state", "backbone": "dit", "parameterization": "subs", "T": 1000}"#,
        r#"{"config": {"parameterization": "subs", "algo": "mdlm"}, "vocab_size": 61}"#,
    ] {
        let shards = [(file.as_slice(), "here")];
        let checkpoint = PublishedCheckpoint::parse_shards(&shards, "here", Some((json.as_bytes(), "config.json")));
        let (config, _) = import(&checkpoint.unwrap(), CheckpointWeights::Raw).unwrap();
        assert!(matches!(config, ModelConfig::Masked(_)), "{json}");
    }
}

fn pickled(value: &serde_json::Value) -> Py {
    use serde_json::Value;
    match value {
        Value::Object(entries) => Py::Dict(entries.iter().map(|(key, value)| (key.clone(), pickled(value))).collect()),
        Value::Array(values) => Py::List(values.iter().map(pickled).collect()),
        Value::Bool(value) => Py::Bool(*value),
        Value::Number(value) => Py::Int(value.as_u64().unwrap() as usize),
        Value::String(text) => Py::Text(text.clone().leak()),
        Value::Null => Py::Bool(false),
    }
}

#[test]
fn the_settings_of_a_hub_configuration_are_taken() {
    let (file, golden) = (safetensors_file(&mdlm(), None), Golden::open_ours("mdlm"));
    let json = br#"{"model_type": "mdlm", "n_heads": 4, "model_length": 24, "dropout": 0.2, "bos_token_id": 7}"#;
    let shards = [(file.as_slice(), "here")];
    let checkpoint = PublishedCheckpoint::parse_shards(&shards, "here", Some((&json[..], "config.json"))).unwrap();
    let (config, _) = checkpoint.resolve(&ImportOverrides::default(), &SpecialIds::default()).unwrap();
    let backbone = config.backbone();
    assert_eq!((backbone.n_heads, backbone.length, backbone.dropout, backbone.bos_index), (4, 24, 0.2, 7));
    assert_eq!(backbone.hidden_size, golden.config.backbone().hidden_size);
    for (json, expected) in [
        (&b"{\"n_heads\": "[..], "not valid JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
    ] {
        let error = PublishedCheckpoint::parse_shards(&shards, "here", Some((json, "config.json"))).unwrap_err();
        assert!(error.to_string().contains(expected) && error.to_string().contains("config.json"), "{error}");
    }
}

#[test]
fn weights_that_are_not_finite_are_refused_with_tensor_and_value() {
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        let mut broken = mdlm();
        let tensor = broken.iter_mut().find(|(name, ..)| name == "blocks.1.mlp.0.weight").unwrap();
        tensor.2[40..44].copy_from_slice(&value.to_le_bytes());
        for file in [save(&plain(&broken)), safetensors_file(&broken, None)] {
            let sentence = refusal(&file);
            for part in ["blocks.1.mlp.0.weight", "1 values", &format!("the first is {name}"), "earlier checkpoint"] {
                assert!(sentence.contains(part), "{sentence}");
            }
        }
        // In the averages only: the raw weights are good.
        let file = save(&dict([("model", plain(&mdlm())), ("ema", plain(&broken))]));
        assert!(refusal(&file).contains("not finite"));
        let checkpoint = PublishedCheckpoint::parse(&file, "here.pt").unwrap();
        assert!(import(&checkpoint, CheckpointWeights::Raw).is_ok());
    }
}

#[test]
fn dtypes_that_weights_cannot_have_are_named() {
    let tensor = |kind: &'static str, size: usize| {
        let Py::Dict(mut entries) = plain(&mdlm()) else { unreachable!() };
        let entry = entries.iter_mut().find(|(name, _)| name == "backbone.blocks.0.attn_out.weight").unwrap();
        let Py::Tensor(_, shape, _) = entry.1.clone() else { unreachable!() };
        let n = shape.iter().product::<usize>();
        entry.1 = Py::Tensor(kind, shape, vec![0; n * size]);
        save(&Py::Dict(entries))
    };
    for dtype in ["float8_e4m3fn", "float8_e5m2", "uint16", "float4_e2m1fn_x2"] {
        let sentence = refusal(&tensor(dtype, 1));
        assert!(sentence.contains(dtype) && sentence.contains("blocks.0.attn_out.weight"), "{sentence}");
        assert!(sentence.contains("torch.bfloat16"), "{sentence}");
    }
    assert!(refusal(&tensor("ComplexFloatStorage", 8)).contains("ComplexFloat"));
    assert!(imported(&tensor("bfloat16", 2)).is_ok(), "an untyped storage of an ordinary dtype");
    assert!(refusal(&tensor("float32", 2)).contains("does not fit its storage"));

    let named = mdlm();
    let view = |(name, shape, bytes): &(String, Vec<usize>, Vec<u8>)| {
        let (dtype, bytes) = match name.as_str() {
            HEAD => (Dtype::F8_E4M3, bytes[..bytes.len() / 4].to_vec()),
            _ => (Dtype::F32, bytes.clone()),
        };
        (name.clone(), dtype, shape.clone(), bytes)
    };
    let stored: Vec<_> = named.iter().map(view).collect();
    let views = stored
        .iter()
        .map(|(name, dtype, shape, bytes)| (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    let sentence = refusal(&safetensors::serialize(views, None).unwrap());
    assert!(sentence.contains("F8_E4M3") && sentence.contains(HEAD) && sentence.contains("bfloat16"), "{sentence}");
}

#[test]
fn what_a_download_left_in_the_place_of_a_file_is_named() {
    let sentence = refusal(POINTER);
    assert!(sentence.contains("Git LFS pointer") && sentence.contains("git lfs pull"), "{sentence}");
    assert!(refusal(b"<!DOCTYPE html><html>Not found</html>").contains("web page"));
    // In a model folder, too.
    let folder = tempfile::tempdir().unwrap();
    let golden = Golden::open_ours("mdlm");
    model_folder::save(folder.path(), &golden.config, &golden.network(&Device::flex())).unwrap();
    std::fs::write(folder.path().join(WEIGHTS_FILE), POINTER).unwrap();
    let sentence = model_folder::load(folder.path(), &Device::flex()).unwrap_err().to_string();
    assert!(sentence.contains(WEIGHTS_FILE) && sentence.contains("git lfs pull"), "{sentence}");
}
