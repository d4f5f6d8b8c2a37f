//! Pictures of another size than the model's.

use pgm_infer::Picture;

/// The middle of a picture, scaled to a size: each new pixel is the mean of the area that it covers.
pub fn fit(picture: &Picture, width: usize, height: usize) -> Picture {
    if (picture.width(), picture.height()) == (width, height) {
        return picture.clone();
    }
    // Pixels of the picture for one new pixel.
    let scale = (picture.width() as f64 / width as f64).min(picture.height() as f64 / height as f64);
    let start = |all: usize, size: usize| (all as f64 - size as f64 * scale) / 2.0;
    let (left, top) = (start(picture.width(), width), start(picture.height(), height));
    let columns: Vec<_> = (0..width).map(|x| shares(left + x as f64 * scale, scale, picture.width())).collect();
    let mut pixels = Vec::with_capacity(width * height * picture.channels());
    for y in 0..height {
        let rows = shares(top + y as f64 * scale, scale, picture.height());
        for columns in &columns {
            for channel in 0..picture.channels() {
                let value = |x: usize, y: usize| f64::from(picture.pixel(x, y)[channel]);
                let row = |y: usize| columns.iter().map(|&(x, share)| share * value(x, y)).sum::<f64>();
                let mean: f64 = rows.iter().map(|&(y, share)| share * row(y)).sum();
                pixels.push(mean.round().clamp(0.0, 255.0) as u8);
            }
        }
    }
    Picture::new(width, height, picture.channels(), pixels)
}

// The pixels that an interval covers and the share of each; the shares add up to 1.
fn shares(start: f64, length: f64, end: usize) -> Vec<(usize, f64)> {
    let first = (start.max(0.0) as usize).min(end - 1);
    let last = ((start + length).ceil().max(1.0) as usize).clamp(first + 1, end);
    let covered = |index: usize| (start + length).min(index as f64 + 1.0) - start.max(index as f64);
    let shares: Vec<(usize, f64)> = (first..last).map(|index| (index, covered(index).max(0.0))).collect();
    let total: f64 = shares.iter().map(|(_, share)| share).sum();
    if total <= 0.0 {
        return vec![(first, 1.0)];
    }
    shares.into_iter().map(|(index, share)| (index, share / total)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_scaled_to_the_mean_of_its_pixels() {
        let picture = Picture::new(6, 2, 1, vec![9, 10, 20, 50, 60, 9, 9, 30, 40, 70, 80, 9]);
        assert_eq!(fit(&picture, 1, 1).pixels(), [45], "the two columns in the middle");
        let wide = Picture::new(4, 2, 1, vec![10, 20, 50, 60, 30, 40, 70, 80]);
        assert_eq!(fit(&wide, 2, 1).pixels(), [25, 65]);
        assert_eq!(fit(&wide, 4, 2), wide);
    }

    #[test]
    fn a_small_picture_is_enlarged_and_odd_sizes_are_taken() {
        let small = Picture::new(2, 1, 3, vec![1, 2, 3, 200, 100, 50]);
        let large = fit(&small, 4, 2);
        assert_eq!((large.pixel(0, 0), large.pixel(3, 1)), (&[1, 2, 3][..], &[200, 100, 50][..]));
        for (width, height) in [(1, 1), (3, 7), (7, 3), (28, 28), (1, 300)] {
            let flat = Picture::filled(width, height, &[77]);
            assert_eq!(fit(&flat, 28, 28), Picture::filled(28, 28, &[77]));
        }
    }
}
