//! Mean and covariance of features, and the Frechet distance of two Gaussians.
// N rows, D width of the features

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par, Side};

use crate::TrainError;

/// Rows that are added to a covariance at once.
const BLOCK: usize = 512;

/// Features of pictures, one row each.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureSet {
    width: usize,
    values: Vec<f32>,
}

impl FeatureSet {
    /// # Shapes
    /// values `[N, D]`, row-major
    ///
    /// # Errors
    /// [`TrainError::Judge`] when there are no values, they are no whole number of rows, or one is not finite.
    pub fn new(width: usize, values: Vec<f32>) -> Result<Self, TrainError> {
        let fail = |problem: &str| Err(TrainError::judge("features of pictures", problem));
        if width == 0 || values.is_empty() || !values.len().is_multiple_of(width) {
            return fail("are no whole number of rows, or none");
        }
        if values.iter().any(|value| !value.is_finite()) {
            return fail("are not all finite; the network or a picture is damaged");
        }
        Ok(Self { width, values })
    }

    /// Width of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.values.len() / self.width
    }

    /// One row.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..(index + 1) * self.width]
    }

    /// The rows in another order, or some of them.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self { width: self.width, values: rows.iter().flat_map(|&row| self.row(row)).copied().collect() }
    }

    /// Rows `first..end` in float64, `[end - first, D]`.
    pub(super) fn block(&self, first: usize, end: usize) -> Mat<f64> {
        Mat::from_fn(end - first, self.width, |row, column| f64::from(self.row(first + row)[column]))
    }

    /// Mean and covariance.
    ///
    /// # Errors
    /// [`TrainError::Judge`] for fewer than two rows.
    pub fn statistics(&self) -> Result<FeatureStatistics, TrainError> {
        let (n_rows, width) = (self.n_rows(), self.width);
        if n_rows < 2 {
            return Err(TrainError::judge("features of pictures", "a covariance needs at least two pictures"));
        }
        let mut mean = vec![0.0; width];
        for row in self.values.chunks_exact(width) {
            mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        mean.iter_mut().for_each(|sum| *sum /= n_rows as f64);
        let mut covariance = Mat::<f64>::zeros(width, width);
        for first in (0..n_rows).step_by(BLOCK) {
            let mut block = self.block(first, (first + BLOCK).min(n_rows));
            for (column, mean) in mean.iter().enumerate() {
                block.col_mut(column).iter_mut().for_each(|value| *value -= mean);
            }
            let share = 1.0 / (n_rows - 1) as f64;
            matmul(covariance.as_mut(), Accum::Add, block.transpose(), block.as_ref(), share, Par::rayon(0));
        }
        let covariance = (0..width * width).map(|at| covariance[(at / width, at % width)]).collect();
        Ok(FeatureStatistics { mean, covariance })
    }
}

/// Mean and covariance of features, in float64.
#[derive(Clone, Debug, PartialEq)]
pub struct FeatureStatistics {
    /// The mean, `[D]`.
    pub mean: Vec<f64>,
    /// The covariance with N - 1, `[D, D]`.
    pub covariance: Vec<f64>,
}

/// The squared Frechet distance of two Gaussians (FID, Heusel et al. 2017):
/// `|m1 - m2|^2 + tr C1 + tr C2 - 2 tr sqrt(C1 C2)`.
///
/// The trace of the square root is that of `sqrt(sqrt(C1) C2 sqrt(C1))`, which is symmetric.
///
/// # Errors
/// [`TrainError::Judge`] for statistics of different widths or with values that are not finite.
pub fn frechet_distance(a: &FeatureStatistics, b: &FeatureStatistics) -> Result<f64, TrainError> {
    let fail = |problem: &str| TrainError::judge("Frechet distance", problem);
    let width = a.mean.len();
    if b.mean.len() != width {
        return Err(fail("the two sets have features of different widths; compute both with one network and layer"));
    }
    let is_finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
    if ![&a.mean, &a.covariance, &b.mean, &b.covariance].into_iter().all(|values| is_finite(values)) {
        return Err(fail("the statistics are not finite"));
    }
    let matrix =
        |statistics: &FeatureStatistics| MatRef::from_row_major_slice(&statistics.covariance, width, width).to_owned();
    let (first, second) = (matrix(a), matrix(b));
    let no_eigenvalues = |_| fail("the eigenvalues of a covariance were not found");
    let eigen = first.self_adjoint_eigen(Side::Lower).map_err(no_eigenvalues)?;
    let (vectors, values) = (eigen.U(), eigen.S().column_vector());
    // Rounding makes eigenvalues of 0 slightly negative.
    let scaled = Mat::from_fn(width, width, |row, column| vectors[(row, column)] * values[column].max(0.0).sqrt());
    let root = &scaled * vectors.transpose();
    let product = &(&root * &second) * &root;
    let symmetric = Mat::from_fn(width, width, |row, column| (product[(row, column)] + product[(column, row)]) / 2.0);
    let values = symmetric.self_adjoint_eigenvalues(Side::Lower).map_err(no_eigenvalues)?;
    let root_trace: f64 = values.iter().map(|value| value.max(0.0).sqrt()).sum();
    let shift: f64 = a.mean.iter().zip(&b.mean).map(|(a, b)| (a - b).powi(2)).sum();
    let trace = |matrix: &Mat<f64>| (0..width).map(|at| matrix[(at, at)]).sum::<f64>();
    Ok(shift + trace(&first) + trace(&second) - 2.0 * root_trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(mean: &[f64], covariance: &[f64]) -> FeatureStatistics {
        FeatureStatistics { mean: mean.to_vec(), covariance: covariance.to_vec() }
    }

    #[test]
    fn mean_and_covariance_by_hand() {
        let set = FeatureSet::new(2, vec![1.0, 0.0, 3.0, 4.0, 5.0, 2.0]).unwrap();
        assert_eq!(set.statistics().unwrap(), statistics(&[3.0, 2.0], &[4.0, 2.0, 2.0, 4.0]));
        assert!(FeatureSet::new(2, vec![1.0, 2.0]).unwrap().statistics().is_err());
        assert!(FeatureSet::new(2, vec![1.0]).is_err() && FeatureSet::new(1, vec![f32::NAN]).is_err());
    }

    #[test]
    fn the_distance_of_diagonal_gaussians_is_that_of_their_deviations() {
        // Deviations 2, 3 and 5, 1: (3^2 + 4^2) + (2 - 5)^2 + (3 - 1)^2.
        let a = statistics(&[0.0, 0.0], &[4.0, 0.0, 0.0, 9.0]);
        let b = statistics(&[3.0, 4.0], &[25.0, 0.0, 0.0, 1.0]);
        assert!((frechet_distance(&a, &b).unwrap() - 38.0).abs() < 1e-12);
        assert!((frechet_distance(&b, &a).unwrap() - 38.0).abs() < 1e-12);
        assert!(frechet_distance(&a, &a).unwrap().abs() < 1e-12);
        // A covariance of rank 1.
        let flat = statistics(&[0.0, 0.0], &[1.0, 1.0, 1.0, 1.0]);
        assert!(frechet_distance(&flat, &flat).unwrap().abs() < 1e-12);
        assert!(frechet_distance(&a, &statistics(&[0.0], &[1.0])).is_err());
        assert!(frechet_distance(&a, &statistics(&[0.0, 0.0], &[1.0, 0.0, 0.0, f64::INFINITY])).is_err());
    }
}
