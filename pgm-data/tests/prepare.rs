//! From text files to a data folder and back.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, LargeStringArray, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use pgm_data::{
    DataError, DataFolder, Detokenizer, Mode, Prepare, SpecialNames, SpecialTokens, Split, TextInputs, TextTokenizer,
    Validation, prepare,
};
use serde_json::{Value, json};

const BOS: u32 = 256;

fn inputs(path: &Path) -> TextInputs {
    TextInputs::resolve(&[path.display().to_string()], "text", "text").unwrap()
}

fn run(options: &Prepare) -> Result<DataFolder, DataError> {
    prepare(options, &mut |_| ControlFlow::Continue(()))?;
    DataFolder::open(options.out)
}

fn rows(folder: &DataFolder, split: Split) -> Vec<(Vec<u32>, usize)> {
    let rows = folder.rows(split).unwrap();
    (0..rows.len()).map(|index| rows.row(index).unwrap()).map(|row| (row.tokens, row.valid)).collect()
}

#[test]
fn packed_rows_contain_the_text_and_the_validation_text_is_cut_off_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    let text: String = ('a'..='z').chain('A'..='Z').cycle().take(1000).collect();
    std::fs::write(&path, &text).unwrap();
    let tokenizer = TextTokenizer::bytes();
    let options = Prepare {
        inputs: &inputs(&path),
        validation: &Validation::Fraction(0.1),
        tokenizer: &tokenizer,
        length: 11,
        mode: Mode::Pack,
        row_eos: false,
        out: &folder.path().join("out"),
    };
    let data = run(&options).unwrap();
    let decoded = |split| {
        let rows = rows(&data, split);
        assert!(rows.iter().all(|(row, valid)| row[0] == BOS && row.len() == 11 && *valid == 11));
        rows.into_iter().flat_map(|(row, _)| row[1..].to_vec()).map(|byte| byte as u8 as char).collect::<String>()
    };
    assert_eq!(decoded(Split::Train), text[..900]);
    assert_eq!(decoded(Split::Validation), text[900..]);
    assert_eq!(data.manifest().train.dropped_tokens, 0);
    assert!(matches!(run(&options), Err(DataError::Exists { .. })));
}

#[test]
fn packed_documents_have_eos_between_them_and_none_after_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docs.jsonl");
    std::fs::write(&path, "{\"text\":\"abc\"}\n{\"text\":\"\"}\n{\"text\":\"de\"}\n{\"text\":\"f\"}\n").unwrap();
    let validation = folder.path().join("val.txt");
    std::fs::write(&validation, "xyz").unwrap();
    let tokenizer = TextTokenizer::bytes();
    let [a, b, c, d, e, f] = *b"abcdef";
    let ids = |bytes: &[u8]| -> Vec<u32> { bytes.iter().map(|&byte| u32::from(byte)).collect() };
    for (row_eos, length, expected) in [
        (
            false,
            5,
            vec![
                [&[BOS][..], &ids(&[a, b, c]), &[256]].concat(),
                [&[BOS][..], &ids(&[d, e]), &[256], &ids(&[f])].concat(),
            ],
        ),
        (
            true,
            4,
            vec![
                [&[BOS][..], &ids(&[a, b]), &[256]].concat(),
                [&[BOS][..], &ids(&[c]), &[256, 256]].concat(),
                [&[BOS][..], &ids(&[d, e]), &[256]].concat(),
                [&[BOS][..], &[256], &ids(&[f]), &[256]].concat(),
            ],
        ),
    ] {
        let out = folder.path().join(format!("out-{row_eos}"));
        let options = Prepare {
            inputs: &inputs(&path),
            validation: &Validation::TextInputs(inputs(&validation)),
            tokenizer: &tokenizer,
            length,
            mode: Mode::Pack,
            row_eos,
            out: &out,
        };
        if row_eos {
            let found: Vec<_> = rows(&run(&options).unwrap(), Split::Train).into_iter().map(|(row, _)| row).collect();
            assert_eq!(found, expected);
        } else {
            assert!(matches!(run(&options), Err(DataError::TooShort { split: "validation", .. })));
            assert!(!out.exists());
            let options = Prepare { validation: &Validation::TextInputs(inputs(&path)), ..options };
            let found: Vec<_> = rows(&run(&options).unwrap(), Split::Train).into_iter().map(|(row, _)| row).collect();
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn padded_rows_are_documents_with_a_valid_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docs.jsonl");
    std::fs::write(&path, "{\"text\":\"ab\"}\n{\"text\":\"abcdefgh\"}\n{\"text\":\"z\"}\n{\"text\":\"y\"}\n").unwrap();
    let tokenizer = TextTokenizer::bytes();
    let options = Prepare {
        inputs: &inputs(&path),
        validation: &Validation::Fraction(0.15),
        tokenizer: &tokenizer,
        length: 5,
        mode: Mode::Pad,
        row_eos: false,
        out: &folder.path().join("out"),
    };
    let data = run(&options).unwrap();
    let found = rows(&data, Split::Train);
    assert_eq!(found[0], (vec![BOS, 97, 98, 256, 256], 4));
    assert_eq!(found[1], (vec![BOS, 97, 98, 99, 256], 5));
    assert_eq!(data.manifest().train.dropped_tokens, 5);
    assert_eq!(rows(&data, Split::Validation).last().unwrap(), &(vec![BOS, 121, 256, 256, 256], 3));
}

#[test]
fn a_stopped_run_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    std::fs::write(&path, "words ".repeat(300_000)).unwrap();
    let tokenizer = TextTokenizer::bytes();
    let options = Prepare {
        inputs: &inputs(&path),
        validation: &Validation::Fraction(0.1),
        tokenizer: &tokenizer,
        length: 16,
        mode: Mode::Pack,
        row_eos: false,
        out: &folder.path().join("out"),
    };
    let mut calls = 0;
    let stopped = prepare(&options, &mut |_| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(DataError::Stopped)));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn write_json(folder: &Path, name: &str, value: &Value) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, serde_json::to_vec(value).unwrap()).unwrap();
    path
}

