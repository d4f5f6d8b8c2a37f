//! Documents in plain text, their order, the validation split, and mixtures.

mod common;

use std::collections::BTreeSet;

use common::Case;
use pgm_data::Split;

#[test]
fn plain_text_is_cut_into_documents() {
    let stories = "one\nmore\n<|endoftext|>\ntwo\n\n<|endoftext|>three<|endoftext|>\n<|endoftext|>\n";
    let paragraphs = "one\nmore\n\n  \t\r\n\ntwo\r\n\r\nthree\n\n\n";
    let lines = "one\n\ntwo words\r\nthree";
    for (documents, text, expected) in [
        ("file", lines, vec!["one\n\ntwo words\r\nthree"]),
        ("line", lines, vec!["one", "two words", "three"]),
        ("blank-line", paragraphs, vec!["one\nmore", "two", "three"]),
        ("<|endoftext|>", stories, vec!["one\nmore", "two", "three"]),
        ("---", "one --- two---three", vec!["one ", " two", "three"]),
        ("\\n***\\n", "one\n***\ntwo *** \n***\n", vec!["one", "two *** "]),
    ] {
        let case = Case::with("a.txt", text);
        let args = format!("--input a.txt --documents {documents}");
        assert_eq!(case.documents(&args), expected, "{documents}");
        case.write("a.txt.gz", common::gzip(text.as_bytes()));
        assert_eq!(case.documents(&format!("--input a.txt.gz --documents {documents}")), expected, "{documents}, gzip");
    }
    let message = Case::with("a.txt", "a").refusal("--input a.txt --documents=");
    assert!(message.contains("separator"), "{message}");
}

#[test]
fn separators_become_eos_in_packed_rows() {
    let case = Case::with("a.txt", "abc\n<|endoftext|>\nde\n<|endoftext|>\nfghij");
    let args = "prepare --input a.txt --documents <|endoftext|> --tokenizer bytes --length 7 --out out --val a.txt";
    let output = case.run(&args.split(' ').collect::<Vec<_>>());
    assert!(output.ok && output.stdout.contains("from 3 documents"), "{}{}", output.stdout, output.stderr);
    let [a, b, c, d, e, f, g, h, i, j] = *b"abcdefghij";
    let expected = [[a, b, c, 0, d, e], [0, f, g, h, i, j]];
    for (row, expected) in case.tokens(Split::Train).into_iter().zip(expected) {
        let expected: Vec<u32> = expected.iter().map(|&byte| if byte == 0 { 256 } else { u32::from(byte) }).collect();
        assert_eq!(row[1..], expected);
    }
    // Without the option the marker is text, and a note says so.
    let output = case.prepare("--input a.txt --val a.txt");
    assert!(
        output.stderr.contains("--documents '<|endoftext|>' makes it the border of documents"),
        "{}",
        output.stderr
    );
}

#[test]
fn long_documents_are_whole_wherever_the_buffers_end() {
    // Documents of all lengths, some longer than the buffers; the separator comes at every place of a buffer.
    let document = |i: usize| format!("d{i} {}", "word ".repeat(i * 977 % 50_000));
    let documents: Vec<String> = (0..60).map(document).collect();
    for (option, separator) in [("<|end|>", "<|end|>"), ("blank-line", "\n\n"), ("line", "\n")] {
        let case = Case::with("a.txt", documents.join(separator));
        let args =
            format!("prepare --input a.txt --documents {option} --tokenizer bytes --length 1000 --out out --val a.txt");
        let output = case.run(&args.split(' ').collect::<Vec<_>>());
        assert!(output.ok, "{}", output.stderr);
        let split = case.folder().manifest().train.clone();
        assert_eq!((split.documents, split.text_bytes), (60, documents.concat().len() as u64), "{option}");
        let found: Vec<u32> = case.tokens(Split::Train).iter().flat_map(|row| row[1..].to_vec()).collect();
        let expected: Vec<u32> = documents.iter().flat_map(|text| text.bytes().map(u32::from).chain([256])).collect();
        assert!(expected.starts_with(&found), "{option}");
    }
}

#[test]
fn documents_are_shuffled_by_their_seed_alone() {
    let lines: Vec<String> = (0..200).map(|i| format!("{{\"text\": \"document {i}\"}}\n")).collect();
    let case = Case::with("a.jsonl", lines.concat());
    case.write("b/1.jsonl", lines[..70].concat()).write("b/2.jsonl", lines[70..].concat());
    let plain = case.documents("--input a.jsonl");
    let shuffled = case.documents("--input a.jsonl --shuffle-documents 5");
    assert_ne!(shuffled, plain);
    assert_eq!(shuffled.iter().collect::<BTreeSet<_>>(), plain.iter().collect::<BTreeSet<_>>());
    assert_eq!(case.documents("--input a.jsonl --shuffle-documents 5"), shuffled);
    assert_eq!(case.documents("--input b --shuffle-documents 5"), shuffled);
    assert_ne!(case.documents("--input a.jsonl --shuffle-documents 6"), shuffled);
    // The validation documents are random ones then.
    assert!(case.prepare("--input a.jsonl --shuffle-documents 5 --val-documents 20").ok);
    assert_eq!(
        (case.rows(Split::Train), case.rows(Split::Validation)),
        (shuffled[..180].to_vec(), shuffled[180..].to_vec())
    );
}

