//! A data folder after it was written: damage, and its identity.

use std::ops::ControlFlow;
use std::path::Path;

use pgm_data::{DataError, DataFolder, Mode, Prepare, Split, TextInputs, TextTokenizer, Validation, prepare};

fn inputs(path: &Path) -> TextInputs {
    TextInputs::resolve(&[path.display().to_string()], "text", "text").unwrap()
}

fn run(options: &Prepare) -> Result<DataFolder, DataError> {
    prepare(options, &mut |_| ControlFlow::Continue(()))?;
    DataFolder::open(options.out)
}

#[test]
fn every_kind_of_damage_to_a_data_folder_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    std::fs::write(&path, "some words ".repeat(100)).unwrap();
    let tokenizer = TextTokenizer::bytes();
    let out = folder.path().join("out");
    let options = Prepare {
        inputs: &inputs(&path),
        validation: &Validation::Fraction(0.5),
        tokenizer: &tokenizer,
        length: 16,
        mode: Mode::Pack,
        row_eos: false,
        out: &out,
    };
    run(&options).unwrap();
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

#[test]
fn the_identity_is_that_of_the_content_and_not_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = TextTokenizer::bytes();
    let prepared = |text: &str, name: &str| {
        let path = folder.path().join("text.txt");
        std::fs::write(&path, text).unwrap();
        let out = folder.path().join(name);
        let options = Prepare {
            inputs: &inputs(&path),
            validation: &Validation::Fraction(0.5),
            tokenizer: &tokenizer,
            length: 16,
            mode: Mode::Pack,
            row_eos: false,
            out: &out,
        };
        run(&options).unwrap()
    };
    let text = "some words ".repeat(100);
    let first = prepared(&text, "first");
    let identity = first.identity().unwrap();
    assert!(identity.len() == 64 && identity.bytes().all(|byte| byte.is_ascii_hexdigit()), "{identity}");
    assert_eq!(prepared(&text, "again").identity().unwrap(), identity);

    // One letter differs, in either split: the manifests are equal, the identities are not.
    for (at, name) in [(7, "train"), (text.len() - 300, "validation")] {
        let mut other = text.clone();
        other.replace_range(at..at + 1, "X");
        let other = prepared(&other, name);
        assert_eq!(other.manifest(), first.manifest());
        assert_ne!(other.identity().unwrap(), identity, "{name}");
    }

    // The same rows, but other settings in the manifest.
    let json = std::fs::read_to_string(folder.path().join("again/data.json")).unwrap();
    std::fs::write(folder.path().join("again/data.json"), json.replace("\"row_eos\": false", "\"row_eos\": true"))
        .unwrap();
    assert_ne!(DataFolder::open(&folder.path().join("again")).unwrap().identity().unwrap(), identity);

    let moved = folder.path().join("moved");
    std::fs::rename(folder.path().join("first"), &moved).unwrap();
    assert_eq!(DataFolder::open(&moved).unwrap().identity().unwrap(), identity);

    std::fs::write(moved.join("train-00000.rows"), "short").unwrap();
    let message = DataFolder::open(&moved).unwrap().identity().unwrap_err().to_string();
    assert!(message.contains("train-00000.rows") && message.contains("no header"), "{message}");
}

#[test]
fn a_folder_of_an_earlier_version_has_the_identity_of_the_same_data_today() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text.txt");
    std::fs::write(&path, "some words ".repeat(100)).unwrap();
    let out = folder.path().join("out");
    let options = Prepare {
        inputs: &inputs(&path),
        validation: &Validation::Fraction(0.5),
        tokenizer: &TextTokenizer::bytes(),
        length: 16,
        mode: Mode::Pack,
        row_eos: false,
        out: &out,
    };
    let data = run(&options).unwrap();
    let names = data.manifest().special_names.clone().unwrap();
    assert_eq!((names.bos.as_deref(), names.mask.as_deref()), (Some("<|endoftext|>"), Some("<|mask|>")));
    let identity = data.identity().unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("data.json")).unwrap()).unwrap();
    assert!(json.as_object_mut().unwrap().remove("special_names").is_some());
    std::fs::write(out.join("data.json"), serde_json::to_vec(&json).unwrap()).unwrap();
    let data = DataFolder::open(&out).unwrap();
    assert_eq!(data.manifest().special_names, None);
    assert_eq!(data.identity().unwrap(), identity);
    // The tokenizer knows the names also where the manifest has none.
    assert_eq!(data.tokenizer().unwrap().special_names(), names);
}
