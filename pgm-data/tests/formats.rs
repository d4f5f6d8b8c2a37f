//! Each format is read as what it is, under any name, compressed or not, and never as plain text.

mod common;

use common::{Case, gzip};
use pgm_data::Split;

const LINES: &str = "{\"text\": \"one\", \"n\": 1}\n\n{\"n\": 2, \"text\": \"two \\u00e9\\n\"}\n";

#[test]
fn records_of_every_format_are_documents() {
    let array = r#"[{"text": "one", "x": [1, {"text": "no"}]}, {"text": "two é\n"}]"#;
    let pretty = "{\n  \"text\": \"one\"\n}\n{\n  \"text\": \"two é\\n\"\n}\n";
    let csv = "id,text\n1,one\n2,\"two é\n\"\n";
    let tsv = "text\tid\r\none\t1\r\n\"two é\n\"\t2\r\n";
    for (name, content) in [
        ("a.jsonl", LINES),
        ("a.JSONL", LINES),
        ("a.NdJson", LINES),
        ("a.json", LINES),
        ("a.txt", LINES),
        ("part-00000", LINES),
        ("a.json", array),
        ("a.JSON", array),
        ("a.txt", array),
        ("a.json", pretty),
        ("a.text", pretty),
        ("a.json", "[\"one\", \"two é\\n\"]"),
        ("a.jsonl", "\"one\"\n\"two é\\n\"\n"),
        ("a.csv", csv),
        ("a.CSV", csv),
        ("a.tsv", tsv),
    ] {
        for mark in ["", "\u{feff}"] {
            let content = format!("{mark}{content}");
            let case = Case::with(name, &content);
            assert_eq!(case.documents(&format!("--input {name}")), ["one", "two é\n"], "{name}: {content:?}");
            let packed = format!("{name}.gz");
            case.write(&packed, [gzip(&content.as_bytes()[..9]), gzip(&content.as_bytes()[9..])].concat());
            assert_eq!(case.documents(&format!("--input {packed}")), ["one", "two é\n"], "{packed}");
            let packed = format!("{name}.ZST");
            case.write(&packed, zstd::encode_all(content.as_bytes(), 3).unwrap());
            assert_eq!(case.documents(&format!("--input {packed}")), ["one", "two é\n"], "{packed}");
        }
    }
}

