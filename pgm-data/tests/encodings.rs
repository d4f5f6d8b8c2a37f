//! Text that is not UTF-8 is refused by name, or read with its encoding.

mod common;

use common::Case;
use pgm_data::Split;

fn utf16(text: &str, big_endian: bool) -> Vec<u8> {
    let bytes = |unit: u16| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() };
    text.encode_utf16().flat_map(bytes).collect()
}

const TEXT: &str = "The mill by the river, café and 日本.";

#[test]
fn utf16_is_named_with_and_without_its_mark_and_read_with_its_encoding() {
    for (big_endian, label) in [(false, "utf-16le"), (true, "utf-16be")] {
        for mark in ["", "\u{feff}"] {
            let case = Case::with("a.txt", utf16(&format!("{mark}{TEXT}"), big_endian));
            let message = case.refusal("--input a.txt");
            assert!(message.contains("UTF-16") && message.contains(&format!("--encoding {label}")), "{message}");
            assert_eq!(case.documents(&format!("--input a.txt --encoding {label}")), [TEXT], "{label} {mark:?}");
        }
        let lines = format!("{{\"text\": \"{TEXT}\"}}\n");
        let case = Case::with("a.jsonl", utf16(&lines, big_endian));
        assert!(case.refusal("--input a.jsonl").contains("UTF-16"));
        assert_eq!(case.documents(&format!("--input a.jsonl --encoding {label}")), [TEXT]);
        // Records are found in decoded text too.
        let case = Case::with("a.txt", utf16(&lines, big_endian));
        assert_eq!(case.documents(&format!("--input a.txt --encoding {label}")), [TEXT]);
    }
    // A folder leaves such files out and says so, and reads them where the encoding is given.
    let case = Case::with("in/u.txt", utf16(TEXT, false));
    case.write("in/a.txt", "plain");
    let output = case.prepare("--input in --val in");
    assert!(output.stderr.contains("left out: in/u.txt (is UTF-16"), "{}", output.stderr);
    let case = Case::with("in/u.txt", utf16(TEXT, false));
    assert_eq!(case.documents("--input in --encoding utf-16le"), [TEXT]);
}

#[test]
fn a_folder_leaves_out_a_text_that_is_not_utf8_and_says_so() {
    let case = Case::with("in/l.txt", b"na\xefve");
    case.write("in/a.txt", "plain");
    let output = case.prepare("--input in --val in");
    assert!(
        output.ok && output.stderr.contains("left out: in/l.txt (is not UTF-8 text at byte 2"),
        "{}",
        output.stderr
    );
    assert_eq!(case.rows(Split::Train), ["plain"]);
}

#[test]
fn other_encodings_are_named_with_the_byte_and_read_with_their_name() {
    let mut latin1 = b"na\xefve caf\xe9 ".repeat(3);
    latin1.extend(b"and more");
    let case = Case::with("a.txt", &latin1);
    let message = case.refusal("--input a.txt");
    assert!(message.contains("a.txt is not UTF-8 text at byte 2") && message.contains("--encoding"), "{message}");
    for label in ["latin1", "iso-8859-1", "windows-1252"] {
        let expected = format!("{}and more", "naïve café ".repeat(3));
        assert_eq!(case.documents(&format!("--input a.txt --encoding {label}")), [expected]);
    }
    let case = Case::with("a.txt", b"\x93\xfa\x96\x7b");
    assert_eq!(case.documents("--input a.txt --encoding shift_jis"), ["日本"]);
    let case = Case::with("a.csv", b"text\ncaf\xe9\n");
    assert!(case.refusal("--input a.csv").contains("line 2: is not UTF-8"));
    assert_eq!(case.documents("--input a.csv --encoding latin1"), ["café"]);
    let message = case.refusal("--input a.csv --encoding klingon");
    assert!(message.contains("klingon") && message.contains("utf-16le"), "{message}");
    let case = Case::with("a.txt", b"ok \xff\xff");
    let message = case.refusal("--input a.txt --encoding shift_jis");
    assert!(message.contains("is not Shift_JIS text at byte 3"), "{message}");
}

#[test]
fn files_that_are_utf8_stay_so_beside_others() {
    for (label, bytes) in [("utf-16le", utf16("naïve", false)), ("latin1", b"na\xefve".to_vec())] {
        let case = Case::with("in/a.txt", "café");
        case.write("in/b.txt", bytes).write("in/c.csv", "text\n日本\n");
        assert_eq!(case.documents(&format!("--input in --encoding {label}")), ["café", "naïve", "日本"], "{label}");
        let output = case.prepare(&format!("--input in --val in --encoding {label}"));
        assert!(output.stderr.contains("read: in/a.txt (text)"), "{}", output.stderr);
        let named = ["read: in/b.txt (text, UTF-16LE)", "read: in/b.txt (text, windows-1252)"];
        assert!(named.iter().any(|line| output.stderr.contains(line)), "{}", output.stderr);
    }
}

#[test]
fn a_long_text_is_decoded_without_a_gap() {
    let text: String = (0..200_000).map(|i| format!("é{i} ")).collect();
    let case = Case::with("a.txt", utf16(&text, false));
    let args =
        "prepare --tokenizer bytes --length 100 --out out --encoding utf-16le --val-fraction 0.001 --input a.txt";
    let output = case.run(&args.split(' ').collect::<Vec<_>>());
    assert!(output.ok, "{}", output.stderr);
    let manifest = case.folder().manifest().clone();
    assert_eq!(manifest.train.text_bytes + manifest.validation.text_bytes, text.len() as u64);
    let tokens = case.tokens(Split::Train);
    let found: Vec<u8> = tokens.iter().flat_map(|row| row[1..].iter().map(|&token| token as u8)).collect();
    assert!(text.as_bytes().starts_with(&found));
}

#[test]
fn byte_order_marks_are_no_text() {
    let case = Case::with("a.txt", "\u{feff}one");
    assert_eq!(case.documents("--input a.txt"), ["one"]);
    let manifest = case.folder().manifest().clone();
    assert_eq!(manifest.train.text_bytes, 3);
    assert_eq!(Case::with("a.csv", "\u{feff}text\none\n").documents("--input a.csv"), ["one"]);
}

#[test]
fn nul_bytes_are_refused_wherever_they_are() {
    let message = Case::with("a.txt", b"a few words\0 and more").refusal("--input a.txt");
    assert!(message.contains("is binary") && message.contains("byte 11"), "{message}");
    let mut late = b"word ".repeat(200_000);
    late[600_003] = 0;
    let message = Case::with("a.txt", late).refusal("--input a.txt");
    assert!(message.contains("NUL byte at byte 600003"), "{message}");
    let message = Case::with("a.txt", b"T\0\0\0h\0\0\0e\0\0\0 \0\0\0").refusal("--input a.txt");
    assert!(message.contains("NUL") || message.contains("UTF-32"), "{message}");
}