fn added(id: usize, name: &str) -> Value {
    json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
           "special": true})
}

/// A tokenizer like bert-base-uncased: its special ids, its vocabulary size, whole words from id 1000 on.
fn bert_like(folder: &Path) -> PathBuf {
    let words = ["the", "dog", "ran", "home", ",", ".", "who", "?", "it", "'", "s", "late"];
    let name = |id: usize| match id {
        0 => "[PAD]".to_string(),
        100 => "[UNK]".to_string(),
        101 => "[CLS]".to_string(),
        102 => "[SEP]".to_string(),
        103 => "[MASK]".to_string(),
        _ => words.get(id.wrapping_sub(1000)).map_or(format!("[unused{id}]"), ToString::to_string),
    };
    let vocab: serde_json::Map<String, Value> = (0..30_522).map(|id| (name(id), json!(id))).collect();
    let special = [0, 100, 101, 102, 103].map(|id| added(id, &name(id)));
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab},
    });
    write_json(folder, "tokenizer.json", &tokenizer)
}

/// A tokenizer like GPT-2's: 256 bytes, entries that no text uses, `<|endoftext|>` last, no mask.
fn gpt2_like(folder: &Path) -> PathBuf {
    let mut tokenizer: Value = serde_json::from_slice(TextTokenizer::bytes().json()).unwrap();
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    for id in 256..50_256 {
        vocab.insert(format!("unreached {id}"), json!(id));
    }
    vocab.insert("<|endoftext|>".to_string(), json!(50_256));
    tokenizer["added_tokens"] = json!([added(50_256, "<|endoftext|>")]);
    write_json(folder, "tokenizer.json", &tokenizer)
}

#[test]
fn sentences_of_lm1b_become_padded_rows_in_berts_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer_path = bert_like(folder.path());
    let named: SpecialNames = "bos=[CLS],eos=[SEP],mask=[MASK],pad=[PAD]".parse().unwrap();
    let tokenizer = TextTokenizer::from_file(&tokenizer_path, &named).unwrap();
    let special = SpecialTokens { bos: 101, eos: 102, pad: Some(0), mask: 103 };
    assert_eq!((tokenizer.special(), tokenizer.vocab_size()), (&special, 30_522));
    // The usual names find the same tokens.
    let unnamed = TextTokenizer::from_file(&tokenizer_path, &SpecialNames::default()).unwrap();
    assert_eq!((unnamed.special(), unnamed.vocab_size()), (&special, 30_522));

    let (train, test) = (folder.path().join("train.parquet"), folder.path().join("test.parquet"));
    let sentences = ["The dog ran home .", "\" Who ? \" it 's late , the dog ran home ."];
    write_parquet(&train, vec![("text", Arc::new(StringArray::from(sentences.to_vec())))]);
    write_parquet(&test, vec![("text", Arc::new(StringArray::from(vec!["Who ran ?"])))]);
    let lm1b = |path: &Path| inputs(path).detokenized(Some(Detokenizer::Lm1b));
    let options = Prepare {
        inputs: &lm1b(&train),
        validation: &Validation::TextInputs(lm1b(&test)),
        tokenizer: &tokenizer,
        length: 10,
        mode: Mode::Pad,
        row_eos: false,
        out: &folder.path().join("out"),
    };
    let data = run(&options).unwrap();
    let expected = [
        (vec![101, 1000, 1001, 1002, 1003, 1005, 102, 0, 0, 0], 7),
        // The quotation marks are unknown words.
        (vec![101, 100, 1006, 1007, 100, 1008, 1009, 1010, 1011, 102], 10),
    ];
    assert_eq!(rows(&data, Split::Train), expected);
    assert_eq!(rows(&data, Split::Validation), [(vec![101, 1006, 1002, 1007, 102, 0, 0, 0, 0, 0], 5)]);
    let manifest = data.manifest();
    assert_eq!((manifest.detokenizer, &manifest.special), (Some(Detokenizer::Lm1b), &special));
    // Bytes are counted after the detokenizer.
    let whole = "The dog ran home.\"Who?\" it's late, the dog ran home.";
    assert_eq!((manifest.train.documents, manifest.train.text_bytes), (2, whole.len() as u64));

    let mixed =
        Prepare { validation: &Validation::TextInputs(inputs(&test)), out: &folder.path().join("mixed"), ..options };
    assert!(run(&mixed).unwrap_err().to_string().contains("same detokenizer"));
}

