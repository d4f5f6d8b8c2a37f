//! From a picture to the input of the Inception network, in the four ways of the field.
//!
//! The ways differ by several points of FID, so a score names its own.
// H, W height and width of the picture

use serde::{Deserialize, Serialize};

use super::picture::Picture;

/// Height and width of the network's input.
pub const INPUT_SIZE: usize = 299;

/// How a picture becomes the input of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preprocessing {
    /// torch-fidelity's: TensorFlow 1's bilinear resize (source `i * in / out`), then `(x - 128) / 128`.
    TorchFidelity,
    /// pytorch-fid's: bilinear with pixel centres at half positions, without antialiasing, of `x / 255`, then `2 x - 1`.
    PytorchFid,
    /// clean-fid's: bicubic and antialiased like Pillow's, clipped to 0 to 255, then `(x - 128) / 128`.
    CleanFid,
    /// That of PGM's and Halton-MaskGIT's public code: as clean-fid, truncated to whole numbers after the resize.
    #[default]
    Pgm,
}

impl Preprocessing {
    /// The name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::TorchFidelity => "torch-fidelity",
            Self::PytorchFid => "pytorch-fid",
            Self::CleanFid => "clean-fid",
            Self::Pgm => "pgm",
        }
    }

    /// The resized picture, before it is scaled: 0 to 255, for pytorch-fid 0 to 1.
    ///
    /// # Shapes
    /// `[3, 299, 299]`, channels first
    pub fn resized(self, picture: &Picture) -> Vec<f32> {
        let channel = |index: usize| -> Vec<f32> {
            picture.values().iter().skip(index).step_by(3).map(|&value| f32::from(value)).collect()
        };
        let resize = |values: Vec<f32>| -> Vec<f32> {
            let (height, width) = (picture.height(), picture.width());
            match self {
                Self::TorchFidelity => resample(&values, height, width, &|n| corner_taps(n)),
                Self::PytorchFid => {
                    let values: Vec<f32> = values.iter().map(|value| value / 255.0).collect();
                    resample(&values, height, width, &|n| centre_taps(n))
                }
                Self::CleanFid | Self::Pgm => {
                    let mut resized = resample(&values, height, width, &|n| cubic_taps(n));
                    for value in &mut resized {
                        *value = value.clamp(0.0, 255.0);
                        if self == Self::Pgm {
                            *value = value.trunc();
                        }
                    }
                    resized
                }
            }
        };
        (0..3).flat_map(|index| resize(channel(index))).collect()
    }

    /// The network's input.
    ///
    /// # Shapes
    /// `[3, 299, 299]`, channels first
    pub fn input(self, picture: &Picture) -> Vec<f32> {
        let mut values = self.resized(picture);
        for value in &mut values {
            *value = match self {
                Self::PytorchFid => 2.0 * *value - 1.0,
                Self::TorchFidelity | Self::CleanFid | Self::Pgm => (*value - 128.0) / 128.0,
            };
        }
        values
    }
}

impl std::str::FromStr for Preprocessing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::TorchFidelity, Self::PytorchFid, Self::CleanFid, Self::Pgm];
        all.into_iter()
            .find(|way| way.name() == text)
            .ok_or_else(|| format!("{text:?} is none of torch-fidelity, pytorch-fid, clean-fid, pgm"))
    }
}

/// The source pixels of one target pixel: the first one, and a weight for each from there on.
struct Taps {
    first: usize,
    weights: Vec<f64>,
}

// Resizes the columns of each row, then the rows. `taps` gives those of all target pixels for a number of source pixels.
fn resample(values: &[f32], height: usize, width: usize, taps: &dyn Fn(usize) -> Vec<Taps>) -> Vec<f32> {
    let (across, down) = (taps(width), taps(height));
    let mut rows = Vec::with_capacity(height * INPUT_SIZE);
    for row in values.chunks_exact(width) {
        rows.extend(across.iter().map(|tap| {
            let source = &row[tap.first..];
            tap.weights.iter().zip(source).map(|(weight, &value)| weight * f64::from(value)).sum::<f64>() as f32
        }));
    }
    let mut resized = Vec::with_capacity(INPUT_SIZE * INPUT_SIZE);
    for tap in &down {
        resized.extend((0..INPUT_SIZE).map(|column| {
            let at = |row: usize| f64::from(rows[(tap.first + row) * INPUT_SIZE + column]);
            tap.weights.iter().enumerate().map(|(row, weight)| weight * at(row)).sum::<f64>() as f32
        }));
    }
    resized
}

fn linear_taps(n: usize, source: impl Fn(usize) -> f32) -> Vec<Taps> {
    let tap = |target: usize| {
        let place = source(target).clamp(0.0, (n - 1) as f32);
        let first = (place.floor() as usize).min(n - 1);
        let share = f64::from(place - first as f32);
        // The last pixel has no neighbour.
        let weights = if first + 1 < n { vec![1.0 - share, share] } else { vec![1.0] };
        Taps { first, weights }
    };
    (0..INPUT_SIZE).map(tap).collect()
}

// Target i lies at i n / 299.
fn corner_taps(n: usize) -> Vec<Taps> {
    let scale = n as f32 / INPUT_SIZE as f32;
    linear_taps(n, |target| target as f32 * scale)
}

// The centre of target i lies at the same share of the picture as the centre of the source pixel.
fn centre_taps(n: usize) -> Vec<Taps> {
    let scale = n as f32 / INPUT_SIZE as f32;
    linear_taps(n, |target| (target as f32 + 0.5) * scale - 0.5)
}

// Pillow's bicubic filter (a = -0.5), which is widened where the picture shrinks.
fn cubic_taps(n: usize) -> Vec<Taps> {
    let scale = n as f64 / INPUT_SIZE as f64;
    let widening = scale.max(1.0);
    let support = 2.0 * widening;
    let tap = |target: usize| {
        let centre = (target as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(n);
        let raw: Vec<f64> = (first..end).map(|source| cubic((source as f64 - centre + 0.5) / widening)).collect();
        let sum: f64 = raw.iter().sum();
        Taps { first, weights: raw.into_iter().map(|weight| weight / sum).collect() }
    };
    (0..INPUT_SIZE).map(tap).collect()
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_picture_stays_plain_in_every_way() {
        for (height, width) in [(1, 1), (7, 3), (400, 301)] {
            let picture = Picture::new(height, width, vec![77; 3 * height * width]).unwrap();
            for way in ["torch-fidelity", "pytorch-fid", "clean-fid", "pgm"] {
                let way: Preprocessing = way.parse().unwrap();
                let input = way.input(&picture);
                assert_eq!(input.len(), 3 * INPUT_SIZE * INPUT_SIZE);
                let expected = if way == Preprocessing::PytorchFid { 2.0 * 77.0 / 255.0 - 1.0 } else { -51.0 / 128.0 };
                let worst = input.iter().map(|value| (value - expected).abs()).fold(0.0, f32::max);
                // Truncation may fall below a value that rounding left just below 77.
                let allowed = if way == Preprocessing::Pgm { 1.001 / 128.0 } else { 1e-5 };
                assert!(worst <= allowed, "{} {height}x{width}: {worst}", way.name());
            }
        }
        assert!("bilinear".parse::<Preprocessing>().unwrap_err().contains("clean-fid"));
    }
}
