//! A preparation in several processes: parts and their merge.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use common::Case;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use pgm_data::DataFolder;
use serde_json::json;

/// Text of `n` words, another one for each seed.
fn words(seed: usize, n: usize) -> String {
    let words = ["the", "river", "runs", "quick", "brown", "fox", "lazy", "dog", "and", "jumps", "over", "ünï", "\n"];
    let mut state = seed as u64 * 977 + 13;
    let word = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        words[(state >> 33) as usize % words.len()]
    };
    (0..n).map(word).collect::<Vec<_>>().join(" ")
}

fn records(n: usize, longest: usize) -> String {
    let line = |i: usize| match i % 11 {
        3 => "{\"text\": null}\n\n".to_string(),
        5 => " \n".to_string(),
        _ => format!("{}\n", json!({"id": i, "text": words(i, 1 + i * 37 % longest)})),
    };
    (0..n).map(line).collect()
}

/// Every file of a folder with its bytes. Folders of parts are left out.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    files.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap())).collect()
}

fn run(case: &Case, args: &str) -> common::Output {
    case.run(&args.split_whitespace().collect::<Vec<_>>())
}

/// Prepares with one process into `whole`, with `n` into `parts`, and compares. The answer has the documents of each part.
fn compare(case: &Case, args: &str, n: usize) -> Vec<u64> {
    for name in ["whole", "parts", "merged"] {
        let _ = std::fs::remove_dir_all(case.path(name));
    }
    let whole = run(case, &format!("prepare {args} --out whole"));
    assert!(whole.ok, "{args}: {}", whole.stderr);
    // The last one comes first.
    let documents: Vec<u64> = (0..n)
        .rev()
        .map(|i| {
            let part = run(case, &format!("prepare {args} --out parts --shard {i}/{n}"));
            assert!(part.ok, "{args} {i}/{n}: {}", part.stderr);
            let words: Vec<&str> = part.stdout.split_whitespace().collect();
            words[words.iter().position(|word| *word == "documents").unwrap() - 1].parse().unwrap()
        })
        .collect();
    let merged = run(case, "merge parts --out merged");
    assert!(merged.ok, "{args}, {n} parts: {}", merged.stderr);
    assert_eq!(merged.stdout.replace("merged", "whole"), whole.stdout);
    let (expected, found) = (files(&case.path("whole")), files(&case.path("merged")));
    assert_eq!(expected.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    for (name, bytes) in &expected {
        assert!(found[name] == *bytes, "{name} differs: {args}, {n} parts");
    }
    let identity = |name| DataFolder::open(&case.path(name)).unwrap().identity().unwrap();
    assert_eq!(identity("whole"), identity("merged"));
    documents.into_iter().rev().collect()
}

fn folder_of_every_format(case: &Case) {
    case.write("in/a.jsonl", records(150, 60)).write("in/b.txt", words(1, 30_000));
    case.write("in/c.jsonl.gz", common::gzip(records(90, 60).as_bytes()));
    case.write_json("in/d.json", &json!([{"text": "one"}, {"text": words(2, 500)}, {"text": null}, {"text": ""}]));
    case.write("in/e.csv", format!("id,text\n1,{}\n2,\"a, b\"\n", words(3, 40).replace('\n', " ")));
    let texts: Vec<String> = (0..200).map(|i| words(i, 1 + i % 50)).collect();
    let column: ArrayRef =
        Arc::new(StringArray::from_iter(texts.iter().enumerate().map(|(i, text)| (i % 7 > 0).then_some(text))));
    let batch = RecordBatch::try_from_iter([("text", column)]).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(30)).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    case.write("in/f.parquet", bytes).write("in/g.txt", "").write("in/h.txt", words(4, 3000));
}

#[test]
fn merged_parts_are_the_folder_of_one_process_to_the_byte() {
    let case = Case::new();
    folder_of_every_format(&case);
    case.write_json("tokenizer.json", &common::small_bpe());
    let fixed = "--input in --tokenizer tokenizer.json --length 32";
    for (n, options) in [
        (1, ""),
        (2, "--val-fraction 0.3"),
        (3, "--mode pad"),
        (7, "--row-eos"),
        (3, "--val-documents 40"),
        (3, "--shuffle-documents 5 --val-fraction 0.2"),
        (4, "--val in/h.txt --mode pad --detokenize wikitext"),
        (5, "--documents line --shuffle-documents 7 --val-documents 33"),
        (2, "--documents blank-line"),
        (3, "--detokenize lm1b --documents line"),
    ] {
        compare(&case, &format!("{fixed} {options}"), n);
    }
}

