//! The kinds of checkpoints that people have: each is imported to the same weights.
#![cfg(feature = "files")]

#[allow(dead_code)]
#[path = "common/checkpoints.rs"]
mod checkpoints;
#[allow(dead_code)] // each test file uses its own part of it
mod common;
#[allow(dead_code)]
#[path = "common/torch.rs"]
mod torch;

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use checkpoints::{
    EMBEDDING, HEAD, Named, POINTER, expected, import, imported, mdlm, moved, plain, reference, refusal,
    safetensors_file, state_dict,
};
use common::{Golden, distance};
use pgm_model::import::{CheckpointFiles, CheckpointWeights, ImportOverrides, PublishedCheckpoint, SpecialIds};
use pgm_model::model_folder::{self, CONFIG_FILE};
use pgm_model::{ModelConfig, ModelError, Network, WeightDtype};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use torch::{Py, dict, save};

#[test]
fn names_inside_wrappers_are_found_at_every_level() {
    let named = mdlm();
    let expected = expected(&named);
    let in_blocks = |wrapper: &str| {
        let wrapper = wrapper.to_string();
        move |name: &str| match name.split('.').collect::<Vec<_>>().as_slice() {
            ["blocks", number, rest @ ..] => format!("backbone.blocks.{number}.{wrapper}.{}", rest.join(".")),
            _ => format!("backbone.{name}"),
        }
    };
    let in_front = |prefix: &str| {
        let prefix = prefix.to_string();
        move |name: &str| format!("{prefix}{name}")
    };
    for prefix in [
        "",
        "module.",
        "module.backbone.",
        "_orig_mod.module.backbone.",
        "model._orig_mod.",
        "backbone._orig_mod.",
        "model.backbone.",
    ] {
        assert_eq!(imported(&save(&state_dict(&named, in_front(prefix)))).unwrap(), expected, "{prefix}");
    }
    for wrapper in ["_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module._orig_mod"] {
        assert_eq!(imported(&save(&state_dict(&named, in_blocks(wrapper)))).unwrap(), expected, "{wrapper}");
    }
    // Two names that differ in the wrapper only are one tensor twice.
    let Py::Dict(mut twice) = plain(&named) else { unreachable!() };
    let copy = (format!("module.{}", twice[0].0), twice[0].1.clone());
    twice.push(copy);
    assert!(refusal(&save(&Py::Dict(twice))).contains("twice"));
}

#[test]
fn state_dicts_are_found_under_the_keys_of_common_trainers() {
    let named = mdlm();
    let expected = expected(&named);
    for key in ["state_dict", "model_state_dict", "model", "module"] {
        let file = dict([("epoch", Py::Int(3)), (key, plain(&named))]);
        assert_eq!(imported(&save(&file)).unwrap(), expected, "{key}");
        let nested = dict([("model", dict([(key, plain(&named))]))]);
        assert_eq!(imported(&save(&nested)).unwrap(), expected, "model.{key}");
    }
}

