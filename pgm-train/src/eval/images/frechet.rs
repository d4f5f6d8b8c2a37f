//! The Frechet distance of two sets of features, each as a Gaussian, in float64.
//!
//! `|mu1 - mu2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))` with covariances of n - 1. The last trace is the sum of the
//! square roots of the eigenvalues of `S1^(1/2) S2 S1^(1/2)`, which is symmetric and has the eigenvalues of `S1 S2`.

use faer::{Mat, Side};

use crate::TrainError;

/// Rows that are multiplied at a time.
const BLOCK: usize = 512;

/// Mean and covariance of features, collected row by row.
#[derive(Clone, Debug)]
pub struct FeatureMoments {
    n: usize,
    // Subtracted from every row, so that large means cost no digits: the first row.
    origin: Vec<f64>,
    sums: Vec<f64>,
    // Sums of products, d x d.
    products: Mat<f64>,
}

impl FeatureMoments {
    /// No rows yet, of `width` features each.
    pub fn new(width: usize) -> Self {
        Self { n: 0, origin: vec![0.0; width], sums: vec![0.0; width], products: Mat::zeros(width, width) }
    }

    /// The moments of rows of `width` features, one after the other.
    ///
    /// # Panics
    /// When the features are no whole number of rows.
    pub fn of(features: &[f32], width: usize) -> Self {
        let mut moments = Self::new(width);
        moments.add(features);
        moments
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.n
    }

    /// Features of a row.
    pub fn width(&self) -> usize {
        self.sums.len()
    }

    /// Adds rows, one after the other.
    ///
    /// # Panics
    /// When they are no whole number of rows.
    pub fn add(&mut self, features: &[f32]) {
        let width = self.width();
        assert!(features.len().is_multiple_of(width), "{} features are no rows of {width}", features.len());
        if self.n == 0
            && let Some(first) = features.get(..width)
        {
            self.origin = first.iter().map(|&value| f64::from(value)).collect();
        }
        for block in features.chunks(BLOCK * width) {
            let n = block.len() / width;
            let rows =
                Mat::from_fn(n, width, |row, column| f64::from(block[row * width + column]) - self.origin[column]);
            for column in 0..width {
                self.sums[column] += (0..n).map(|row| rows[(row, column)]).sum::<f64>();
            }
            self.products += rows.transpose() * &rows;
            self.n += n;
        }
    }

    /// The mean of each feature.
    pub fn mean(&self) -> Vec<f64> {
        let n = self.n as f64;
        self.sums.iter().zip(&self.origin).map(|(sum, origin)| origin + sum / n).collect()
    }

    /// The covariance with n - 1, `[width, width]`; row by row.
    pub fn covariance(&self) -> Vec<f64> {
        let matrix = self.covariance_matrix();
        let width = self.width();
        (0..width * width).map(|place| matrix[(place / width, place % width)]).collect()
    }

    fn covariance_matrix(&self) -> Mat<f64> {
        let n = self.n as f64;
        let width = self.width();
        Mat::from_fn(width, width, |i, j| (self.products[(i, j)] - self.sums[i] * self.sums[j] / n) / (n - 1.0))
    }
}

