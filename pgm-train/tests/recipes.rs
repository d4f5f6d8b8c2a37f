//! Every recipe in `examples/configs/` parses and builds the model that its comment names.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use pgm_data::{CodecIdentity, ImageInfo, Manifest};
use pgm_model::Network;
use pgm_train::{DistillConfig, TrainConfig};
use serde_json::json;

fn recipes() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/configs");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    paths.sort();
    let name = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_string();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

// What `pgm-data prepare` writes for the recipe's data: GPT-2's or BERT's vocabulary, or bytes.
fn manifest(name: &str, length: usize) -> Manifest {
    let (vocab_size, special) = match name.split('-').next().unwrap() {
        "owt" => (50258, json!({ "bos": 50256, "eos": 50256, "mask": 50257 })),
        "lm1b" => (30522, json!({ "bos": 101, "eos": 102, "pad": 0, "mask": 103 })),
        "imagenet" => (16386, json!({ "bos": 16385, "eos": 16385, "mask": 16384 })),
        "kjv" | "small" => (2048, json!({ "bos": 2046, "eos": 2046, "mask": 2047 })),
        "shakespeare" => (258, json!({ "bos": 256, "eos": 256, "mask": 257 })),
        other => panic!("the data of {other} is not known here"),
    };
    let split = json!({ "documents": 1, "text_bytes": 1, "tokens": 1, "dropped_tokens": 0, "rows": 1, "shards": [] });
    let manifest = json!({
        "version": 1, "length": length, "mode": "pack", "row_eos": false, "vocab_size": vocab_size,
        "special": special, "tokenizer_sha256": "", "train": split, "validation": split,
    });
    let mut manifest: Manifest = serde_json::from_value(manifest).unwrap();
    if name.starts_with("imagenet") {
        let codec = CodecIdentity { codebook: 16_384, hash: None };
        let class_names = (0..1000).map(|class| class.to_string()).collect();
        manifest.image = Some(ImageInfo::of_codes([32, 32], codec, None, class_names));
    }
    manifest
}

#[test]
fn every_recipe_parses_and_builds_its_model() {
    let mut published = 0;
    for (name, text) in recipes() {
        if name.contains("distill") {
            let config = DistillConfig::parse(&text, &name, &[]).unwrap();
            let (first, last) = if name.starts_with("kjv") { (128, 16) } else { (1024, 32) };
            let halvings =
                std::iter::successors(Some(first), |steps| Some(steps / 2)).take_while(|&steps| steps > last);
            assert!(config.schedule().into_iter().eq(halvings.map(|steps| (steps, steps / 2))), "{name}");
            // The teacher is another recipe's model.
            let teacher = text.split("--teacher ").nth(1).and_then(|rest| rest.split("/model").next()).unwrap();
            assert!(recipes().iter().any(|(other, _)| other == teacher), "{name}: {teacher}");
            continue;
        }
        let config = TrainConfig::parse(&text, &name, &[]).unwrap();
        let model = config.model_config(&manifest(&name, config.model.length)).unwrap();
        let n_parameters = Network::new(&model, &Device::flex()).n_parameters();
        let stated = text.lines().find_map(|line| line.strip_prefix("# ")?.strip_suffix(" parameters."));
        if let Some(stated) = stated {
            assert_eq!(stated.replace(',', ""), n_parameters.to_string(), "{name}");
            published += 1;
        }
        // The commands in the comment name this file and rows of this length.
        assert!(text.contains(&format!("--config examples/configs/{name}.toml")), "{name}");
        // Codes have the length of their grid.
        let says_length = text.contains(&format!("--length {}", config.model.length));
        assert!(says_length || name.starts_with("imagenet"), "{name}");
    }
    assert_eq!(published, 15);
}

#[test]
fn every_data_set_and_kind_of_the_paper_has_a_recipe() {
    let names: Vec<String> = recipes().into_iter().map(|(name, _)| name).collect();
    for data in ["lm1b", "owt"] {
        for kind in ["pgm-6-6", "mdlm", "mdlm-complementary", "ar"] {
            assert!(names.contains(&format!("{data}-{kind}")), "{data}-{kind}");
        }
        for teacher in ["pgm", "mdlm"] {
            let of_teacher =
                |name: &String| name.starts_with(&format!("{data}-{teacher}")) && name.ends_with("distill");
            assert!(names.iter().any(of_teacher), "{data}, distilled {teacher}");
        }
    }
}