#[test]
fn a_tokenizer_that_marks_the_start_of_a_text_gets_the_same_tokens() {
    // A space before a text that does not start with one: a line has other tokens at the start of a text than within it.
    let case = Case::new();
    let lines = |seed, n| words(seed, n).replace(' ', "\n");
    let mut tokenizer = common::small_bpe();
    tokenizer["pre_tokenizer"]["add_prefix_space"] = json!(true);
    case.write_json("tokenizer.json", &tokenizer).write("a.txt", lines(5, 120_000)).write("b.txt", lines(6, 20_000));
    // The cut lies within a piece, then where a piece begins: pieces begin before white space near multiples of 512 KiB.
    let text = std::fs::read_to_string(case.path("a.txt")).unwrap();
    let start = &text.as_bytes()[..512 << 10];
    let border = start.windows(2).rposition(|pair| !pair[0].is_ascii_whitespace() && pair[1].is_ascii_whitespace());
    let border = (border.unwrap() + 1) as f64 / text.len() as f64;
    for fraction in [0.3, 1.0 - border - 1e-9] {
        let args = format!("--input a.txt --tokenizer tokenizer.json --length 64 --val-fraction {fraction}");
        compare(&case, &args, 2);
    }
    let mixture = "--input a.txt --weight 1 --input b.txt --weight 0.6";
    compare(&case, &format!("{mixture} --tokenizer tokenizer.json --length 64"), 2);
}

#[test]
fn mixtures_of_parts_have_the_same_shares() {
    let case = Case::new();
    case.write("a.jsonl", records(300, 40)).write("b.txt", words(7, 2500)).write("c.jsonl", records(100, 30));
    let fixed = "--tokenizer bytes --length 33 --skip-bad";
    case.write("c.jsonl", format!("{}no json\n{}", records(40, 30), records(60, 20)));
    for options in ["", "--shuffle-documents 3", "--val-fraction 0.4", "--val c.jsonl"] {
        let inputs = "--input a.jsonl --weight 0.37 --input b.txt --weight 0.21 --input c.jsonl --weight 0.1";
        compare(&case, &format!("{inputs} {fixed} {options}"), 3);
    }
    // A document that is longer than the share is cut.
    case.write("long.jsonl", format!("{}\n", json!({"text": words(8, 90_000)})));
    compare(&case, &format!("--input b.txt --weight 0.9 --input long.jsonl --weight 0.1 {fixed}"), 2);
}

#[test]
fn the_last_document_is_cut_in_a_merge_too() {
    let case = Case::with("a.jsonl", format!("{}\n{}\n", json!({"text": "short"}), json!({"text": words(9, 400)})));
    compare(&case, "--input a.jsonl --tokenizer bytes --length 11 --val-fraction 0.1", 2);
}

#[test]
fn token_ids_and_latin1_are_divided_too() {
    let case = Case::new();
    let rows: Vec<String> = (0..80).map(|i| format!("{}\n", json!({"ids": (0..i).collect::<Vec<_>>()}))).collect();
    case.write("ids.jsonl", rows.concat());
    let fixed = "--tokenizer bytes --length 17";
    compare(&case, &format!("--input ids.jsonl --field ids {fixed}"), 3);
    let latin1: Vec<u8> = (0..4000).flat_map(|i| [b'a' + (i % 26) as u8, 0xe9, b' ']).collect();
    case.write("latin1.txt", latin1);
    compare(&case, &format!("--input latin1.txt --encoding latin1 {fixed}"), 3);
}

