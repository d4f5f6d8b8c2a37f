//! `pgm-data train-tokenizer` on texts of all kinds.

mod common;

use std::time::Instant;

use common::Case;

fn train(case: &Case, args: &str) -> common::Output {
    case.run(&format!("train-tokenizer --out out.json {args}").split(' ').collect::<Vec<_>>())
}

fn dna(n_bytes: usize) -> String {
    let mut state = 7_u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b"ACGT"[(state >> 62) as usize] as char
    };
    (0..n_bytes).map(|_| letter()).collect()
}

#[test]
fn time_grows_with_the_text_also_without_spaces() {
    let seconds = |n_bytes| {
        let case = Case::with("dna.txt", dna(n_bytes));
        let start = Instant::now();
        let output = train(&case, "--input dna.txt --vocab-size 500");
        assert!(output.ok && output.stdout.contains("500 tokens in out.json"), "{}{}", output.stdout, output.stderr);
        start.elapsed().as_secs_f64()
    };
    let (small, large) = (seconds(200_000), seconds(1_600_000));
    // Eight times the text; with whole words it would be 64 times the time. The rest is for a busy machine.
    assert!(large < 40.0 * small + 2.0, "{small} s for 200 kB, {large} s for 1.6 MB");
}

#[test]
fn nothing_to_learn_from_and_absurd_sizes_are_refused() {
    let case = Case::with("empty.txt", "");
    case.write("white.txt", " \n\t\n").write("a.txt", "some text").write("a.jsonl", "{\"text\": [1, 2]}");
    for (args, says) in [
        ("--input empty.txt --vocab-size 300", "no text for a tokenizer to learn from"),
        ("--input white.txt --vocab-size 300", "no text for a tokenizer to learn from"),
        ("--input a.jsonl --vocab-size 300", "token ids already"),
        (
            "--input a.txt --vocab-size 1000000000",
            "1000000000 is too large: the largest vocabulary that can be trained has 1048576",
        ),
        ("--input a.txt --vocab-size 257", "257 is too small"),
    ] {
        let output = train(&case, args);
        assert!(!output.ok && output.stderr.contains(says), "{args}: {}", output.stderr);
        assert!(!case.path("out.json").exists());
    }
}

#[test]
fn no_file_is_overwritten_and_a_folder_that_is_missing_is_told_at_once() {
    let case = Case::with("a.txt", "some text");
    let run = |out: &str| case.run(&["train-tokenizer", "--input", "a.txt", "--vocab-size", "300", "--out", out]);
    for (out, says) in [("a.txt", "a.txt exists already"), ("none/tokenizer.json", "its folder does not exist")] {
        let output = run(out);
        assert!(!output.ok && output.stderr.contains(says), "{}", output.stderr);
    }
    assert_eq!(std::fs::read_to_string(case.path("a.txt")).unwrap(), "some text");
}

#[test]
fn it_says_what_it_reads_and_how_far_it_is() {
    let case = Case::with("dna.txt", dna(6_000_000));
    let output = train(&case, "--input dna.txt --vocab-size 600");
    assert!(output.stderr.contains("read: dna.txt (text)"), "{}", output.stderr);
    assert!(output.stderr.contains("6.0 MB read"), "{}", output.stderr);
    // A text with fewer pairs than asked for says so.
    let case = Case::with("a.txt", "abab");
    let output = train(&case, "--input a.txt --vocab-size 5000");
    assert!(output.ok && output.stderr.contains("no more pairs to merge"), "{}", output.stderr);
}
