//! Flags of the command `pgm-infer`, as a user gives them.
#![cfg(feature = "cli")]

use std::path::Path;
use std::process::Command;

// Whether the command succeeds, and what it writes to stderr.
fn run(args: &[&str], rust_log: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-infer"));
    let output = command.args(args).env("RUST_LOG", rust_log).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_unknown_log_level_is_refused_as_a_flag_and_ignored_in_the_environment() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/desktop/model");
    for level in ["loud", "info,pgm_infer=loud"] {
        let (succeeds, message) = run(&["--log-level", level, "info", model], "");
        assert!(!succeeds && message.contains("--log-level") && message.contains("debug"), "{message}");
    }
    for (args, rust_log) in [
        (&["info", model][..], "one=two=three"),
        (&["info", model], "pgm_infer=debug"),
        (&["info", model, "--log-level", "info,pgm_infer=debug"], ""),
        (&["--log-level", "off", "info", model], ""),
    ] {
        let (succeeds, message) = run(args, rust_log);
        assert!(succeeds, "{args:?} {rust_log}: {message}");
    }
}

#[test]
#[cfg(feature = "flex")]
fn rows_beyond_the_trained_length_get_a_note_and_others_none() {
    // Trained with rows of 128 tokens.
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/desktop/model");
    let generate = |more: &[&str]| {
        let fixed =
            ["generate", "--model", model, "--device", "flex", "--steps", "1", "--seed", "1", "--prompt", "To be"];
        let (succeeds, message) = run(&[&fixed, more].concat(), "");
        assert!(succeeds, "{message}");
        message
    };
    for (length, times) in [("129", "1.0"), ("320", "2.5"), ("1280", "10.0")] {
        let message = generate(&["--length", length]);
        let note = format!("note: {length} tokens are {times} times the 128 of the rows that the model was trained on");
        assert!(message.contains(&note) && message.matches("note:").count() == 1, "{message}");
    }
    for more in [&["--length", "128"][..], &["--length", "40"], &[]] {
        let message = generate(more);
        assert!(!message.contains("note:"), "{message}");
    }
    // Longer than any row may be.
    let fixed = ["generate", "--model", model, "--device", "flex", "--prompt", "To be", "--length", "99999999"];
    let (succeeds, message) = run(&fixed, "");
    assert!(!succeeds && message.contains("--length is 99999999"), "{message}");
}

#[test]
fn a_training_run_is_named_in_the_place_of_its_model_folder() {
    let folder = tempfile::tempdir().unwrap();
    let run_folder = folder.path().join("run");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/desktop/model");
    let newest = run_folder.join("checkpoints/step-00000250");
    for target in [&newest, &run_folder.join("checkpoints/best-00000100")] {
        std::fs::create_dir_all(target).unwrap();
        for file in std::fs::read_dir(&model).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), target.join(file.file_name())).unwrap();
        }
    }
    let training = r#"{"step": 250, "steps": 1000, "validation": {"step": 250, "val_nelbo": 2.5}}"#;
    std::fs::write(newest.join("training.json"), training).unwrap();
    let command = |args: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_pgm-infer")).args(args).current_dir(folder.path()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let (succeeds, text) = command(&["info", "run"]);
    assert!(succeeds && text.contains("folder: run/checkpoints/step-00000250"), "{text}");
    assert!(text.contains("trained: step 250 of 1000; validation 2.5000 nats per token at step 250"), "{text}");
    let sample = ["--device", "flex", "--length", "8", "--steps", "2", "--seed", "1"];
    for (name, target) in
        [("run@best", "best-00000100"), ("run@step-250", "step-00000250"), ("run@last", "step-00000250")]
    {
        let (succeeds, text) = command(&[&["generate", "--model", name][..], &sample].concat());
        assert!(succeeds && text.contains(&format!("note: the model is run/checkpoints/{target}")), "{text}");
    }
    let (succeeds, text) = command(&["export", "--model", "run@best", "--out", "best.safetensors"]);
    assert!(succeeds && text.contains("--tokenizer run/checkpoints/best-00000100/tokenizer.json"), "{text}");
    let (succeeds, text) =
        command(&["bench", "--model", "run", "--device", "flex", "--length", "8", "--steps", "2", "--runs", "1"]);
    assert!(succeeds, "{text}");
    for (name, says) in [
        ("run@step-300", "no step-300 in run; there are step-250, best (step 100)"),
        ("run@newest", "run@newest: what follows @ is best, last or step-N; there are step-250"),
        (".", ". is no model folder, since it has no config.json, and no training run"),
        ("run/checkpoints/step-00000250@best", "is a model folder, not a training run, and has no @best"),
    ] {
        for args in [
            &["info", name][..],
            &["export", "--model", name, "--out", "x.safetensors"],
            &["generate", "--model", name],
        ] {
            let (succeeds, text) = command(args);
            assert!(!succeeds && text.contains(says) && text.trim().lines().count() == 1, "{args:?}: {text}");
        }
    }
}
