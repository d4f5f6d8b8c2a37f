//! Data folders of pictures: what is written comes back, and what does not fit is named.

use std::path::Path;

use pgm_data::{CodecIdentity, DataError, DataFolder, ImageFolderWriter, ImageInfo, PixelShape, Split};

const SHAPE: PixelShape = PixelShape { height: 2, width: 3, channels: 1 };
const PICTURES: [[u8; 6]; 3] = [[0, 1, 2, 253, 254, 255], [9, 9, 9, 128, 127, 0], [255; 6]];

fn names() -> Vec<String> {
    ["cat", "dog"].map(String::from).to_vec()
}

/// Two training rows and one validation row.
fn write(out: &Path, info: ImageInfo, push: impl Fn(&mut ImageFolderWriter, Split, usize)) -> DataFolder {
    let mut writer = ImageFolderWriter::create(out, info).unwrap();
    for (split, row) in [(Split::Train, 0), (Split::Validation, 1), (Split::Train, 2)] {
        push(&mut writer, split, row);
    }
    writer.finish().unwrap();
    DataFolder::open(out).unwrap()
}

fn push_pixels(writer: &mut ImageFolderWriter, split: Split, row: usize) {
    let label = writer.info().is_labelled().then_some(row as u32 % 2);
    writer.push_pixels(split, &PICTURES[row], label).unwrap();
}

#[test]
fn pixels_come_back_with_their_labels_and_class_names() {
    let folder = tempfile::tempdir().unwrap();
    let data = write(&folder.path().join("out"), ImageInfo::of_pixels(SHAPE, names()), push_pixels);
    assert_eq!(data.class_names(), names());
    let (train, validation) = (data.pixels(Split::Train).unwrap(), data.pixels(Split::Validation).unwrap());
    assert_eq!((train.len(), validation.len()), (2, 1));
    assert_eq!((train.pixels(0).unwrap(), train.label(0).unwrap()), (PICTURES[0].to_vec(), Some(0)));
    assert_eq!((train.pixels(1).unwrap(), train.label(1).unwrap()), (PICTURES[2].to_vec(), Some(0)));
    assert_eq!((validation.pixels(0).unwrap(), validation.label(0).unwrap()), (PICTURES[1].to_vec(), Some(1)));
    // A token model is told what to do; a reader of text too.
    assert!(matches!(data.rows(Split::Train), Err(DataError::PixelsOnly { .. })));
    let message = data.tokenizer().unwrap_err().to_string();
    assert!(message.contains("pictures, not text"), "{message}");
}

#[test]
fn pixels_as_tokens_are_rows_for_a_model_and_pictures_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = write(&folder.path().join("out"), ImageInfo::of_levels(SHAPE, 4, Vec::new()), push_pixels);
    let manifest = data.manifest();
    assert_eq!((manifest.length, manifest.vocab_size), (7, 6));
    assert_eq!((manifest.special.mask, manifest.special.bos), (4, 5));
    let row = data.rows(Split::Train).unwrap().row(0).unwrap();
    assert_eq!((row.tokens, row.valid, row.label), (vec![5, 0, 0, 0, 3, 3, 3], 7, None));
    let pixels = data.pixels(Split::Validation).unwrap().pixels(0).unwrap();
    assert_eq!(pixels, [0, 0, 0, 170, 85, 0]);
}

#[test]
fn codes_are_rows_with_bos_and_know_their_codec() {
    let folder = tempfile::tempdir().unwrap();
    let codec = CodecIdentity { codebook: 16_384, hash: Some("ab".repeat(32)) };
    let info = ImageInfo::of_codes([1, 2], codec.clone(), Some(SHAPE), names());
    let push = |writer: &mut ImageFolderWriter, split, row: usize| {
        writer.push_tokens(split, &[16_383, row as u32], Some(1)).unwrap();
    };
    let data = write(&folder.path().join("out"), info, push);
    let row = data.rows(Split::Train).unwrap().row(1).unwrap();
    assert_eq!((row.tokens, row.label), (vec![16_385, 16_383, 2], Some(1)));
    assert_eq!(data.image().unwrap().codec, Some(codec));
    assert!(matches!(data.pixels(Split::Train), Err(DataError::NoPixels { found: "codes", .. })));
}

#[test]
fn the_identity_covers_labels_names_and_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let identity = |name: &str, names: Vec<String>, label: u32, pixel: u8| {
        let push = |writer: &mut ImageFolderWriter, split, row: usize| {
            let mut picture = PICTURES[row];
            picture[0] = pixel;
            writer.push_pixels(split, &picture, Some(label)).unwrap();
        };
        write(&folder.path().join(name), ImageInfo::of_pixels(SHAPE, names), push).identity().unwrap()
    };
    let first = identity("first", names(), 0, 7);
    assert_eq!(identity("again", names(), 0, 7), first);
    assert_ne!(identity("label", names(), 1, 7), first);
    assert_ne!(identity("pixel", names(), 0, 8), first);
    assert_ne!(identity("names", ["cat", "cow"].map(String::from).to_vec(), 0, 7), first);
}

#[test]
fn rows_that_do_not_fit_are_refused_and_leave_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let create = |info| ImageFolderWriter::create(&out, info).unwrap();
    let codes = || {
        let codec = CodecIdentity { codebook: 16, hash: None };
        create(ImageInfo::of_codes([1, 2], codec, None, names()))
    };
    let pixels = || create(ImageInfo::of_pixels(SHAPE, names()));
    for (result, says) in [
        (codes().push_tokens(Split::Train, &[1, 16], Some(0)), "outside the codebook of 16"),
        (codes().push_tokens(Split::Train, &[1], Some(0)), "does not fit a grid of 2"),
        (codes().push_tokens(Split::Train, &[1, 2], Some(2)), "no name among the 2 classes"),
        (codes().push_tokens(Split::Train, &[1, 2], None), "without a label"),
        (pixels().push_pixels(Split::Train, &[0; 5], Some(0)), "picture of 5 values"),
        (pixels().push_tokens(Split::Train, &[], Some(0)), "does not fit"),
        (pixels().finish().map(|_| ()), "no picture is left for training"),
    ] {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn damage_to_a_folder_of_pictures_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    write(&out, ImageInfo::of_pixels(SHAPE, names()), push_pixels);
    let (shard, manifest) = (out.join("train-00000.rows"), out.join("data.json"));
    let (good, json) = (std::fs::read(&shard).unwrap(), std::fs::read_to_string(&manifest).unwrap());
    let open = || DataFolder::open(&out).and_then(|data| data.pixels(Split::Train)).unwrap_err().to_string();
    // The last four bytes are a label.
    let mut label = good.clone();
    *label.last_mut().unwrap() ^= 1;
    std::fs::write(&shard, label).unwrap();
    assert!(open().contains("checksum"), "{}", open());
    std::fs::write(&shard, &good[..good.len() - 4]).unwrap();
    assert!(open().contains("size"), "{}", open());
    std::fs::write(&shard, &good).unwrap();
    for (before, after, says) in [
        ("\"dog\"", "\"cow\"", "another \"image\""),
        ("\"length\": 6", "\"length\": 7", "does not fit its image"),
        ("\"channels\": 1", "\"channels\": 0", "1 or 3 channels"),
        ("\"version\": 2", "\"version\": 3", "has version 3, not 2"),
    ] {
        assert!(json.contains(before), "{json}");
        std::fs::write(&manifest, json.replace(before, after)).unwrap();
        assert!(open().contains(says), "{}", open());
    }
}
