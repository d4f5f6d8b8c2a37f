//! Small pictures, and the command on them.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use pgm_data::Split;

use crate::common::{Case, Output};

pub const RED: [u8; 3] = [255, 0, 0];
pub const BLUE: [u8; 3] = [0, 0, 255];
pub const GREEN: [u8; 3] = [0, 128, 0];

pub fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A picture of one colour.
pub fn plain(color: [u8; 3], height: u32, width: u32, format: ImageFormat) -> Vec<u8> {
    encoded(&RgbImage::from_pixel(width, height, Rgb(color)).into(), format)
}

pub fn png(color: [u8; 3]) -> Vec<u8> {
    plain(color, 4, 4, ImageFormat::Png)
}

/// A picture that compresses badly, so that its end is not its header.
pub fn noisy(format: ImageFormat) -> Vec<u8> {
    let picture = RgbImage::from_fn(64, 64, |x, y| Rgb([(x * 97 + y * 31) as u8, (x * x + y) as u8, (y * 57) as u8]));
    encoded(&picture.into(), format)
}

pub fn images(case: &Case, args: &str) -> Output {
    let _ = std::fs::remove_dir_all(case.path("out"));
    let args: Vec<&str> = "images --out out".split(' ').chain(args.split_whitespace()).collect();
    case.run(&args)
}

pub fn prepare(case: &Case, args: &str) -> Output {
    let output = images(case, args);
    assert!(output.ok, "{args}: {}", output.stderr);
    output
}

/// What the command says where it fails: one sentence, and no folder.
pub fn refusal(case: &Case, args: &str) -> String {
    let output = images(case, args);
    assert!(!output.ok, "{args} was not refused: {}", output.stdout);
    assert!(!case.path("out").exists(), "{args}");
    let lines: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with("pgm-data: ")).collect();
    assert_eq!(lines.len(), 1, "{args}: {}", output.stderr);
    lines[0].to_string()
}

/// The pictures of a split with the names of their classes.
pub fn rows(case: &Case, split: Split) -> Vec<(Vec<u8>, Option<String>)> {
    let folder = case.folder();
    let rows = folder.pixels(split).unwrap();
    let class = |index| rows.label(index).unwrap().map(|label| folder.class_names()[label as usize].clone());
    (0..rows.len()).map(|index| (rows.pixels(index).unwrap(), class(index))).collect()
}

/// The first pixel and the class of each row.
pub fn firsts(case: &Case, split: Split) -> Vec<(Vec<u8>, Option<String>)> {
    rows(case, split).into_iter().map(|(pixels, class)| (pixels[..3.min(pixels.len())].to_vec(), class)).collect()
}

pub fn near(found: &[u8], expected: [u8; 3]) -> bool {
    found.iter().zip(expected).all(|(&found, expected)| found.abs_diff(expected) <= 3)
}

pub fn named(name: &str) -> Option<String> {
    Some(name.to_string())
}
