//! From files to rows and back.

use std::ops::ControlFlow;
use std::path::Path;

use pgm_data::{DataError, DataFolder, Inputs, Mode, Prepare, Split, TextTokenizer, Validation, prepare};

const BOS: u32 = 256;

fn inputs(path: &Path) -> Inputs {
    Inputs::resolve(&[path.display().to_string()], "text", "text").unwrap()
}

fn run(what: &Prepare) -> Result<DataFolder, DataError> {
    prepare(what, &mut |_| ControlFlow::Continue(()))?;
    DataFolder::open(what.out)
}

fn rows(folder: &DataFolder, split: Split) -> Vec<(Vec<u32>, usize)> {
    let rows = folder.rows(split).unwrap();
    (0..rows.len()).map(|index| rows.row(index).unwrap()).map(|row| (row.tokens, row.valid)).collect()
}

#[test]
fn packed_rows_hold_the_text_and_validation_is_cut_off_before_rows_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    let text: String = ('a'..='z').chain('A'..='Z').cycle().take(1000).collect();
    std::fs::write(&path, &text).unwrap();
    let tokenizer = TextTokenizer::bytes();
    let what = Prepare {
        inputs: &inputs(&path),
        validation: &Validation::Fraction(0.1),
        tokenizer: &tokenizer,
        length: 11,
        mode: Mode::Pack,
        row_eos: false,
        out: &folder.path().join("out"),
    };
    let data = run(&what).unwrap();
    let decoded = |split| {
        let rows = rows(&data, split);
        assert!(rows.iter().all(|(row, valid)| row[0] == BOS && row.len() == 11 && *valid == 11));
        rows.into_iter().flat_map(|(row, _)| row[1..].to_vec()).map(|byte| byte as u8 as char).collect::<String>()
    };
    assert_eq!(decoded(Split::Train), text[..900]);
    assert_eq!(decoded(Split::Validation), text[900..]);
    assert_eq!(data.manifest().train.dropped_tokens, 0);
    assert!(matches!(run(&what), Err(DataError::Exists { .. })));
}

#[test]
fn documents_are_joined_with_eos_and_none_follows_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docs.jsonl");
    std::fs::write(&path, "{\"text\":\"abc\"}\n{\"text\":\"\"}\n{\"text\":\"de\"}\n{\"text\":\"f\"}\n").unwrap();
    let validation = folder.path().join("val.txt");
    std::fs::write(&validation, "xyz").unwrap();
    let tokenizer = TextTokenizer::bytes();
    let [a, b, c, d, e, f, x, y, z] = *b"abcdefxyz";
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
        let what = Prepare {
            inputs: &inputs(&path),
            validation: &Validation::Inputs(inputs(&validation)),
            tokenizer: &tokenizer,
            length,
            mode: Mode::Pack,
            row_eos,
            out: &out,
        };
        if row_eos {
            let found: Vec<_> = rows(&run(&what).unwrap(), Split::Train).into_iter().map(|(row, _)| row).collect();
            assert_eq!(found, expected);
        } else {
            assert!(matches!(run(&what), Err(DataError::TooShort { split: "validation", .. })));
            assert!(!out.exists());
            let what = Prepare { validation: &Validation::Inputs(inputs(&path)), ..what };
            let found: Vec<_> = rows(&run(&what).unwrap(), Split::Train).into_iter().map(|(row, _)| row).collect();
            assert_eq!(found, expected);
        }
    }
    let _ = (x, y, z);
}

#[test]
fn padded_rows_are_documents_with_a_valid_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docs.jsonl");
    std::fs::write(&path, "{\"text\":\"ab\"}\n{\"text\":\"abcdefgh\"}\n{\"text\":\"z\"}\n{\"text\":\"y\"}\n").unwrap();
    let tokenizer = TextTokenizer::bytes();
    let what = Prepare {
        inputs: &inputs(&path),
        validation: &Validation::Fraction(0.15),
        tokenizer: &tokenizer,
        length: 5,
        mode: Mode::Pad,
        row_eos: false,
        out: &folder.path().join("out"),
    };
    let data = run(&what).unwrap();
    let found = rows(&data, Split::Train);
    assert_eq!(found[0], (vec![BOS, 97, 98, 256, 256], 4));
    assert_eq!(found[1], (vec![BOS, 97, 98, 99, 256], 5));
    assert_eq!(data.manifest().train.dropped_tokens, 5);
    assert_eq!(rows(&data, Split::Validation).last().unwrap(), &(vec![BOS, 121, 256, 256, 256], 3));
}

#[test]
fn a_stopped_run_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    std::fs::write(&path, "words ".repeat(300_000)).unwrap();
    let tokenizer = TextTokenizer::bytes();
    let what = Prepare {
        inputs: &inputs(&path),
        validation: &Validation::Fraction(0.1),
        tokenizer: &tokenizer,
        length: 16,
        mode: Mode::Pack,
        row_eos: false,
        out: &folder.path().join("out"),
    };
    let mut calls = 0;
    let stopped = prepare(&what, &mut |_| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(stopped, Err(DataError::Stopped)));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn every_kind_of_damage_to_a_data_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    std::fs::write(&path, "some words ".repeat(100)).unwrap();
    let tokenizer = TextTokenizer::bytes();
    let out = folder.path().join("out");
    let what = Prepare {
        inputs: &inputs(&path),
        validation: &Validation::Fraction(0.5),
        tokenizer: &tokenizer,
        length: 16,
        mode: Mode::Pack,
        row_eos: false,
        out: &out,
    };
    run(&what).unwrap();
    let shard = out.join("train-00000.rows");
    let good = std::fs::read(&shard).unwrap();
    let open = || DataFolder::open(&out).and_then(|data| data.rows(Split::Train)).unwrap_err().to_string();
    let mut flipped = good.clone();
    flipped[80] ^= 1;
    let mut other_tokenizer = good.clone();
    other_tokenizer[40] ^= 1;
    for (bytes, says) in [
        (&flipped[..], "checksum"),
        (&good[..good.len() - 1], "size"),
        (&good[..20], "no header"),
        (&other_tokenizer[..], "another tokenizer"),
    ] {
        std::fs::write(&shard, bytes).unwrap();
        let message = open();
        assert!(message.contains("train-00000.rows") && message.contains(says), "{message}");
    }
    std::fs::write(&shard, &good).unwrap();
    std::fs::write(out.join("tokenizer.json"), "{}").unwrap();
    assert!(open().contains("tokenizer"), "{}", open());
    std::fs::remove_file(out.join("data.json")).unwrap();
    assert!(matches!(DataFolder::open(&out), Err(DataError::NotPrepared { .. })));
}
