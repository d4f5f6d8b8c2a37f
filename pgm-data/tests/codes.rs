//! `pgm-data codes`: codes of the public codes become rows.

mod common;

use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, ListArray, RecordBatch, types::UInt16Type};
use arrow_ipc::writer::StreamWriter;
use pgm_data::{Split, TokenRows};

use common::{Case, Output};

const GRID: &str = "--grid 2x3 --codebook 16384";
const CODES: [u32; 6] = [0, 1, 2, 300, 16_382, 16_383];

fn codes(case: &Case, args: &str) -> Output {
    let _ = std::fs::remove_dir_all(case.path("out"));
    let args: Vec<&str> = "codes --input in --out out".split(' ').chain(args.split_whitespace()).collect();
    case.run(&args)
}

fn import(case: &Case, args: &str) -> Output {
    let output = codes(case, args);
    assert!(output.ok, "{args}: {}", output.stderr);
    output
}

fn refusal(case: &Case, args: &str) -> String {
    let output = codes(case, args);
    assert!(!output.ok, "{args} was not refused: {}", output.stdout);
    assert!(!case.path("out").exists());
    output.stderr
}

fn rows(case: &Case, split: Split) -> Vec<(Vec<u32>, Option<u32>)> {
    let rows: TokenRows = case.folder().rows(split).unwrap();
    let row = |index| rows.row(index).map(|row| (row.tokens[1..].to_vec(), row.label)).unwrap();
    (0..rows.len()).map(row).collect()
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

#[test]
fn pickles_of_every_protocol_give_codes_and_label() {
    let case = Case::new();
    for (index, name) in ["halton-protocol2.pkl", "halton-protocol4.pkl", "halton-protocol5.pkl"].iter().enumerate() {
        case.write(&format!("in/Train/{index}.pkl"), fixture(name));
    }
    case.write("in/Eval/0.pkl", fixture("halton-numpy-label.pkl"));
    let output = import(&case, GRID);
    assert!(output.stderr.contains("the codes are read as those of halton"), "{}", output.stderr);
    assert!(output.stderr.contains("codec of the codes is not known"), "{}", output.stderr);
    assert_eq!(rows(&case, Split::Train), vec![(CODES.to_vec(), Some(7)); 3]);
    assert_eq!(rows(&case, Split::Validation), [(CODES.to_vec(), Some(3))]);
    assert_eq!(case.folder().class_names().len(), 8);
    let row = case.folder().rows(Split::Train).unwrap().row(0).unwrap();
    assert_eq!((row.tokens[0], row.tokens.len()), (16_385, 7));
    let shown = case.run(&["inspect", "out"]);
    assert!(shown.stdout.contains("training row 0, class 7 (7): 0 1 2 300 16382 16383\n"), "{}", shown.stdout);
}

#[test]
fn a_pickle_is_never_executed_and_a_broken_one_is_named() {
    let case = Case::new();
    let good = fixture("halton-protocol4.pkl");
    let mut nested = vec![0x80, 4];
    nested.extend_from_slice(b")");
    nested.extend(std::iter::repeat_n(0x85, 200_000));
    nested.push(b'.');
    for (bytes, says) in [
        (fixture("evil.pkl"), "system, which is not read"),
        (good[..good.len() - 9].to_vec(), "pickle"),
        (b"\x80\x04N.".to_vec(), "something else than {code, y}"),
        (b"\x80\x04}.".to_vec(), "without the key \"code\""),
        (nested, "something else"),
        (b"\x80\x04h\x07.".to_vec(), "broken pickle"),
        (b"\x80\x04R.".to_vec(), "broken pickle"),
    ] {
        case.write("in/0.pkl", bytes);
        let message = refusal(&case, &format!("{GRID} --format halton"));
        assert!(message.contains("0.pkl") && message.contains(says), "{message}");
    }
    assert!(!Path::new("/tmp/pickle-was-executed").exists());
    // Every cut of a good one is an error and no panic.
    for length in (0..good.len()).step_by(5) {
        case.write("in/0.pkl", &good[..length]);
        let message = refusal(&case, &format!("{GRID} --format halton"));
        assert!(message.starts_with("pgm-data: in/0.pkl") && !message.contains("panicked"), "{length}: {message}");
    }
}

fn npy(descr: &str, shape: &str, bytes: Vec<u8>) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    header += &" ".repeat((64 - (10 + header.len() + 1) % 64) % 64);
    header.push('\n');
    [b"\x93NUMPY\x01\x00".to_vec(), (header.len() as u16).to_le_bytes().to_vec(), header.into_bytes(), bytes].concat()
}