/// The Frechet distance of two sets of features.
///
/// # Errors
/// [`TrainError::Judge`] for fewer than two rows, for rows of different width, and for features that are not finite.
pub fn frechet_distance(a: &FeatureMoments, b: &FeatureMoments) -> Result<f64, TrainError> {
    let refused = |problem: String| Err(TrainError::judge("the Frechet distance", problem));
    if a.n < 2 || b.n < 2 {
        return refused(format!("a set of {} pictures has no covariance; give at least 2", a.n.min(b.n)));
    }
    if a.width() != b.width() {
        return refused(format!("{} features are compared with {}; both must be of one network", a.width(), b.width()));
    }
    let means: f64 = a.mean().iter().zip(b.mean()).map(|(a, b)| (a - b).powi(2)).sum();
    let (first, second) = (a.covariance_matrix(), b.covariance_matrix());
    let traces = |matrix: &Mat<f64>| (0..matrix.nrows()).map(|i| matrix[(i, i)]).sum::<f64>();
    let both = traces(&first) + traces(&second);
    if !(means + both).is_finite() {
        return refused("a feature is not finite".to_string());
    }
    let unsolved = |error| TrainError::judge("the Frechet distance", format!("no eigenvalues were found: {error:?}"));
    let eigen = first.self_adjoint_eigen(Side::Lower).map_err(unsolved)?;
    let (vectors, values) = (eigen.U(), eigen.S());
    // A covariance of few pictures has eigenvalues of 0, which rounding makes a little negative.
    let root = |value: f64| value.max(0.0).sqrt();
    let width = first.nrows();
    let scaled = Mat::from_fn(width, width, |i, j| vectors[(i, j)] * root(values[j]));
    let square_root = &scaled * vectors.transpose();
    let product = &square_root * second * &square_root;
    // Exactly symmetric, as it is but for rounding.
    let symmetric = Mat::from_fn(width, width, |i, j| 0.5 * (product[(i, j)] + product[(j, i)]));
    let cross: f64 = symmetric.self_adjoint_eigenvalues(Side::Lower).map_err(unsolved)?.into_iter().map(root).sum();
    Ok(means + both - 2.0 * cross)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Four points whose mean is (x, y) and whose covariance (n - 1) is diag(4/3 a^2, 4/3 b^2) / 2.
    fn cross(x: f32, y: f32, a: f32, b: f32) -> FeatureMoments {
        FeatureMoments::of(&[x + a, y, x - a, y, x, y + b, x, y - b], 2)
    }

    #[test]
    fn moments_by_hand() {
        let moments = cross(100.0, -3.0, 3.0, 6.0);
        assert_eq!((moments.n_rows(), moments.mean()), (4, vec![100.0, -3.0]));
        // 2 * 9 / 3 and 2 * 36 / 3.
        let expected = [6.0, 0.0, 0.0, 24.0];
        assert!(moments.covariance().iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-9));
        let mut parts = FeatureMoments::new(2);
        parts.add(&[]);
        parts.add(&[103.0, -3.0]);
        parts.add(&[97.0, -3.0, 100.0, 3.0, 100.0, -9.0]);
        assert_eq!((parts.mean(), parts.n_rows()), (moments.mean(), 4));
        assert!(parts.covariance().iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-9));
    }

    #[test]
    fn axes_add_the_squared_differences_of_mean_and_deviation() {
        // (1 - 3)^2 + (0 - 1)^2 + (sqrt 6 - sqrt 24)^2 + (sqrt 24 - sqrt 6)^2
        let found = frechet_distance(&cross(1.0, 0.0, 3.0, 6.0), &cross(3.0, 1.0, 6.0, 3.0)).unwrap();
        let expected = 5.0 + 2.0 * (24.0_f64.sqrt() - 6.0_f64.sqrt()).powi(2);
        assert!((found - expected).abs() < 1e-9, "{found} for {expected}");
        let same = cross(7.0, 2.0, 1.0, 2.0);
        assert!(frechet_distance(&same, &same).unwrap().abs() < 1e-9);
    }

    #[test]
    fn covariances_that_do_not_commute_by_the_closed_form_of_two_dimensions() {
        // tr (S1 S2)^(1/2) of 2 x 2 matrices is sqrt(tr(S1 S2) + 2 sqrt(det S1 det S2)).
        let first = FeatureMoments::of(&[1.0, 2.0, 3.0, 1.0, -2.0, 0.5, 0.0, 4.0, 2.0, -1.0], 2);
        let second = FeatureMoments::of(&[0.0, 1.0, 5.0, 3.0, 2.5, 2.0, -1.0, 0.0], 2);
        let (a, b) = (first.covariance(), second.covariance());
        let det = |m: &[f64]| m[0] * m[3] - m[1] * m[2];
        let trace_of_product = a[0] * b[0] + a[1] * b[2] + a[2] * b[1] + a[3] * b[3];
        let cross = (trace_of_product + 2.0 * (det(&a) * det(&b)).sqrt()).sqrt();
        let means: f64 = first.mean().iter().zip(second.mean()).map(|(a, b)| (a - b).powi(2)).sum();
        let expected = means + a[0] + a[3] + b[0] + b[3] - 2.0 * cross;
        let found = [frechet_distance(&first, &second), frechet_distance(&second, &first)].map(Result::unwrap);
        assert!(found.iter().all(|found| (found - expected).abs() < 1e-9), "{found:?} for {expected}");
    }

    #[test]
    fn a_singular_covariance_is_no_problem_and_what_has_none_is_refused() {
        // All points on a line.
        let line = FeatureMoments::of(&[0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0], 3);
        assert!(frechet_distance(&line, &line).unwrap().abs() < 1e-7);
        let refused = |a: &FeatureMoments, b: &FeatureMoments| frechet_distance(a, b).unwrap_err().to_string();
        assert!(refused(&line, &FeatureMoments::of(&[1.0, 2.0, 3.0], 3)).contains("a set of 1 pictures"));
        assert!(refused(&line, &cross(0.0, 0.0, 1.0, 1.0)).contains("3 features are compared with 2"));
        assert!(refused(&line, &FeatureMoments::of(&[f32::NAN; 6], 3)).contains("not finite"));
    }
}
