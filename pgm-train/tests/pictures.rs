//! A picture to edit is read as the pictures of the training were.

use std::ops::ControlFlow;

use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};
use pgm_data::pictures::{PictureInputs, PictureOptions, PictureValidation, PrepareImages, prepare_images};
use pgm_data::{Crop, DataFolder, Split};
use pgm_infer::Picture;
use pgm_infer::picture::Region;

const SIDE: usize = 8;

fn png(channels: usize, kind: ExtendedColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    let value = |index: usize| (index * 29 % 256) as u8;
    let pixels: Vec<u8> = (0..SIDE * SIDE * channels).map(value).collect();
    PngEncoder::new(&mut bytes).write_image(&pixels, SIDE as u32, SIDE as u32, kind).unwrap();
    bytes
}

// A photograph that was taken with the camera turned: the left of the pixels is the top of the picture.
fn turned_jpeg() -> Vec<u8> {
    let pixel = |index: usize| [index as u8 * 3, 200, (index / SIDE) as u8 * 30];
    turned(&(0..SIDE * SIDE).flat_map(pixel).collect::<Vec<u8>>(), [SIDE, SIDE], ExtendedColorType::Rgb8)
}

fn turned(pixels: &[u8], [width, height]: [usize; 2], kind: ExtendedColorType) -> Vec<u8> {
    let mut jpeg = Vec::new();
    JpegEncoder::new(&mut jpeg).write_image(pixels, width as u32, height as u32, kind).unwrap();
    let tiff = *b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let segment = [&[0xff, 0xe1, 0, tiff.len() as u8 + 2][..], &tiff].concat();
    jpeg.splice(2..2, segment);
    jpeg
}

#[test]
fn a_picture_to_edit_has_the_pixels_that_it_would_have_in_a_training() {
    let temporary = tempfile::tempdir().unwrap();
    let files = [
        ("turned.jpg", turned_jpeg()),
        ("colours.png", png(3, ExtendedColorType::Rgb8)),
        ("transparent.png", png(4, ExtendedColorType::Rgba8)),
        ("grey.png", png(1, ExtendedColorType::L8)),
        ("transparent-grey.png", png(2, ExtendedColorType::La8)),
    ];
    for (name, bytes) in files {
        // Two, since one is held out.
        let folder = temporary.path().join(format!("in-{name}"));
        std::fs::create_dir(&folder).unwrap();
        for copy in ["a", "b"] {
            std::fs::write(folder.join(format!("{copy}-{name}")), &bytes).unwrap();
        }
        for channels in [1, 3] {
            let out = temporary.path().join(format!("{name}-{channels}"));
            let inputs = PictureInputs::find(&[folder.display().to_string()], &PictureOptions::default()).unwrap();
            let options = PrepareImages {
                inputs: &inputs,
                validation: &PictureValidation::Fraction(0.5),
                size: None,
                crop: Crop::Center,
                flip: false,
                channels: Some(channels),
                levels: None,
                class_names: None,
                skip_bad: false,
                out: &out,
            };
            prepare_images(&options, &mut |_| ControlFlow::Continue(())).unwrap();
            let rows = DataFolder::open(&out).unwrap().pixels(Split::Train).unwrap();
            let picture = Picture::from_bytes(&bytes, channels).unwrap();
            assert_eq!(picture.pixels(), rows.pixels(0).unwrap(), "{name} in {channels} channels");
        }
    }
    // The pixels of the turned photograph are not those of the file.
    let turned = Picture::from_bytes(&turned_jpeg(), 3).unwrap();
    assert!(turned.pixel(0, 0)[2] > 150 && turned.pixel(SIDE - 1, 0)[2] < 60, "{turned:?}");
}

#[test]
fn a_mask_is_turned_as_its_picture_is() {
    // 16 x 8 pixels, of which the left half is white: the upper half of a picture of 8 x 16.
    let pixels: Vec<u8> = (0..16 * 8).map(|index| if index % 16 < 8 { 255 } else { 0 }).collect();
    let mask = turned(&pixels, [16, 8], ExtendedColorType::L8);
    let region = Region::of_mask(&Picture::filled(8, 16, &[0]), &mask, "of the test").unwrap();
    assert_eq!(region.size(), (8, 16));
    for y in 0..16 {
        assert!((0..8).all(|x| region.contains(x, y) == (y < 8)), "line {y}");
    }
    let message = Region::of_mask(&Picture::filled(16, 8, &[0]), &mask, "of the test").unwrap_err().to_string();
    assert!(message.contains("8 x 16 pixels and the picture 16 x 8"), "{message}");
}
