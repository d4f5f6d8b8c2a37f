//! How close a reconstruction is to its picture: PSNR and SSIM.

/// The side of SSIM's window, and the standard deviation of its weights.
const WINDOW: usize = 11;
const SIGMA: f64 = 1.5;
/// The PSNR of pictures that are equal, in dB.
const HIGHEST_PSNR: f64 = 100.0;

/// Peak signal-to-noise ratio of pixels in -1 to 1, in dB; 100 at most, which equal pictures have.
pub fn psnr(original: &[f32], reconstruction: &[f32]) -> f64 {
    let squares = original.iter().zip(reconstruction).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    let mse = squares.sum::<f64>() / original.len() as f64;
    // The peak is 2.
    (10.0 * (4.0 / mse).log10()).min(HIGHEST_PSNR)
}

/// Structural similarity (Wang et al. 2004) of pixels in -1 to 1, `[C, H, W]`: Gaussian windows of 11 x 11 with a standard
/// deviation of 1.5, those that lie inside the picture, and the mean over them and over the channels. A picture that is
/// smaller than the window has a smaller one.
///
/// # Panics
/// When the pictures have not `channels * height * width` values.
pub fn ssim(original: &[f32], reconstruction: &[f32], [channels, height, width]: [usize; 3]) -> f64 {
    let area = height * width;
    assert_eq!((original.len(), reconstruction.len()), (channels * area, channels * area));
    let side = |length: usize| WINDOW.min(if length.is_multiple_of(2) { length - 1 } else { length });
    let weights = [gaussian(side(height)), gaussian(side(width))];
    // Pixels in 0 to 1, whose constants are 0.01^2 and 0.03^2.
    let scaled = |values: &[f32]| -> Vec<f64> { values.iter().map(|&value| (f64::from(value) + 1.0) / 2.0).collect() };
    let channel = |(a, b): (&[f32], &[f32])| {
        let (a, b) = (scaled(a), scaled(b));
        let blur = |values: Vec<f64>| blurred(&values, width, &weights);
        let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<f64>>();
        let squares = [product(&a, &a), product(&b, &b), product(&a, &b)].map(blur);
        let means = [a, b].map(blur);
        let n = means[0].len();
        let at = |i: usize| {
            let (mean_a, mean_b) = (means[0][i], means[1][i]);
            let (var_a, var_b) = (squares[0][i] - mean_a * mean_a, squares[1][i] - mean_b * mean_b);
            let covariance = squares[2][i] - mean_a * mean_b;
            let luminance = (2.0 * mean_a * mean_b + 1e-4) / (mean_a * mean_a + mean_b * mean_b + 1e-4);
            luminance * (2.0 * covariance + 9e-4) / (var_a + var_b + 9e-4)
        };
        (0..n).map(at).sum::<f64>() / n as f64
    };
    original.chunks(area).zip(reconstruction.chunks(area)).map(channel).sum::<f64>() / channels as f64
}

// Weights that sum to 1.
fn gaussian(side: usize) -> Vec<f64> {
    let middle = (side / 2) as f64;
    let weights: Vec<f64> = (0..side).map(|i| (-(i as f64 - middle).powi(2) / (2.0 * SIGMA * SIGMA)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

// Weighted means over all windows that lie inside, [H, W] -> [H', W'].
fn blurred(values: &[f64], width: usize, [down, right]: &[Vec<f64>; 2]) -> Vec<f64> {
    let rows: Vec<Vec<f64>> = values
        .chunks(width)
        .map(|row| row.windows(right.len()).map(|window| window.iter().zip(right).map(|(v, w)| v * w).sum()).collect())
        .collect();
    let column = |window: &[Vec<f64>], x: usize| window.iter().zip(down).map(|(row, weight)| row[x] * weight).sum();
    rows.windows(down.len()).flat_map(|window| (0..window[0].len()).map(move |x| column(window, x))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn psnr_by_hand() {
        // A difference of 0.2 everywhere: 4 / 0.04 is 20 dB.
        let (a, b) = ([0.5_f32; 6], [0.3_f32; 6]);
        assert!((psnr(&a, &b) - 20.0).abs() < 1e-5);
        assert_eq!(psnr(&a, &a), 100.0);
        // White for black is 0 dB.
        assert_eq!(psnr(&[1.0; 4], &[-1.0; 4]), 0.0);
    }

    #[test]
    fn ssim_of_plain_pictures_is_their_luminance() {
        let shape = [1, 13, 17];
        let plain = |value: f32| vec![value; 13 * 17];
        assert!((ssim(&plain(0.4), &plain(0.4), shape) - 1.0).abs() < 1e-12);
        // Grey 0.5 and 0.25 of 1.
        let expected = (2.0 * 0.5 * 0.25 + 1e-4) / (0.25 + 0.0625 + 1e-4);
        assert!((ssim(&plain(0.0), &plain(-0.5), shape) - expected).abs() < 1e-9);
    }

    #[test]
    fn ssim_of_one_window_by_its_formula() {
        // A picture of 3 x 3 has one window of that size. Channels are averaged.
        let a: Vec<f32> =
            [0.0, 0.2, -0.4, 0.9, 0.1, 0.3, -0.8, 0.5, 0.6, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0].to_vec();
        let mut b = a.clone();
        (b[0], b[4], b[7]) = (0.3, -0.6, 0.4);
        let edge = (-1.0_f64 / 4.5).exp();
        let line = [edge, 1.0, edge].map(|w| w / (1.0 + 2.0 * edge));
        let weight = |i: usize| line[i / 3] * line[i % 3];
        let grey = |v: f32| (f64::from(v) + 1.0) / 2.0;
        let mean = |f: &dyn Fn(usize) -> f64| (0..9).map(|i| weight(i) * f(i)).sum::<f64>();
        let (x, y) = (|i: usize| grey(a[i]), |i: usize| grey(b[i]));
        let (mx, my) = (mean(&x), mean(&y));
        let vx = mean(&|i| (x(i) - mx).powi(2));
        let vy = mean(&|i| (y(i) - my).powi(2));
        let cov = mean(&|i| (x(i) - mx) * (y(i) - my));
        let first = (2.0 * mx * my + 1e-4) * (2.0 * cov + 9e-4) / ((mx * mx + my * my + 1e-4) * (vx + vy + 9e-4));
        let found = ssim(&a, &b, [2, 3, 3]);
        assert!((found - (first + 1.0) / 2.0).abs() < 1e-9, "{found} for {first}");
        assert!(found < 0.99);
    }
}
