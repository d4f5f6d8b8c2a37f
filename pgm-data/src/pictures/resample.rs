//! Resizing with an antialiased filter, to the bit as PIL does it: two passes of fixed-point weights over bytes, the
//! horizontal one first. The public codecs and statistics were made from pictures of this filter.

use crate::image_info::PixelShape;

/// Bits after the point of a weight.
const PRECISION: u32 = 22;

/// Weights by the distance from the middle, in source pixels where a picture grows, in target pixels where it shrinks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Filter {
    /// The mean of the pixels below a target pixel.
    Box,
    /// A triangle over two pixels: torchvision's and PIL's `BILINEAR`.
    Bilinear,
    /// Keys' cubic with a = -0.5: PIL's `BICUBIC`.
    Bicubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Box => 0.5,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let distance = x.abs();
        match self {
            Self::Box => f64::from(x > -0.5 && x <= 0.5),
            Self::Bilinear => (1.0 - distance).max(0.0),
            Self::Bicubic if distance < 1.0 => (1.5 * distance - 2.5) * distance * distance + 1.0,
            Self::Bicubic if distance < 2.0 => ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0,
            Self::Bicubic => 0.0,
        }
    }
}

/// The source pixels of a target pixel.
struct Window {
    start: usize,
    weights: Vec<i32>,
}

fn windows(from: usize, to: usize, filter: Filter) -> Vec<Window> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let window = |target: usize| {
        let middle = (target as f64 + 0.5) * scale;
        // A cast cuts the fraction off, and what is below 0 becomes 0.
        let start = (middle - support + 0.5) as usize;
        let end = ((middle + support + 0.5) as usize).min(from);
        let weight = |at: usize| filter.weight((at as f64 - middle + 0.5) / stretch);
        let sum: f64 = (start..end).map(weight).sum();
        let fixed = |at: usize| (weight(at) / sum * f64::from(1 << PRECISION)).round() as i32;
        Window { start, weights: (start..end).map(fixed).collect() }
    };
    (0..to).map(window).collect()
}

fn to_byte(sum: i32) -> u8 {
    ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
}

/// Resizes a picture. `pixels` has the shape's values.
pub(super) fn resize(pixels: &[u8], shape: PixelShape, height: usize, width: usize, filter: Filter) -> Vec<u8> {
    let channels = shape.channels;
    let across = if width == shape.width {
        pixels.to_vec()
    } else {
        let windows = windows(shape.width, width, filter);
        let mut out = Vec::with_capacity(shape.height * width * channels);
        for row in pixels.chunks_exact(shape.width * channels) {
            for window in &windows {
                let source = &row[window.start * channels..];
                for channel in 0..channels {
                    let values = source[channel..].iter().step_by(channels);
                    out.push(to_byte(
                        values.zip(&window.weights).map(|(&value, weight)| i32::from(value) * weight).sum(),
                    ));
                }
            }
        }
        out
    };
    if height == shape.height {
        return across;
    }
    let row_len = width * channels;
    let mut out = Vec::with_capacity(height * row_len);
    let mut sums = vec![0; row_len];
    for window in windows(shape.height, height, filter) {
        sums.fill(0);
        let rows = across[window.start * row_len..].chunks_exact(row_len);
        for (row, &weight) in rows.zip(&window.weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        out.extend(sums.iter().map(|&sum| to_byte(sum)));
    }
    out
}