#[test]
fn averages_by_name_are_taken_and_their_place_is_told() {
    let (raw, averaged) = (mdlm(), moved(&mdlm(), 0.5));
    let (raw_expected, ema_expected) = (expected(&raw), expected(&averaged));
    let ema = || plain(&averaged);
    let beside = [plain(&raw), state_dict(&averaged, |name| format!("ema_model.module.{name}"))];
    let beside = beside.into_iter().flat_map(|part| match part {
        Py::Dict(entries) => entries,
        _ => unreachable!(),
    });
    let files = [
        (dict([("model", plain(&raw)), ("ema", ema())]), "the dictionary ema"),
        (dict([("model_state_dict", plain(&raw)), ("ema_state_dict", ema())]), "the dictionary ema_state_dict"),
        (dict([("state_dict", plain(&raw)), ("ema", dict([("decay", Py::Int(1)), ("shadow", ema())]))]), "ema.shadow"),
        (dict([("model", plain(&raw)), ("model_ema", dict([("module", ema())]))]), "the dictionary model_ema"),
        (dict([("state_dict", Py::Dict(beside.collect()))]), "begin with ema"),
    ];
    for (file, place) in &files {
        let bytes = save(file);
        let checkpoint = PublishedCheckpoint::parse(&bytes, "here.pt").unwrap();
        assert!(checkpoint.ema_place().unwrap().contains(place), "{:?}", checkpoint.ema_place());
        let of = |weights| model_folder::to_safetensors(&import(&checkpoint, weights).unwrap().1).unwrap();
        assert_eq!(checkpoint.default_weights(), CheckpointWeights::Ema);
        assert_eq!(of(CheckpointWeights::Ema), ema_expected, "{place}");
        assert_eq!(of(CheckpointWeights::Raw), raw_expected, "{place}");
    }
    // A file of averages alone, and an `ema` that is no dictionary of weights.
    assert_eq!(imported(&save(&dict([("ema_state_dict", ema())]))).unwrap(), ema_expected);
    for nothing in [Py::Bool(true), dict([("decay", Py::Int(1))])] {
        assert_eq!(imported(&save(&dict([("model", plain(&raw)), ("ema", nothing)]))).unwrap(), raw_expected);
    }
    // Averages that lack a weight, or have one of another shape.
    let mut short = averaged.clone();
    let lost = short.remove(3);
    let sentence = refusal(&save(&dict([("model", plain(&raw)), ("ema", plain(&short))])));
    assert!(sentence.contains(&lost.0) && sentence.contains("--weights raw"), "{sentence}");
    short.push((lost.0.clone(), vec![1], vec![0; 4]));
    let sentence = refusal(&save(&dict([("model", plain(&raw)), ("ema", plain(&short))])));
    assert!(sentence.contains(&lost.0) && sentence.contains("has shape [1]"), "{sentence}");
}

#[test]
fn a_tied_weight_that_the_file_leaves_out_is_taken_from_the_other() {
    let mut tied = mdlm();
    let embedding = tied.iter().find(|(name, ..)| name == EMBEDDING).unwrap().2.clone();
    tied.iter_mut().find(|(name, ..)| name == HEAD).unwrap().2 = embedding;
    let whole = expected(&tied);
    let without = |missing: &str| -> Named { tied.iter().filter(|(name, ..)| name != missing).cloned().collect() };
    for missing in [HEAD, EMBEDDING] {
        let file = without(missing);
        for bytes in [save(&plain(&file)), safetensors_file(&file, None)] {
            assert_eq!(imported(&bytes).unwrap(), whole, "{missing}");
            assert_eq!(PublishedCheckpoint::parse(&bytes, "here.pt").unwrap().tied(), Some(missing));
        }
    }
    assert_eq!(PublishedCheckpoint::parse(&save(&plain(&tied)), "here.pt").unwrap().tied(), None);
    // As `safetensors.torch.save_model` notes it.
    let noted = [("backbone.vocab_embed.embedding", "backbone.output_layer.linear.weight")];
    assert_eq!(imported(&safetensors_file(&without(EMBEDDING), Some(noted))).unwrap(), whole);
    // The averages of a tied model, by name and in order, have one tensor for both, too.
    let file = without(HEAD);
    assert_eq!(imported(&save(&dict([("model", plain(&file)), ("ema", plain(&file))]))).unwrap(), whole);
    let parameters = file.iter().filter(|(name, ..)| !name.ends_with("inv_freq"));
    let list = parameters.map(|(_, shape, bytes)| Py::Tensor("FloatStorage", shape.clone(), bytes.clone())).collect();
    let shadow = dict([("shadow_params", Py::List(list))]);
    assert_eq!(imported(&save(&dict([("state_dict", plain(&file)), ("ema", shadow)]))).unwrap(), whole);
    // A configuration that says otherwise.
    let bytes = safetensors_file(&without(HEAD), None);
    let json = br#"{"tie_word_embeddings": false}"#;
    let refused = PublishedCheckpoint::parse_shards(&[(&bytes, "here")], "here", Some((&json[..], "config.json")));
    let sentence = refused.unwrap_err().to_string();
    assert!(sentence.contains(HEAD) && sentence.contains("tie_word_embeddings = false"), "{sentence}");
}

