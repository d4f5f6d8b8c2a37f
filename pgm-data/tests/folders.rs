//! What a folder holds: splits, cards, links, and files that are no text.

mod common;

use common::{Case, gzip, strings};
use parquet::basic::Compression;
use pgm_data::Split;

#[test]
fn the_splits_of_a_hub_folder_are_used_and_its_card_is_left_out() {
    for [train, validation, test] in [
        [
            "data/train-00000-of-00001.parquet",
            "data/validation-00000-of-00001.parquet",
            "data/test-00000-of-00001.parquet",
        ],
        ["Corpus-train.parquet", "Corpus-valid.parquet", "Corpus-test.parquet"],
        ["train/0.parquet", "dev/0.parquet", "test/0.parquet"],
        ["wiki.train.parquet", "wiki.valid.parquet", "wiki.test.parquet"],
    ] {
        let case = Case::new();
        for (name, texts) in [(train, ["one", "two"]), (validation, ["three", "four"]), (test, ["five", "six"])] {
            case.write_parquet(&format!("ds/{name}"), vec![("text", strings(&texts))], Compression::SNAPPY);
        }
        case.write("ds/README.md", "# A card\n").write("ds/dataset_infos.json", "{\"default\": {}}");
        let output = case.prepare("--input ds");
        assert!(output.ok, "{train}: {}", output.stderr);
        assert_eq!(case.rows(Split::Train), ["one", "two"], "{train}");
        assert_eq!(case.rows(Split::Validation), ["three", "four"], "{train}");
        for line in [
            format!("read: ds/{train} (parquet)"),
            format!("read for validation: ds/{validation} (parquet)"),
            format!("left out: ds/{test} (belongs to the test split)"),
            "left out: ds/README.md (describes the data set)".to_string(),
            "left out: ds/dataset_infos.json (describes the data set)".to_string(),
        ] {
            assert!(output.stderr.lines().any(|found| found == line), "{line} is not in\n{}", output.stderr);
        }
        // An option of the user comes first. The validation split is no training text then either.
        assert!(case.prepare("--input ds --val-documents 1").ok);
        assert_eq!((case.rows(Split::Train), case.rows(Split::Validation)), (vec!["one".into()], vec!["two".into()]));
    }
}

#[test]
fn a_folder_of_texts_without_splits_is_read_whole() {
    let case = Case::new();
    case.write("in/README.md", "read me").write("in/test.txt", "test").write("in/Validation.md", "val");
    assert_eq!(case.documents("--input in"), ["read me", "val", "test"]);
    // A card is known by its header too, and by records beside it.
    let case = Case::new();
    case.write("in/README.md", "---\nlicense: mit\n---\n").write("in/a.txt", "a");
    assert_eq!(case.documents("--input in"), ["a"]);
    let case = Case::new();
    case.write("in/README.md", "words").write("in/LICENSE", "words").write("in/a.jsonl", "{\"text\": \"a\"}");
    assert_eq!(case.documents("--input in"), ["a"]);
    // A folder of the datasets library.
    let case = Case::new();
    case.write("in/train/state.json", "{}")
        .write("in/train/dataset_info.json", "{}")
        .write("in/dataset_dict.json", "{}");
    case.write("in/train/a.jsonl", "{\"text\": \"a\"}").write("in/test/a.jsonl", "{\"text\": \"b\"}");
    assert_eq!(case.documents("--input in"), ["a"]);
}

#[test]
fn what_is_left_out_of_a_folder_is_said() {
    let case = Case::new();
    case.write("in/a.txt", "a").write("in/b.txt.gz", gzip(b"b")).write("in/c.JSONL", "{\"text\": \"c\"}");
    case.write("in/image.png", b"\x89PNG\r\n\x1a\n\0\0").write("in/d.zip", b"PK\x03\x04").write("in/.hidden", "x");
    let output = case.prepare("--input in --val in");
    assert!(output.ok, "{}", output.stderr);
    assert_eq!(case.rows(Split::Train), ["a", "b", "c"]);
    for line in [
        "read: in/b.txt.gz (text, gzip)",
        "read: in/c.JSONL (json-lines)",
        "left out: in/image.png (is binary: it has a NUL byte at byte 8)",
        "left out: in/.hidden (is hidden)",
    ] {
        assert!(output.stderr.lines().any(|found| found == line), "{line} is not in\n{}", output.stderr);
    }
    assert!(output.stderr.contains("left out: in/d.zip (is a zip archive"), "{}", output.stderr);
    let message = Case::with("in/a.png", [0, 1]).refusal("--input in");
    assert!(message.contains("no file in in can be read as text") && message.contains("a.png is binary"), "{message}");
    let message = Case::new().refusal("--input none/*.txt");
    assert!(message.contains("no file matches none/*.txt"), "{message}");
}

#[test]
fn a_file_that_is_found_twice_is_read_once() {
    let case = Case::with("in/a.txt", "a");
    case.write("in/b.txt", "b");
    for (args, again) in [
        ("--input in/a.txt --input in --val in", "in/a.txt"),
        ("--input in --input in/../in/b.txt --val in", "in/../in/b.txt"),
    ] {
        let _ = std::fs::remove_dir_all(case.path("out"));
        let output = case.prepare(args);
        let says = format!("left out: {again} (is read already)");
        assert!(output.ok && output.stderr.contains(&says), "{args}: {}", output.stderr);
        assert_eq!(case.rows(Split::Train), ["a", "b"], "{args}");
    }
}

#[cfg(unix)]
#[test]
fn links_that_form_a_circle_end() {
    let case = Case::with("in/sub/a.txt", "a");
    std::os::unix::fs::symlink(case.path("in"), case.path("in/sub/loop")).unwrap();
    std::os::unix::fs::symlink(case.path("in/sub"), case.path("in/again")).unwrap();
    std::os::unix::fs::symlink("nothing", case.path("in/broken")).unwrap();
    assert_eq!(case.documents("--input in"), ["a"]);
    let output = case.prepare("--input in --val in");
    for reason in ["is a link to a folder that is read already", "in/broken (is a link to nothing)"] {
        assert!(output.stderr.contains(reason), "{}", output.stderr);
    }
}
