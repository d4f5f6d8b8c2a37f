//! Tokenizers that mark the start of a text do so once in a document, however long it is.

mod common;

use common::Case;
use pgm_data::{Split, TextTokenizer};
use serde_json::{Value, json};

/// A tokenizer like Llama's: BPE over a text whose spaces are `▁`, with one before its start.
fn llama_like(normalizer: Value, pre_tokenizer: Value) -> Value {
    let mut names: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).to_vec();
    names.extend((0..=255_u8).map(|byte| format!("<0x{byte:02X}>")));
    names.extend("▁abcdefghijklmnopqrstuvwxyz.".chars().map(String::from));
    let mut merges = Vec::new();
    for word in ["▁the", "▁river", "▁mill", "▁▁", "▁word"] {
        let letters: Vec<String> = word.chars().map(String::from).collect();
        for end in 1..letters.len() {
            let (left, right) = (letters[..end].concat(), letters[end].clone());
            let merged = format!("{left}{right}");
            if !names.contains(&merged) {
                names.push(merged);
                merges.push(json!([left, right]));
            }
        }
    }
    let vocab: serde_json::Map<String, Value> =
        names.iter().zip(0..).map(|(name, id)| (name.clone(), json!(id))).collect();
    json!({
        "version": "1.0",
        "added_tokens": [common::added(0, "<unk>", true), common::added(1, "<s>", true), common::added(2, "</s>", true)],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": merges},
    })
}

#[test]
fn the_pieces_of_a_document_have_the_tokens_of_the_whole() {
    let prepend = json!({"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]});
    let metaspace =
        |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
    let byte_level = {
        let mut tokenizer = common::small_bpe();
        tokenizer["pre_tokenizer"]["add_prefix_space"] = json!(true);
        tokenizer
    };
    // Lines, paragraphs and spaces at the borders of pieces, 1.3 MB in all.
    let spaced: String = (0..200_000)
        .map(|i| {
            if i % 7 == 0 {
                "the\n"
            } else if i % 11 == 3 {
                "river  "
            } else {
                "mill. "
            }
        })
        .collect();
    let lines = "river\n".repeat(200_000);
    for (name, tokenizer) in [
        ("Prepend", llama_like(prepend, Value::Null)),
        ("Metaspace first", llama_like(Value::Null, metaspace("first"))),
        ("Metaspace always", llama_like(Value::Null, metaspace("always"))),
        ("add_prefix_space", byte_level),
        ("none", common::small_bpe()),
    ] {
        for text in [&spaced, &lines] {
            let case = Case::with("a.txt", text);
            case.write_json("tokenizer.json", &tokenizer).write("v.txt", "the river mill ".repeat(9));
            case.write_json("a.jsonl", &json!({"text": text}));
            let whole = TextTokenizer::from_file(&case.path("tokenizer.json"), &Default::default()).unwrap();
            let expected = whole.encode(text).unwrap();
            for input in ["a.txt", "a.jsonl"] {
                let _ = std::fs::remove_dir_all(case.path("out"));
                let args =
                    format!("prepare --input {input} --val v.txt --tokenizer tokenizer.json --length 5 --out out");
                let output = case.run(&args.split(' ').collect::<Vec<_>>());
                assert!(output.ok, "{name}: {}", output.stderr);
                assert_eq!(case.folder().manifest().train.tokens, expected.len() as u64, "{name}, {input}");
                let found: Vec<u32> = case.tokens(Split::Train).iter().flat_map(|row| row[1..].to_vec()).collect();
                assert!(expected.starts_with(&found), "{name}, {input}");
            }
        }
    }
}