#[test]
fn published_autoregressive_models_give_the_logits_of_pytorch() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ar");
    let files = CheckpointFiles::open(&folder.join("reference.safetensors")).unwrap();
    let checkpoint = files.checkpoint().unwrap();
    let overrides = ImportOverrides { n_heads: Some(2), length: Some(11), ..ImportOverrides::default() };
    let (config, taken) = checkpoint.resolve(&overrides, &SpecialIds::default()).unwrap();
    assert!(matches!(config, ModelConfig::Autoregressive(_)));
    let kind = taken.iter().find(|taken| taken.key == "model_type").unwrap();
    assert!(kind.value == "autoregressive" && kind.source.contains("no adaLN_modulation"), "{kind:?}");

    let io = std::fs::read(folder.join("io.safetensors")).unwrap();
    let io = SafeTensors::deserialize(&io).unwrap();
    let words = |name: &str| io.tensor(name).unwrap().data().as_chunks::<4>().0.to_vec();
    let tokens: Vec<i32> = words("tokens").iter().map(|b| i32::from_le_bytes(*b)).collect();
    let logits: Vec<f32> = words("logits").iter().map(|b| f32::from_le_bytes(*b)).collect();
    let device = Device::flex();
    let check = |network: Network| {
        let Network::Autoregressive(network) = network else { panic!("it is autoregressive") };
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens.clone(), [2, 11]), &device);
        let found = network.forward(tokens.clone()).try_into_vec_as::<f32>().unwrap();
        assert!(distance(&found, &logits).0 <= 1.0, "{:?}", distance(&found, &logits));
        let folded = network.folded().forward(tokens).try_into_vec_as::<f32>().unwrap();
        assert!(distance(&folded, &logits).0 <= 2.0, "{:?}", distance(&folded, &logits));
    };
    let network = checkpoint.network(CheckpointWeights::Raw, &config, &device).unwrap();
    // It is exported and imported again as the model that it is.
    let exported = model_folder::to_published(&network, &config, WeightDtype::F32).unwrap();
    let again = PublishedCheckpoint::parse(&exported, "again").unwrap();
    assert_eq!(again.resolve(&overrides, &SpecialIds::default()).unwrap().0, config);
    check(again.network(CheckpointWeights::Raw, &config, &device).unwrap());
    check(network);

    // A configuration that contradicts the tensors.
    let named = reference("ar");
    for (causal, expected) in [("false", "no adaLN_modulation"), ("true", "")] {
        let json = format!(r#"{{"algo": {{"causal_attention": {causal}}}}}"#);
        let bytes = safetensors_file(&named, None);
        let config = Some((json.as_bytes(), "config.json"));
        let checkpoint = PublishedCheckpoint::parse_shards(&[(&bytes, "here")], "here", config).unwrap();
        match checkpoint.resolve(&overrides, &SpecialIds::default()) {
            Ok((config, _)) => assert!(causal == "true" && matches!(config, ModelConfig::Autoregressive(_))),
            Err(error) => assert!(causal == "false" && error.to_string().contains(expected), "{error}"),
        }
    }
}