#[test]
fn the_field_is_a_name_a_path_or_a_pointer() {
    for (field, record, expected) in [
        ("body", r#"{"text": "no", "body": "yes"}"#, vec!["yes"]),
        ("data.text", r#"{"text": "no", "data": {"id": 3, "text": "yes"}}"#, vec!["yes"]),
        ("data.text", r#"{"data.text": "yes"}"#, vec!["yes"]),
        ("a.b.c", r#"{"a.b": {"c": "yes"}}"#, vec!["yes"]),
        ("/data/text", r#"{"data": {"text": "yes"}}"#, vec!["yes"]),
        ("/a~1b", r#"{"a/b": "yes"}"#, vec!["yes"]),
        ("turns.1.text", r#"{"turns": [{"text": "no"}, {"text": "yes"}]}"#, vec!["yes"]),
        ("turns.text", r#"{"turns": [{"text": "yes"}, {"text": "and"}]}"#, vec!["yes", "and"]),
        ("text", r#"{"text": ["yes", "and"]}"#, vec!["yes", "and"]),
    ] {
        let case = Case::with("a.jsonl", record);
        assert_eq!(case.documents(&format!("--input a.jsonl --field {field}")), expected, "{field}: {record}");
        let case = Case::with("a.json", format!("[{record}]"));
        assert_eq!(case.documents(&format!("--input a.json --field {field}")), expected, "{field}: [{record}]");
    }
    // A file that is one object around its records.
    let case = Case::with("a.json", "{\"version\": 2, \"data\": [{\"text\": \"a\"},\n {\"text\": \"b\"}]}");
    assert_eq!(case.documents("--input a.json --field data.text"), ["a", "b"]);
}

#[test]
fn nulls_are_skipped_and_counted() {
    let case = Case::with("a.jsonl", "{\"text\": \"one\"}\n{\"text\": null}\n{\"text\": null}\n{\"text\": \"two\"}\n");
    assert_eq!(case.documents("--input a.jsonl"), ["one", "two"]);
    let output = case.prepare("--input a.jsonl --val a.jsonl");
    assert!(output.stderr.contains("text is null were skipped: 4"), "{}", output.stderr);
    assert_eq!(case.folder().manifest().skipped_nulls, 4);
}

#[test]
fn a_bad_record_is_named_or_skipped_and_counted() {
    for (name, content, says) in [
        ("a.jsonl", "{\"text\": \"one\"}\n{\"text\": oops}\n{\"text\": \"two\"}\n", "line 2: is not JSON"),
        (
            "a.jsonl",
            "{\"text\": \"one\"}\n{\"body\": 1, \"id\": 2}\n",
            "line 2: has no text field \"text\", its fields are body, id",
        ),
        ("a.jsonl", "{\"text\": \"one\"}\n{\"text\": 7}\n", "line 2: its field \"text\" is a number, not text"),
        ("a.jsonl", "{\"text\": \"one\"}\n{\"text\": {\"a\": 1}}\n", "line 2: its field \"text\" is an object"),
        ("a.jsonl", "{\"text\": \"one\"}\n{\"text\": \"a\\u0000b\"}\n", "line 2: has a NUL character"),
        ("a.jsonl", "{\"text\": \"one\"}\n{\"text\": \"cut", "line 2: is not JSON"),
        ("a.json", "[{\"text\": \"one\"}, {\"text\": true}]", "record 2: its field \"text\" is true or false"),
        ("a.csv", "id,text\n1,one\n2,b,c\n", "line 3: has 3 values under 2 column names"),
    ] {
        let case = Case::with(name, content);
        let message = case.refusal(&format!("--input {name}"));
        assert!(message.contains(name) && message.contains(says), "{content:?}: {message}");
        assert!(case.documents(&format!("--input {name} --skip-bad")).contains(&"one".to_string()));
        let output = case.prepare(&format!("--input {name} --val {name} --skip-bad"));
        assert!(
            output.stderr.contains("bad records were skipped: 2") && output.stderr.contains(says),
            "{}",
            output.stderr
        );
        assert_eq!(case.folder().manifest().skipped_bad, 2);
    }
    let case = Case::with("a.jsonl", "oops\n{\n");
    let message = case.refusal("--input a.jsonl --skip-bad");
    assert!(message.contains("no training row is left: 2 bad records") && message.contains("line 2"), "{message}");
    // Bytes that are not UTF-8 are named with their line and their place in the file.
    let case = Case::with("a.jsonl", b"{\"text\": \"one\"}\n{\"text\": \"caf\xe9\"}\n");
    let message = case.refusal("--input a.jsonl");
    assert!(message.contains("line 2: is not UTF-8 at byte 29") && message.contains("--encoding"), "{message}");
    assert_eq!(case.documents("--input a.jsonl --skip-bad"), ["one"]);
    assert_eq!(case.documents("--input a.jsonl --encoding latin1"), ["one", "café"]);
}

#[test]
fn what_cannot_be_read_is_refused_with_its_kind() {
    for (name, content, says) in [
        ("a.txt", &b"PK\x03\x04rest"[..], "zip archive"),
        ("a.txt", b"%PDF-1.7 ...", "is a PDF"),
        ("a.txt", b"{\\rtf1 some text}", "is RTF"),
        ("a.jsonl.bz2", b"BZh91AY", "bzip2"),
        ("a.txt", b"\xfd7zXZ\0rest", "compressed with xz"),
        ("a.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        ("a.txt.gz", b"plain", "not compressed, as its name says"),
        ("a.parquet", b"no parquet", "not a readable Parquet file"),
        ("a.feather", b"no arrow at all", "not a readable Arrow file"),
        ("a.json", b"[{\"text\": \"one\"}, {\"text\": \"tw", "record 2: is not JSON"),
        ("a.csv", b"id,body\n1,one\n", "no column \"text\", its columns are id, body"),
        ("a.jsonl.gz", &gzip(LINES.repeat(9).as_bytes())[..40], "gzip"),
    ] {
        let message = Case::with(name, content).refusal(&format!("--input {name}"));
        assert!(message.contains(name) && message.contains(says), "{name}: {message}");
    }
    let message = Case::with("a.txt", "one").refusal("--input a.txt --format xml");
    assert!(message.contains("json-lines"), "{message}");
}

#[test]
fn the_format_can_be_given() {
    let case = Case::with("a.txt", "text,id\none,1\n");
    assert_eq!(case.documents("--input a.txt --format csv"), ["one"]);
    // JSON is text where the user says so, and only there.
    let message = Case::with("a.txt", "{\"id\": 1}").refusal("--input a.txt");
    assert!(message.contains("has no text field") && message.contains("--format text"), "{message}");
    let case = Case::with("a.txt", "{\"text\": 1}");
    assert_eq!(case.documents("--input a.txt --format text"), ["{\"text\": 1}"]);
}

#[test]
fn standard_input_is_read_like_a_file() {
    let case = Case::with("val.txt", "validation");
    let args = "prepare --input - --val val.txt --tokenizer bytes --length 64 --mode pad --out out";
    let args: Vec<&str> = args.split(' ').collect();
    for (input, expected) in [
        (b"plain text\n".to_vec(), vec!["plain text\n"]),
        (LINES.as_bytes().to_vec(), vec!["one", "two é\n"]),
        (gzip(LINES.as_bytes()), vec!["one", "two é\n"]),
        (zstd::encode_all(&b"plain"[..], 1).unwrap(), vec!["plain"]),
        (
            common::parquet(vec![("text", common::strings(&["p", "q"]))], parquet::basic::Compression::SNAPPY),
            vec!["p", "q"],
        ),
    ] {
        let _ = std::fs::remove_dir_all(case.path("out"));
        let output = case.run_with_input(&args, &input);
        assert!(output.ok && output.stderr.contains("read: standard input"), "{}", output.stderr);
        assert_eq!(case.rows(Split::Train), expected);
    }
}

#[test]
fn a_dry_run_says_what_is_read_and_writes_nothing() {
    let case = Case::with("in/a.jsonl.gz", gzip(LINES.as_bytes()));
    case.write("in/b.txt", "plain").write("in/image.png", [1, 0, 2]).write("in/.git/config", "x");
    let output = case.run(&["prepare", "--input", "in", "--dry-run"]);
    assert!(output.ok, "{}", output.stderr);
    for line in [
        "read: in/a.jsonl.gz (json-lines, gzip)",
        "read: in/b.txt (text)",
        "left out: in/image.png (is binary: it has a NUL byte at byte 1)",
        "left out: in/.git (is hidden)",
        "training: 15 bytes of text in 3 documents",
    ] {
        assert!(output.stdout.lines().any(|found| found == line), "{line} is not in\n{}", output.stdout);
    }
    assert_eq!(std::fs::read_dir(case.path("")).unwrap().count(), 1);
}

#[test]
fn a_long_line_is_a_document_in_one_piece_or_many() {
    // Longer than the buffers, with and without escapes, and as a record of an array.
    let text: String = (0..300_000).map(|i| format!("w{} ", i % 1000)).collect();
    for escaped in [false, true] {
        let value = if escaped { text.replace("w1 ", "\\u00771 ") } else { text.clone() };
        let record = format!("{{\"id\": 1, \"text\": \"{value}\", \"tail\": [1]}}");
        for (name, content) in [("a.jsonl", format!("{record}\n")), ("a.json", format!("[{record}]"))] {
            let case = Case::with(name, content);
            case.write("val.txt", "some validation text");
            let args = "prepare --tokenizer bytes --length 11 --out out --val val.txt --input";
            let args: Vec<&str> = args.split(' ').chain([name]).collect();
            let output = case.run(&args);
            assert!(output.ok, "{}", output.stderr);
            let found = case.rows(Split::Train).concat();
            assert!(text.starts_with(&found) && found.len() + 11 > text.len(), "{name} {escaped}");
            assert_eq!(case.folder().manifest().train.documents, 1);
        }
    }
}
