//! `pgm-train encode` and `decode`: data folders of pixels to codes, and back.
#![cfg(all(feature = "flex", feature = "cli"))]

use std::path::PathBuf;
use std::process::Command;

use burn::tensor::Device;
use pgm_data::{DataFolder, ImageFolderWriter, ImageInfo, ImageKind, PixelShape, Split};
use pgm_infer::Picture;
use pgm_infer::picture::{CodecFolder, PictureCodec};
use pgm_model::codec::{Autoencoder, AutoencoderConfig, Codec, CodecConfig, CodecNetwork, QuantizerConfig};

const SHAPE: PixelShape = PixelShape { height: 4, width: 6, channels: 1 };
const N_TRAIN: usize = 5;

fn codec() -> Codec {
    let quantizer = QuantizerConfig::Fsq { levels: vec![4, 3] };
    let PixelShape { height, width, channels } = SHAPE;
    let config = AutoencoderConfig { height, width, channels, widths: vec![3], blocks: 1, quantizer };
    let network = CodecNetwork::Autoencoder(Autoencoder::new(&config, &Device::flex()));
    Codec::new(CodecConfig::Autoencoder(config), network).unwrap()
}

fn picture(index: usize) -> Picture {
    let pixels = (0..SHAPE.len()).map(|place| (place * 37 + index * 91) as u8).collect();
    Picture::new(SHAPE.width, SHAPE.height, SHAPE.channels, pixels)
}

struct Folder(tempfile::TempDir);

impl Folder {
    // Two codecs and a folder of pixels.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        codec().save(&path("codec")).unwrap();
        codec().save(&path("other")).unwrap();
        let names: Vec<String> = ["cat", "dog"].map(String::from).to_vec();
        let mut writer = ImageFolderWriter::create(&path("pixels"), ImageInfo::of_pixels(SHAPE, names)).unwrap();
        for index in 0..N_TRAIN + 2 {
            let split = if index < N_TRAIN { Split::Train } else { Split::Validation };
            writer.push_pixels(split, picture(index).pixels(), Some(index as u32 % 2)).unwrap();
        }
        writer.finish().unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    // Whether a command succeeds, and all that it says.
    fn run(&self, args: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgm-train"));
        let output = command.current_dir(self.0.path()).args(args).args(["--device", "flex"]).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout) + &text(output.stderr))
    }

    fn succeeds(&self, args: &[&str]) -> String {
        let (succeeds, says) = self.run(args);
        assert!(succeeds, "{args:?}: {says}");
        says
    }

    fn fails(&self, args: &[&str]) -> String {
        let (succeeds, says) = self.run(args);
        assert!(!succeeds && says.lines().count() == 1, "{args:?}: {says}");
        says
    }
}

#[test]
fn pixels_become_codes_with_their_labels_and_pixels_again() {
    let folder = Folder::new();
    let says = folder.succeeds(&["encode", "--codec", "codec", "--data", "pixels", "--out", "codes"]);
    assert!(says.contains("7 pictures of 6 x 4 pixels became 2 x 3 codes"), "{says}");
    let codec = CodecFolder::open(&folder.path("codec"), &Device::flex()).unwrap();
    let hash = codec.hash().to_string();
    let grid = codec.for_grid([2, 3]).unwrap();
    let codes = DataFolder::open(&folder.path("codes")).unwrap();
    let info = codes.image().unwrap();
    assert_eq!((info.kind, info.grid, info.n_values()), (ImageKind::Codes, Some([2, 3]), 12));
    assert_eq!(info.codec.as_ref().unwrap().hash.as_deref(), Some(hash.as_str()));
    assert_eq!(codes.class_names(), ["cat", "dog"]);
    let rows = codes.rows(Split::Train).unwrap();
    let expected = grid.encode(&(0..N_TRAIN).map(picture).collect::<Vec<_>>()).unwrap();
    for (index, expected) in expected.iter().enumerate() {
        let row = rows.row(index).unwrap();
        assert_eq!((&row.tokens[1..], row.label), (&expected[..], Some(index as u32 % 2)));
    }
    assert_eq!(codes.rows(Split::Validation).unwrap().len(), 2);

    folder.succeeds(&["decode", "--codec", "codec", "--data", "codes", "--out", "again"]);
    let again = DataFolder::open(&folder.path("again")).unwrap().pixels(Split::Train).unwrap();
    let decoded = grid.decode(&expected.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    for (index, decoded) in decoded.iter().enumerate() {
        assert_eq!(again.pixels(index).unwrap(), decoded.pixels());
        assert_eq!(again.label(index).unwrap(), Some(index as u32 % 2));
    }
    let says = folder.fails(&["decode", "--codec", "other", "--data", "codes", "--out", "wrong"]);
    assert!(says.contains("mean other pictures") && says.contains(&hash), "{says}");
    let says = folder.fails(&["encode", "--codec", "codec", "--data", "codes", "--out", "wrong"]);
    assert!(says.contains("needs pixels"), "{says}");
    let says = folder.fails(&["decode", "--codec", "codec", "--data", "pixels", "--out", "wrong"]);
    assert!(says.contains("no codes"), "{says}");
    assert!(!folder.path("wrong").exists());
}

#[test]
fn pictures_of_another_size_do_not_fit_a_codec() {
    let folder = Folder::new();
    let info = ImageInfo::of_pixels(PixelShape { height: 6, ..SHAPE }, Vec::new());
    let mut writer = ImageFolderWriter::create(&folder.path("tall"), info).unwrap();
    for split in [Split::Train, Split::Validation] {
        writer.push_pixels(split, &[9; 36], None).unwrap();
    }
    writer.finish().unwrap();
    let says = folder.fails(&["encode", "--codec", "codec", "--data", "tall", "--out", "wrong"]);
    assert!(says.contains("6 x 6 pixels do not fit") && says.contains("takes 6 x 4"), "{says}");
}
