//! Flags of the command `pgm-infer`, as a user gives them.
#![cfg(feature = "cli")]

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