#[test]
fn the_last_documents_are_held_out_and_rows_end_with_eos_in_gpt2s_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer_path = gpt2_like(folder.path());
    let named: SpecialNames = "bos=<|endoftext|>,eos=<|endoftext|>".parse().unwrap();
    let tokenizer = TextTokenizer::from_file(&tokenizer_path, &named).unwrap();
    let special = SpecialTokens { bos: 50_256, eos: 50_256, pad: None, mask: 50_257 };
    assert_eq!((tokenizer.special(), tokenizer.vocab_size()), (&special, 50_258));

    // Two files, the text in a column of another name, and a null, which is not a document.
    let (first, second) = (folder.path().join("web-0.parquet"), folder.path().join("web-1.parquet"));
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let texts = LargeStringArray::from(vec![Some("abc"), None, Some("de")]);
    write_parquet(&first, vec![("id", numbers), ("article", Arc::new(texts))]);
    write_parquet(&second, vec![("article", Arc::new(LargeStringArray::from(vec!["fgh", "ijklm", "no"])))]);
    let pattern = folder.path().join("web-*.parquet").display().to_string();
    let inputs = TextInputs::resolve(&[pattern], "text", "article").unwrap();
    let prepared = |n_documents, out: &'static str| {
        let validation = Validation::Documents(n_documents);
        let out = folder.path().join(out);
        let options = Prepare {
            inputs: &inputs,
            validation: &validation,
            tokenizer: &tokenizer,
            length: 6,
            mode: Mode::Pack,
            row_eos: true,
            out: &out,
        };
        run(&options)
    };
    let data = prepared(2, "out").unwrap();
    let text = |split| -> Vec<String> {
        let shown = |token: u32| if token == 50_256 { '|' } else { char::from(token as u8) };
        rows(&data, split).into_iter().map(|(row, _)| row.into_iter().map(shown).collect()).collect()
    };
    assert_eq!(text(Split::Train), ["|abc||", "|de|f|"]);
    assert_eq!(text(Split::Validation), ["|ijkl|", "|m|no|"]);
    let manifest = data.manifest();
    assert_eq!((manifest.val_documents, manifest.row_eos, manifest.detokenizer), (Some(2), true, None));
    assert_eq!((manifest.train.documents, manifest.validation.documents), (3, 2));
    for n_documents in [0, 5, 6] {
        let message = prepared(n_documents, "refused").unwrap_err().to_string();
        assert!(message.contains("--val-documents") && message.contains("5 documents"), "{message}");
    }
}

#[test]
fn a_fraction_of_detokenized_text_is_counted_in_bytes_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("split.txt");
    std::fs::write(&path, "we go , and we stay .\n".repeat(1000)).unwrap();
    let options = Prepare {
        inputs: &inputs(&path).detokenized(Some(Detokenizer::Lm1b)),
        validation: &Validation::Fraction(0.25),
        tokenizer: &TextTokenizer::bytes(),
        length: 21,
        mode: Mode::Pack,
        row_eos: false,
        out: &folder.path().join("out"),
    };
    let manifest = run(&options).unwrap().manifest().clone();
    // A line has 22 bytes in the file and 20 in the rows.
    assert_eq!((manifest.train.text_bytes, manifest.validation.text_bytes), (15_000, 5_000));
}