#[test]
fn the_last_document_is_cut_where_no_validation_row_is_left_otherwise() {
    let record = |n: usize| format!("{{\"text\": \"{}\"}}\n", "word ".repeat(n));
    let args = "prepare --tokenizer bytes --length 11 --out out --val-fraction 0.1 --input";
    for (content, cut) in [
        (record(400), true),
        (record(10) + &record(400), true),
        (record(400) + &record(1), true),
        (record(400) + &record(40), false),
    ] {
        let case = Case::with("a.jsonl", &content);
        let output = case.run(&args.split(' ').chain(["a.jsonl"]).collect::<Vec<_>>());
        assert!(output.ok, "{}", output.stderr);
        assert_eq!(output.stderr.contains("the last training document is cut"), cut, "{}", output.stderr);
        let manifest = case.folder().manifest().clone();
        let all = manifest.train.text_bytes + manifest.validation.text_bytes;
        if cut {
            assert!(manifest.validation.text_bytes.abs_diff(all / 10) <= 1, "{manifest:?}");
        } else {
            assert_eq!(manifest.validation.text_bytes, 200);
        }
        // No stray files of the first pass.
        assert_eq!(std::fs::read_dir(case.path("out")).unwrap().count(), 4);
    }
}

#[test]
fn a_mixture_has_the_shares_of_its_weights_and_uses_no_text_twice() {
    let case = Case::new();
    case.write("a.txt", "a".repeat(30_000)).write("b.txt", "b".repeat(9_000));
    let lines: Vec<String> = (0..900).map(|_| format!("{{\"text\": \"{}\"}}\n", "c".repeat(10))).collect();
    case.write("c.jsonl", lines.concat()).write("empty.txt", "");
    let fixed = "prepare --tokenizer bytes --length 11 --out out --val-fraction 0.1";
    let run = |args: &str| {
        let _ = std::fs::remove_dir_all(case.path("out"));
        case.run(&fixed.split(' ').chain(args.split(' ')).collect::<Vec<_>>())
    };
    for other in ["b.txt", "c.jsonl"] {
        let output = run(&format!("--input a.txt --weight 0.7 --input {other} --weight 0.3"));
        assert!(output.ok, "{}", output.stderr);
        // 9000 bytes are 30 %, so 21000 are 70 %; the validation text is a tenth of each.
        let manifest = case.folder().manifest().clone();
        assert_eq!((manifest.train.text_bytes, manifest.validation.text_bytes), (27_000, 3_000), "{other}");
        for (split, expected) in [(Split::Train, 18_900), (Split::Validation, 2_100)] {
            let n_a = case.tokens(split).iter().flatten().filter(|&&token| token == u32::from(b'a')).count();
            assert!(n_a.abs_diff(expected) < 11, "{n_a}");
        }
        assert!(
            output.stderr.contains("70.0 % of the text are 21000 of the 30000 bytes of a.txt"),
            "{}",
            output.stderr
        );
        let before = case.tokens(Split::Train);
        assert!(run(&format!("--input a.txt --weight 7 --input {other} --weight 3")).ok);
        assert_eq!(case.tokens(Split::Train), before);
    }
    // The share is exact also where a document is longer than it.
    case.write("long.jsonl", format!("{{\"text\": \"{}\"}}\n", "c".repeat(2_000_000)));
    assert!(run("--input b.txt --weight 0.9 --input long.jsonl --weight 0.1").ok);
    let manifest = case.folder().manifest().clone();
    assert_eq!(manifest.train.text_bytes + manifest.validation.text_bytes, 10_000);
    for (args, says) in [
        ("--input a.txt --weight 0.7 --input b.txt", "2 --input have 1 --weight"),
        ("--input a.txt --weight 0.7 --input b.txt --weight 0", "--weight 0 must be a number above 0"),
        ("--input a.txt --weight 1 --input empty.txt --weight 1", "empty.txt has no text for its --weight"),
        ("--input a.txt --weight 1 --input missing.txt --weight 1", "missing.txt"),
        ("--input a.txt --weight 1 --input a.txt --weight 1", "a.txt is in two inputs of the mixture"),
    ] {
        let output = run(args);
        assert!(!output.ok && output.stderr.contains(says), "{args}: {}", output.stderr);
    }
}

#[test]
fn many_dropped_tokens_are_said() {
    let case = Case::with("a.txt", "one line of text\n".repeat(100));
    let output = case.prepare("--input a.txt");
    assert!(
        output.stderr.contains("% of the training tokens are in no row") && output.stderr.contains("--documents line"),
        "{}",
        output.stderr
    );
    let output = case.prepare("--input a.txt --documents line");
    assert!(output.ok && !output.stderr.contains("in no row"), "{}", output.stderr);
    assert_eq!(case.folder().manifest().train.rows + case.folder().manifest().validation.rows, 100);
}
