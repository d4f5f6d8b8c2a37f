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
