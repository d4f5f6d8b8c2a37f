//! The commands `import` and `export`, as a user runs them.
#![cfg(feature = "cli")]

use std::path::{Path, PathBuf};
use std::process::Command;

use pgm_model::model_folder::{CONFIG_FILE, GENERATION_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE};

fn lightning() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pgm-model/tests/golden/lightning")
}

/// The command's output, or its error.
fn run(args: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_pgm-infer")).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn an_imported_checkpoint_generates_and_export_and_import_return_it() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let read = |folder: &str, file: &str| std::fs::read(scratch.path().join(folder).join(file)).unwrap();
    let ckpt = lightning().join("last.ckpt").display().to_string();

    let said = run(&["import", "--from", &ckpt, "--out", &path("ema")]).unwrap();
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    let line =
        |key: &str| lines.iter().find(|line| line[0] == key).unwrap_or_else(|| panic!("{key}: {said}"))[1..].join(" ");
    assert_eq!(line("hidden_size"), "32 from the tensors");
    assert_eq!(line("n_heads"), "4 from the file's configuration");
    assert_eq!(line("bos_index"), "0 from the tokenizer");
    assert_eq!(line("mask_index"), "300 from the published default");
    assert!(line("weights").starts_with("ema from ema.shadow_params"), "{said}");
    let generation: serde_json::Value = serde_json::from_slice(&read("ema", GENERATION_FILE)).unwrap();
    assert_eq!(generation, serde_json::json!({ "steps": 8, "top_p": 1.0 }));

    let text = run(&["generate", "--model", &path("ema"), "--prompt", "the", "--length", "12", "--seed", "1"]).unwrap();
    assert!(text.starts_with("the"), "{text}");

    run(&["import", "--from", &ckpt, "--weights", "raw", "--out", &path("raw")]).unwrap();
    assert_ne!(read("ema", WEIGHTS_FILE), read("raw", WEIGHTS_FILE));

    let (exported, tokenizer) = (path("exported.safetensors"), path("ema/tokenizer.json"));
    run(&["export", "--model", &path("ema"), "--out", &exported]).unwrap();
    run(&["import", "--from", &exported, "--tokenizer", &tokenizer, "--out", &path("again")]).unwrap();
    for file in [CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE] {
        assert_eq!(read("again", file), read("ema", file), "{file}");
    }
}

#[test]
fn what_cannot_be_imported_leaves_no_folder() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let ckpt = lightning().join("last.ckpt");
    let whole = std::fs::read(&ckpt).unwrap();
    std::fs::write(scratch.path().join("cut.ckpt"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(scratch.path().join("empty.ckpt"), []).unwrap();
    let ckpt = ckpt.display().to_string();
    let out = path("out");
    for (from, extra, expected) in [
        (path("cut.ckpt"), &[][..], "truncated"),
        (path("empty.ckpt"), &[], "truncated"),
        (path("nothing.ckpt"), &[], "No such file"),
        (ckpt.clone(), &["--queries", "learn+freak"], "learn+freqs+logsumexp"),
        (ckpt.clone(), &["--heads", "5"], "hidden_size"),
        (ckpt.clone(), &["--mask-id", "301"], "outside the vocabulary"),
        (ckpt.clone(), &["--tokenizer", ckpt.as_str()], "not a valid tokenizer.json"),
    ] {
        let refusal = run(&[&["import", "--from", &from, "--out", &out], extra].concat()).unwrap_err();
        assert!(refusal.contains(expected), "{refusal}");
        assert!(!Path::new(&out).exists(), "{refusal}");
    }
    let used = scratch.path().display().to_string();
    let refusal = run(&["import", "--from", &ckpt, "--out", &used]).unwrap_err();
    assert!(refusal.contains("is not empty"), "{refusal}");
}

#[test]
fn a_hub_folder_is_imported_with_its_tokenizer_and_the_names_of_its_special_tokens() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let ckpt = lightning().join("last.ckpt").display().to_string();
    run(&["import", "--from", &ckpt, "--out", &path("first")]).unwrap();
    // The names that were pickled with the checkpoint.
    let names = std::fs::read_to_string(scratch.path().join("first").join(TOKENIZER_CONFIG_FILE)).unwrap();
    assert!(names.contains("\"bos_token\": \"<|endoftext|>\""), "{names}");

    let hub = scratch.path().join("hub");
    std::fs::create_dir(&hub).unwrap();
    std::fs::copy(lightning().join("tokenizer.json"), hub.join(TOKENIZER_FILE)).unwrap();
    let settings =
        r#"{"bos_token": {"content": "<|endoftext|>"}, "eos_token": "a", "chat_template": "{{ messages }}"}"#;
    std::fs::write(hub.join(TOKENIZER_CONFIG_FILE), settings).unwrap();
    std::fs::write(hub.join(CONFIG_FILE), r#"{"n_heads": 8, "model_length": 16, "time_conditioning": false}"#).unwrap();
    let weights = path("hub/model.safetensors");
    run(&["export", "--model", &path("first"), "--dtype", "bf16", "--out", &weights]).unwrap();

    let said = run(&["import", "--from", &path("hub"), "--out", &path("second")]).unwrap();
    assert!(said.contains("tokenizer.json") && said.contains("tokenizer_config.json"), "{said}");
    let read = |file: &str| std::fs::read_to_string(scratch.path().join(file)).unwrap();
    assert_eq!(read("second/tokenizer_config.json"), settings);
    let config: serde_json::Value = serde_json::from_str(&read("second/config.json")).unwrap();
    assert_eq!((&config["backbone"]["n_heads"], &config["backbone"]["length"]), (&8.into(), &16.into()), "{said}");

    // Export and import carry the settings, and `--tokenizer` takes a folder.
    let exported = path("exported.safetensors");
    run(&["export", "--model", &path("second"), "--out", &exported]).unwrap();
    run(&["import", "--from", &exported, "--out", &path("third")]).unwrap();
    assert_eq!(read("third/tokenizer_config.json"), settings);
    run(&["import", "--from", &exported, "--tokenizer", &path("second"), "--out", &path("fourth")]).unwrap();
    assert_eq!(read("fourth/tokenizer_config.json"), settings);
    assert_eq!(read("fourth/tokenizer.json"), read("second/tokenizer.json"));

    // A foreign model, a pointer in the place of the tokenizer, and settings that are no JSON leave no folder.
    let refuse = |expected: &str| {
        let refusal = run(&["import", "--from", &path("hub"), "--out", &path("fifth")]).unwrap_err();
        assert!(refusal.contains(expected), "{refusal}");
        assert!(!scratch.path().join("fifth").exists());
    };
    std::fs::write(hub.join(TOKENIZER_CONFIG_FILE), "{").unwrap();
    refuse("tokenizer_config.json is not valid JSON");
    std::fs::write(hub.join(TOKENIZER_CONFIG_FILE), "{}").unwrap();
    std::fs::write(hub.join(TOKENIZER_FILE), "version https://git-lfs.github.com/spec/v1\n").unwrap();
    refuse("tokenizer.json is a Git LFS pointer");
    std::fs::write(hub.join(CONFIG_FILE), r#"{"algo": {"name": "bd3lm"}}"#).unwrap();
    refuse("algo.name = bd3lm");
}