#[test]
fn one_file_of_several_documents_gives_every_part_some() {
    for (name, content, options) in [
        ("a.jsonl", records(60, 50).into_bytes(), ""),
        ("a.jsonl.gz", common::gzip(records(60, 50).as_bytes()), ""),
        ("a.txt", words(10, 400).into_bytes(), "--documents line"),
        ("a.csv", (0..40).fold("text\n".to_string(), |csv, i| csv + &format!("row {i}\n")).into_bytes(), ""),
    ] {
        let case = Case::with(name, content);
        for n in [4, 7] {
            let args = format!("--input {name} --tokenizer bytes --length 16 --val-fraction 0.2 {options}");
            let documents = compare(&case, &args, n);
            assert!(documents.iter().all(|&n| n > 0), "{name}: {documents:?}");
            let (most, least) = (documents.iter().max().unwrap(), documents.iter().min().unwrap());
            assert!(most - least < 12, "{name}: {documents:?}");
        }
    }
    // One document has one end. More parts than documents are no mistake.
    let case = Case::with("a.txt", "one document only, of a few words");
    assert_eq!(
        compare(&case, "--input a.txt --tokenizer bytes --length 8 --val-fraction 0.5", 3).iter().sum::<u64>(),
        1
    );
}

#[test]
fn a_large_file_is_read_in_ranges() {
    // Large records with little text, and blank lines at the borders.
    let padding = "x".repeat(1 << 15);
    let line = |i: usize| format!("{}\n\n \n", json!({"text": words(i, 3 + i % 20), "other": padding}));
    let case = Case::with("a.jsonl", (0..400).map(line).collect::<String>());
    let list = run(&case, "prepare --input a.jsonl --dry-run --shard 1/3");
    assert!(list.ok && list.stdout.contains("the lines of bytes 4"), "{}{}", list.stdout, list.stderr);
    let documents = compare(&case, "--input a.jsonl --tokenizer bytes --length 32 --val-documents 150", 3);
    assert!(documents.iter().all(|n| (130..137).contains(n)), "{documents:?}");
    // Parquet is divided by rows, whatever its size.
    let case = Case::new();
    folder_of_every_format(&case);
    let documents = compare(&case, "--input in/f.parquet --tokenizer bytes --length 16", 7);
    assert!(documents.iter().all(|n| (23..27).contains(n)), "{documents:?}");
}

const PREPARE: &str = "prepare --input a.jsonl --tokenizer bytes --length 16 --out parts --shard";