fn little(values: impl IntoIterator<Item = i64>) -> Vec<u8> {
    values.into_iter().flat_map(i64::to_le_bytes).collect()
}

#[test]
fn pairs_of_npy_files_give_a_row_for_each_augmentation() {
    let case = Case::new();
    // Three pictures of two augmentations; 10 comes after 9.
    for (index, name) in [8, 9, 10].into_iter().enumerate() {
        let values = (0..12).map(|code| code + 100 * index as i64);
        case.write(&format!("in/imagenet256_codes/{name}.npy"), npy("<i8", "1, 2, 6", little(values)));
        case.write(&format!("in/imagenet256_labels/{name}.npy"), npy("<i8", "1,", little([index as i64])));
    }
    case.write("names.txt", "a\nb\nc\n");
    let output =
        import(&case, &format!("{GRID} --val-fraction 0.4 --class-names names.txt --size 256 --codec-hash abcd"));
    assert!(
        output.stdout.contains("training: 4 pictures of 256x256x3 as 2x3 tokens of 16384 values, 3 classes"),
        "{}",
        output.stdout
    );
    let row = |start: u32, label| ((start..start + 6).collect::<Vec<u32>>(), Some(label));
    assert_eq!(rows(&case, Split::Train), [row(0, 0), row(6, 0), row(200, 2), row(206, 2)]);
    assert_eq!(rows(&case, Split::Validation), [row(100, 1), row(106, 1)]);
    assert_eq!(case.folder().image().unwrap().codec.as_ref().unwrap().hash.as_deref(), Some("abcd"));

    let bytes = [0_u16, 1, 2, 3, 4, 16_384].iter().flat_map(|code| code.to_le_bytes()).collect();
    case.write("in/imagenet256_codes/8.npy", npy("<u2", "1, 1, 6", bytes));
    let message = refusal(&case, GRID);
    assert!(message.contains("8.npy has the code 16384, and the codebook has 16384"), "{message}");
    case.write("in/imagenet256_codes/8.npy", npy("<f4", "1, 1, 1", vec![0; 4]));
    assert!(refusal(&case, GRID).contains("not of whole numbers"), "{}", refusal(&case, GRID));
    std::fs::remove_file(case.path("in/imagenet256_labels/9.npy")).unwrap();
    assert!(refusal(&case, GRID).contains("9.npy: has no file of labels"));
}

fn arrow(rows: &[(&[u16], i64)]) -> Vec<u8> {
    let ids = rows.iter().map(|(codes, _)| Some(codes.iter().map(|&code| Some(code))));
    let ids: ArrayRef = Arc::new(ListArray::from_iter_primitive::<UInt16Type, _, _>(ids));
    let labels: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, label)| *label)));
    let batch =
        RecordBatch::try_from_iter([("input_ids", ids.clone()), ("attention_mask", ids), ("label", labels)]).unwrap();
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    bytes
}

#[test]
fn a_data_set_on_disk_gives_its_splits_without_its_own_bos() {
    let case = Case::new();
    let with_bos: Vec<u16> = std::iter::once(16_385).chain(CODES.map(|code| code as u16)).collect();
    let without: Vec<u16> = CODES.map(|code| code as u16).to_vec();
    case.write("in/dataset_dict.json", "{\"splits\": [\"train\", \"eval\"]}");
    case.write("in/train/data-00000-of-00002.arrow", arrow(&[(&with_bos, 1), (&without, 0)]));
    case.write("in/train/data-00001-of-00002.arrow", arrow(&[(&with_bos, 0)]));
    case.write("in/eval/data-00000-of-00001.arrow", arrow(&[(&with_bos, 1)]));
    let info = "{\"features\": {\"label\": {\"names\": [\"tench\", \"goldfish\"], \"_type\": \"ClassLabel\"}}}";
    case.write("in/train/dataset_info.json", info).write("in/eval/dataset_info.json", info);
    import(&case, GRID);
    let row = |label| (CODES.to_vec(), Some(label));
    assert_eq!(rows(&case, Split::Train), [row(1), row(0), row(0)]);
    assert_eq!(rows(&case, Split::Validation), [row(1)]);
    assert_eq!(case.folder().class_names(), ["tench", "goldfish"]);
    for (args, says) in [
        ("--grid 3x3 --codebook 16384", "has 7 codes, and a grid of 3x3 has 9; check --grid"),
        ("--grid 2x3 --codebook 300", "has the code 300, and the codebook has 300; check --codebook"),
        ("--grid 2 --codebook 300", "write rows and columns"),
        ("--grid 2x3 --codebook 16384 --format halton", "is no pickle"),
    ] {
        let message = refusal(&case, args);
        assert!(message.contains(says), "{args}: {message}");
    }
}