#[test]
fn shards_and_hub_folders_are_opened_as_one_checkpoint() {
    let named = mdlm();
    let expected = expected(&named);
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    let open = |name: &str| -> Result<Vec<u8>, ModelError> {
        let files = CheckpointFiles::open(&folder.path().join(name))?;
        let checkpoint = files.checkpoint()?;
        model_folder::to_safetensors(&import(&checkpoint, CheckpointWeights::Raw)?.1)
    };
    let (first, second) = (named[..9].to_vec(), named[9..].to_vec());
    let index = |one: &str, two: &str| {
        let entry = |file: &str, part: &Named| -> Vec<(String, serde_json::Value)> {
            part.iter().map(|(name, ..)| (format!("backbone.{name}"), file.into())).collect()
        };
        let map: serde_json::Map<_, _> = entry(one, &first).into_iter().chain(entry(two, &second)).collect();
        serde_json::to_vec(&serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map })).unwrap()
    };
    // Nothing to import yet.
    assert!(open("").unwrap_err().to_string().contains("model.safetensors"), "an empty folder");
    write("a.pt", b"");
    write("b.ckpt", b"");
    assert!(open("").unwrap_err().to_string().contains("2 files"), "which of the two");

    write("pytorch_model-1.bin", &save(&plain(&first)));
    write("pytorch_model-2.bin", &save(&plain(&second)));
    write("pytorch_model.bin.index.json", &index("pytorch_model-1.bin", "pytorch_model-2.bin"));
    assert_eq!(open("").unwrap(), expected);

    write("model-1.safetensors", &safetensors_file(&first, None));
    write("model-2.safetensors", &safetensors_file(&second, None));
    write("model.safetensors.index.json", &index("model-1.safetensors", "model-2.safetensors"));
    assert_eq!(open("").unwrap(), expected);
    assert_eq!(open("model.safetensors.index.json").unwrap(), expected);

    write(CONFIG_FILE, br#"{"model_type": "sedd"}"#);
    assert!(open("").unwrap_err().to_string().contains("model_type = sedd"));
    std::fs::remove_file(folder.path().join(CONFIG_FILE)).unwrap();

    for (one, expected) in [
        ("missing.safetensors", "the shard missing.safetensors, which is missing"),
        ("../model-1.safetensors", "no file beside it"),
        ("/etc/passwd", "no file beside it"),
        ("model-2.safetensors", "lacks 1 of the model's tensors"),
    ] {
        write("model.safetensors.index.json", &index(one, "model-2.safetensors"));
        let sentence = open("").unwrap_err().to_string();
        assert!(sentence.contains(expected) && sentence.contains("index.json"), "{sentence}");
    }
    write("model-1.safetensors", POINTER);
    write("model.safetensors.index.json", &index("model-1.safetensors", "model-2.safetensors"));
    let sentence = open("").unwrap_err().to_string();
    assert!(sentence.contains("model-1.safetensors is a Git LFS pointer"), "{sentence}");
    for broken in [&b"{}"[..], b"{\"weight_map\": {}}", b"[]", POINTER] {
        write("model.safetensors.index.json", broken);
        assert!(open("").unwrap_err().to_string().contains("model.safetensors.index.json"));
    }
}

#[test]
fn exported_rotary_frequencies_stay_float32_and_the_tokenizer_settings_go_along() {
    let golden = Golden::open_ours("mdlm");
    let network = golden.network(&Device::flex());
    let settings = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}, "mask_token": null}"#;
    let bytes_of = |file: &[u8]| {
        let file = SafeTensors::deserialize(file).unwrap();
        let view = file.tensor("backbone.rotary_emb.inv_freq").unwrap();
        (view.dtype(), view.data().to_vec())
    };
    let whole = model_folder::to_published(&network, &golden.config, WeightDtype::F32).unwrap();
    for dtype in [WeightDtype::BF16, WeightDtype::F16] {
        let file = model_folder::to_published_with_tokenizer(&network, &golden.config, dtype, Some(settings)).unwrap();
        assert_eq!(bytes_of(&file), bytes_of(&whole));
        assert_eq!(bytes_of(&file).0, Dtype::F32);
        let view = SafeTensors::deserialize(&file).unwrap();
        assert_ne!(view.tensor("backbone.vocab_embed.embedding").unwrap().dtype(), Dtype::F32);
        let checkpoint = PublishedCheckpoint::parse(&file, "here").unwrap();
        assert_eq!(checkpoint.tokenizer_config_json().unwrap(), settings.as_bytes());
        let names = checkpoint.special_names();
        assert_eq!(
            (names.bos.as_deref(), names.eos.as_deref(), names.mask.as_deref()),
            (Some("<s>"), Some("</s>"), None)
        );
    }
}
