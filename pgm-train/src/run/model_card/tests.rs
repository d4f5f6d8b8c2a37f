use pgm_data::Manifest;
use pgm_model::{BackboneConfig, ImageConfig, MaskGitConfig, ModelConfig, PartitionConfig, Projection, Queries, Sets};
use serde_json::{Value, json};

use super::{CardSubject, ModelCard, Recipe, StoredWeights, model_card};
use crate::config::CardSection;

fn manifest(extra: Value) -> Manifest {
    let split = |rows: u64| json!({ "documents": 2, "text_bytes": 1234, "tokens": 1200, "dropped_tokens": 0, "rows": rows, "shards": [] });
    let mut manifest = json!({
        "version": 1, "length": 8, "mode": "pack", "row_eos": false, "vocab_size": 258,
        "special": { "bos": 256, "eos": 256, "pad": null, "mask": 257 },
        "train": split(150), "validation": split(15),
    });
    manifest.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::from_value(manifest).unwrap()
}

fn text(card: &ModelCard, config: &ModelConfig, training: &Value) -> String {
    let weights = StoredWeights::new(12345, b"weights");
    let tokenizer = config.image().is_none().then_some(&br#"{"model":{"type":"BPE"}}"#[..]);
    let subject = CardSubject { config, tokenizer, training, weights: &weights };
    String::from_utf8(model_card(card, &subject)).unwrap()
}

fn partition() -> ModelConfig {
    ModelConfig::Partition(PartitionConfig {
        backbone: BackboneConfig::new(258, 16, 2, 8),
        encoder_blocks: 1,
        decoder_blocks: 2,
        queries: Queries::LearnFreqs,
        projection: Projection::Linear,
        sets: Sets::One,
    })
}

#[test]
fn a_card_of_text_says_what_the_run_knows() {
    let section =
        CardSection { name: "Cats".into(), license: "mit".into(), language: "no, en".into(), data: "Rhymes.".into() };
    let recipe = Recipe { command: "pgm-train fit".into(), file: Some(("run.toml", "steps = 9\n".into())) };
    let card = ModelCard { section, data: Some(manifest(json!({}))), recipe, ..ModelCard::default() };
    let training = json!({
        "step": 9, "steps": 1000, "version": "7.7.7",
        "validation": { "step": 8, "val_nelbo": 2.0, "val_nelbo_interval": [1.5, 2.5], "val_ppl": 7.389 },
        "settings": {
            "seed": 3, "validate_rows": 4, "validate_times": 2, "validate_estimator": "any-order",
            "init": { "model": "/home/ann/runs/first@best", "step": 4000, "weights_crc32": "0badcafe" },
        },
        "data": { "data_identity": "c0ffee" },
    });
    let text = text(&card, &partition(), &training);
    assert!(text.starts_with(
        "---\nlicense: \"mit\"\nlanguage:\n- \"no\"\n- \"en\"\nlibrary_name: pgm\npipeline_tag: text-generation\ntags:\n- partition-"
    ));
    for says in [
        "\n# Cats\n",
        "| network | 1 encoder block and 2 decoder blocks, GroupSwap with queries `learn+freqs`, width 16, 2 heads |",
        "| parameters | 12,345 |",
        "| context length | 8 tokens |",
        "| vocabulary | 258 tokens, the mask included |",
        "| `tokenizer.json` | BPE, SHA-256 `",
        "| `model.safetensors` | 7 bytes, SHA-256 `",
        "| training steps | 9 of 1,000 |",
        "\nRhymes.\n",
        "| training | 2 | 1,234 | 1,200 | 150 |",
        "SHA-256 `c0ffee`",
        "pgm-train 7.7.7, Burn 0.22.1, seed 3.",
        "Started from `first@best` of step 4,000, whose weights have the CRC-32 `0badcafe`.",
        "```text\npgm-train fit --init MODEL\n```",
        "`run.toml`:\n\n```toml\nsteps = 9\n```",
        "nats per token | 2.0000 | 1.5000 to 2.5000 |",
        // 15 rows of 8 tokens, 120 counted tokens for 1234 bytes.
        "bits per byte | 0.2806 | 0.2104 to 0.3507 |",
        "The first 4 of 15 rows held out, 2 draws of hidden tokens of each (`any-order`), measured at step 8.",
        "## Limitations\n\nWhat it writes",
    ] {
        assert!(text.contains(says), "{says:?} is not in {text}");
    }
    assert!(!text.contains("/home") && !text.contains("null"), "{text}");
    assert_eq!(text.lines().last().map(|line| line.starts_with("<!-- Written by pgm-train.")), Some(true));
}

#[test]
fn without_what_is_not_known_a_card_says_nothing_of_it() {
    let text = text(&ModelCard::default(), &partition(), &json!({ "step": 1 }));
    assert!(
        text.starts_with("---\nlibrary_name: pgm\n")
            && text.contains("\n# Partition model of text with 12,345 parameters\n")
    );
    assert!(
        !text.contains("license") && !text.contains("Held-out") && !text.contains("null") && !text.contains("seed"),
        "{text}"
    );
}

#[test]
fn a_model_takes_over_the_licence_of_the_model_that_it_was_made_of() {
    let training =
        |license: &str| json!({ "settings": { "init": { "card": { "license": license, "languages": ["en"] } } } });
    let mut card = ModelCard::default();
    assert!(
        text(&card, &partition(), &training("gpl-3.0")).starts_with("---\nlicense: \"gpl-3.0\"\nlanguage: \"en\"\n")
    );
    card.section.license = "mit".to_string();
    assert!(text(&card, &partition(), &training("gpl-3.0")).starts_with("---\nlicense: \"mit\"\nlanguage: \"en\"\n"));
    let converted =
        json!({ "converted_from": { "model": "mdlm", "weights_crc32": "00000001", "card": { "license": "x" } } });
    let text = text(&ModelCard::default(), &partition(), &converted);
    assert!(
        text.contains("license: \"x\"")
            && text.contains("Made of `mdlm`")
            && text.contains("badly until it is trained")
    );
}

#[test]
fn a_card_of_pictures_names_the_codec_and_counts_by_cells() {
    let image = ImageConfig { codec: Some("abc123".into()), registers: 1, ..ImageConfig::new(10, [7, 7]) };
    let sizes = BackboneConfig::for_mask_git(240, 16, 2, image);
    let config = ModelConfig::MaskGit(MaskGitConfig { backbone: sizes, n_blocks: 2 });
    let info = json!({ "kind": "codes", "grid": [7, 7], "codec": { "codebook": 240, "hash": "abc123" }, "flip": true });
    let data = manifest(json!({ "version": 2, "image": info }));
    let card = ModelCard { data: Some(data), ..ModelCard::default() };
    let training = json!({ "step": 2, "steps": 2, "validation": { "step": 2, "val_nelbo": 5.0 }, "settings": { "validate_rows": 0 } });
    let text = text(&card, &config, &training);
    for says in [
        "pipeline_tag: unconditional-image-generation",
        "| picture | 7 x 7 cells |",
        "| codec | the one with the hash `abc123` |",
        "pgm-infer generate --model FOLDER --codec CODEC --class 0 -n 4 --out pictures.png",
        "| training | 150 |",
        "nats per cell | 5.0000 |  |",
        "All 15 rows held out",
        "each training picture also mirrored",
    ] {
        assert!(text.contains(says), "{says:?} is not in {text}");
    }
    assert!(!text.contains("bits per byte") && !text.contains("tokenizer.json"), "{text}");
}