#[test]
fn a_finished_part_is_skipped_and_a_killed_one_leaves_nothing_that_counts() {
    let case = Case::with("a.jsonl", records(60, 50));
    let first = run(&case, &format!("{PREPARE} 0/2"));
    assert!(first.ok && first.stdout.contains("part 0/2 is finished"), "{}", first.stderr);
    let time = || case.path("parts/part-00000-of-00002/part.json").metadata().unwrap().modified().unwrap();
    let before = time();
    // What a killed process leaves: a folder under a temporary name, with or without the last file.
    case.write("parts/.preparing-part-00001-of-00002-abc/source-0.tokens", "half");
    case.write("parts/.preparing-part-00000-of-00002-xyz/part.json", "{}");
    let refused = run(&case, "merge parts");
    assert!(!refused.ok && refused.stderr.contains("lacks the part 1 of 2"), "{}", refused.stderr);
    assert!(!case.path("parts/data.json").exists());
    let again = run(&case, &format!("{PREPARE} 0/2"));
    assert!(again.ok && again.stdout.contains("part 0/2 was finished before"), "{}", again.stdout);
    assert_eq!(time(), before);
    assert!(run(&case, &format!("{PREPARE} 1/2")).ok);
    // Leftovers of a part go when it is finished.
    let names: Vec<String> = std::fs::read_dir(case.path("parts"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert!(names.iter().all(|name| name.starts_with("part-")) && names.len() == 2, "{names:?}");
    // Without --out the folder of the parts becomes a data folder. What a killed merge left goes.
    case.write("parts/.preparing-abc/train-00000.rows", "half").write("parts/train-00000.rows", "half");
    let merged = run(&case, "merge parts --remove-parts");
    assert!(merged.ok, "{}", merged.stderr);
    assert!(run(&case, "prepare --input a.jsonl --tokenizer bytes --length 16 --out whole").ok);
    assert!(files(&case.path("parts")) == files(&case.path("whole")));
    let n_files = |name| std::fs::read_dir(case.path(name)).unwrap().count();
    assert_eq!(n_files("parts"), n_files("whole"));
    for args in ["merge parts".to_string(), format!("{PREPARE} 0/2")] {
        let refused = run(&case, &args);
        assert!(!refused.ok && refused.stderr.contains("exists already"), "{args}: {}", refused.stderr);
    }
}

#[cfg(unix)]
#[test]
fn a_process_that_is_killed_starts_over() {
    use std::process::{Command, Stdio};
    let case = Case::with("a.jsonl", records(6000, 400));
    let args: Vec<String> = format!("{PREPARE} 1/2").split(' ').map(str::to_string).collect();
    let mut child = Command::new(env!("CARGO_BIN_EXE_pgm-data"))
        .args(&args)
        .current_dir(case.path(""))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // As soon as something is written.
    while child.try_wait().unwrap().is_none() && std::fs::read_dir(case.path("parts")).map_or(0, Iterator::count) == 0 {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let state = run(&case, "merge parts");
    assert!(!state.ok, "{}", state.stdout);
    // A part that two processes were given at once is made by one of them, and both end well.
    std::thread::scope(|scope| {
        for i in [1, 0, 1, 0] {
            let case = &case;
            scope.spawn(move || {
                let output = run(case, &format!("{PREPARE} {i}/2"));
                assert!(output.ok, "{}", output.stderr);
            });
        }
    });
    assert_eq!(std::fs::read_dir(case.path("parts")).unwrap().count(), 2);
    assert!(run(&case, "merge parts --out merged").ok);
    assert!(run(&case, "prepare --input a.jsonl --tokenizer bytes --length 16 --out whole").ok);
    assert!(files(&case.path("whole")) == files(&case.path("merged")));
}

#[test]
fn parts_that_do_not_make_a_whole_are_refused_by_name() {
    let case = Case::with("a.jsonl", records(60, 50));
    case.write("b.jsonl", records(50, 50));
    let prepared = |args: &str| {
        let output = run(&case, args);
        assert!(output.ok, "{args}: {}", output.stderr);
    };
    let refused = |args: &str, says: &[&str]| {
        let output = run(&case, args);
        let all = says.iter().all(|says| output.stderr.contains(says));
        assert!(!output.ok && all && !output.stderr.contains("panicked"), "{args}: {}{}", output.stdout, output.stderr);
        assert!(!case.path("merged").exists());
    };
    for i in [0, 2, 6] {
        prepared(&format!("{PREPARE} {i}/7"));
    }
    refused("merge parts --out merged", &["lacks the parts 1, 3-5 of 7", "--shard I/7"]);
    // Other settings, another tokenizer, other inputs, another number of parts.
    let other = |change: &str, out: &str| {
        let args = format!("{PREPARE} 1/7").replace("--out parts", &format!("--out {out}"));
        args.replace(change.split('>').next().unwrap(), change.split('>').nth(1).unwrap())
    };
    case.write_json("tokenizer.json", &common::small_bpe());
    for (change, says) in [
        ("--length 16>--length 32", "length = 16 and 32"),
        ("--tokenizer bytes>--tokenizer tokenizer.json", "special"),
        ("a.jsonl>b.jsonl", "inputs.0.files.0"),
        ("a.jsonl>a.jsonl --mode pad", "mode = \"pack\" and \"pad\""),
        ("a.jsonl>a.jsonl --val-fraction 0.1", "validation.fraction = \"0.05\" and \"0.1\""),
        ("1/7>1/2", "parts = 7 and 2"),
    ] {
        let _ = std::fs::remove_dir_all(case.path("foreign"));
        prepared(&other(change, "foreign"));
        refused("merge parts foreign --out merged", &["does not fit", "other settings", says]);
    }
    // The same folder refuses a part of other settings, before anything is read.
    prepared(&other("x>x", "parts"));
    refused(&other("--length 16>--length 32", "parts"), &["part-00001-of-00007", "other settings", "length"]);
    // A part that is there twice, under its own or another name.
    prepared(&other("x>x", "twice"));
    let copied = format!("{}/part-00001-of-00007", case.path("twice").display());
    refused(&format!("merge parts {copied} --out merged"), &["is part 1 of 7", "leave one of them out"]);
    std::fs::rename(copied, case.path("parts/part-00005-of-00007")).unwrap();
    refused("merge parts --out merged", &["part-00005-of-00007 is part 1 of 7", "part-00001-of-00007"]);
    std::fs::remove_dir_all(case.path("parts/part-00005-of-00007")).unwrap();
    // Files that were lost or changed.
    for i in [3, 4, 5] {
        prepared(&format!("{PREPARE} {i}/7"));
    }
    let path = case.path("parts/part-00003-of-00007/source-0.tokens");
    let bytes = std::fs::read(&path).unwrap();
    let mut changed = bytes.clone();
    changed[bytes.len() / 2] ^= 4;
    std::fs::write(&path, changed).unwrap();
    refused(
        "merge parts --out merged",
        &["part-00003-of-00007 is damaged (source-0.tokens", "remove it and prepare this part again", "checksum"],
    );
    std::fs::write(&path, &bytes[..20]).unwrap();
    refused(
        "merge parts --out merged",
        &["part-00003-of-00007 is damaged (source-0.tokens", "remove it and prepare this part again"],
    );
    std::fs::write(&path, bytes).unwrap();
    case.write("parts/part-00003-of-00007/part.json", "{}");
    refused("merge parts --out merged", &["part-00003-of-00007 is no finished part"]);
    std::fs::remove_dir_all(case.path("parts/part-00003-of-00007")).unwrap();
    prepared(&format!("{PREPARE} 3/7"));
    prepared("merge parts --out merged");
    std::fs::remove_dir_all(case.path("merged")).unwrap();
    // What is no folder of parts.
    case.write("empty/a", "a");
    refused("merge empty --out merged", &["empty has no part"]);
    refused("merge missing --out merged", &["missing"]);
    refused("merge parts/part-00000-of-00007", &["--out"]);
    refused("merge parts foreign", &["--out"]);
    // A folder of parts is no data folder yet, and that is said.
    refused("inspect parts", &["pgm-data merge"]);
}

#[test]
fn inputs_that_changed_before_the_merge_are_named() {
    let case = Case::with("a.txt", words(11, 5000));
    let args = "prepare --input a.txt --tokenizer bytes --length 16 --val-fraction 0.4 --out parts --shard";
    assert!(run(&case, &format!("{args} 0/1")).ok);
    case.write("a.txt", words(12, 4000));
    let refused = run(&case, "merge parts");
    assert!(!refused.ok && refused.stderr.contains("a.txt is not what it was"), "{}", refused.stderr);
    // Between documents nothing is read again.
    let case = Case::with("a.jsonl", records(60, 50));
    assert!(run(&case, &format!("{PREPARE} 0/1")).ok);
    std::fs::remove_file(case.path("a.jsonl")).unwrap();
    assert!(run(&case, "merge parts").ok);
}

#[test]
fn what_cannot_be_divided_is_one_sentence() {
    let case = Case::with("a.txt", words(13, 500));
    let fixed = "--tokenizer bytes --length 16 --out parts";
    for (args, says) in [
        (format!("prepare --input - {fixed} --shard 0/2"), "standard input can be read by one process only"),
        (format!("prepare --input a.txt {fixed} --shard 2/2"), "the last one is 1/2"),
        (format!("prepare --input a.txt {fixed} --shard 1"), "for example 0/16"),
        ("images --input . --out parts --shard 0/2".to_string(), "pgm-data images has no --shard"),
        (
            "codes --input . --grid 2x2 --codebook 4 --out parts --shard 0/2".to_string(),
            "pgm-data codes has no --shard",
        ),
        ("train-tokenizer --input a.txt --vocab-size 300 --out parts --shard 0/2".to_string(), "has no --shard"),
        (format!("prepare --input a.txt {fixed} --shard 0/2 --val-fraction 2"), "--val-fraction 2"),
    ] {
        let output = run(&case, &args);
        assert!(!output.ok && output.stderr.contains(says), "{args}: {}", output.stderr);
        assert!(!case.path("parts").exists(), "{args}");
    }
    // What needs all text is said by the merge.
    let args = format!("prepare --input a.txt {fixed} --val-documents 1 --shard 0/1");
    assert!(run(&case, &args).ok);
    let refused = run(&case, "merge parts");
    assert!(!refused.ok && refused.stderr.contains("less than the 1 documents"), "{}", refused.stderr);
}
