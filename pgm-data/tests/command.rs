//! The command as a part of a pipeline.
#![cfg(unix)]

mod common;

use std::process::{Command, Stdio};

use common::Case;

#[test]
fn a_closed_pipe_ends_the_command_quietly() {
    let case = Case::with("a.txt", "some text, ".repeat(2000));
    assert!(case.run(&["prepare", "--input", "a.txt", "--tokenizer", "bytes", "--length", "16", "--out", "out"]).ok);
    for args in [
        "inspect out --rows 100000",
        "prepare --input a.txt --tokenizer bytes --length 16 --out second",
        "prepare --input a.txt --dry-run",
        "train-tokenizer --input a.txt --vocab-size 300 --out tokenizer.json",
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_pgm-data"))
            .args(args.split(' '))
            .current_dir(case.path(""))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && !stderr.contains("roken pipe"), "{args}: {:?} {stderr}", output.status);
    }
    // What was to be written is there.
    assert!(case.path("second/data.json").exists() && case.path("tokenizer.json").exists());
}
