//! KID (Binkowski et al. 2018): the squared maximum mean discrepancy with the kernel `(x.y / D + 1)^3`.

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::distances::products;
use super::statistics::FeatureSet;
use crate::TrainError;

/// Settings of [`kid`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KidSettings {
    /// Number of subsets.
    pub subsets: usize,
    /// Pictures of a subset; at most half of the smaller set, so that subsets differ.
    pub subset_size: usize,
}

impl Default for KidSettings {
    fn default() -> Self {
        Self { subsets: 100, subset_size: 1000 }
    }
}

/// Mean and standard deviation over subsets.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubsetScore {
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub deviation: f64,
}

impl SubsetScore {
    /// Of at least one value.
    pub(super) fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        Self { mean, deviation: (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt() }
    }
}

/// The unbiased estimate over random subsets.
///
/// # Errors
/// [`TrainError::Judge`] for sets of fewer than two rows or of different widths.
pub fn kid(a: &FeatureSet, b: &FeatureSet, settings: &KidSettings, seed: u64) -> Result<SubsetScore, TrainError> {
    let half = (a.n_rows().min(b.n_rows()) / 2).max(2);
    let size = settings.subset_size.min(half).min(a.n_rows()).min(b.n_rows());
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut subset = |set: &FeatureSet| set.select(&index::sample(&mut rng, set.n_rows(), size).into_vec());
    let values =
        (0..settings.subsets.max(1)).map(|_| kid_of_all(&subset(a), &subset(b))).collect::<Result<Vec<_>, _>>()?;
    Ok(SubsetScore::of(&values))
}

/// The unbiased estimate over all rows.
///
/// # Errors
/// As [`kid`].
pub fn kid_of_all(a: &FeatureSet, b: &FeatureSet) -> Result<f64, TrainError> {
    if a.n_rows() < 2 || b.n_rows() < 2 {
        return Err(TrainError::judge("KID", "needs at least two pictures of each set"));
    }
    let width = a.width() as f64;
    let kernel = |product: f64| (product / width + 1.0).powi(3);
    let sum = |a: &FeatureSet, b: &FeatureSet, of_itself: bool| -> Result<f64, TrainError> {
        let mut sum = 0.0;
        products(a, b, |first_row, first_column, block| {
            for row in 0..block.nrows() {
                for column in 0..block.ncols() {
                    // A row is not compared with itself.
                    if !(of_itself && first_row + row == first_column + column) {
                        sum += kernel(block[(row, column)]);
                    }
                }
            }
        })?;
        Ok(sum)
    };
    let (n, m) = (a.n_rows() as f64, b.n_rows() as f64);
    let within = sum(a, a, true)? / (n * (n - 1.0)) + sum(b, b, true)? / (m * (m - 1.0));
    Ok(within - 2.0 * sum(a, b, false)? / (n * m))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_by_hand() {
        // Width 1, kernel (x y + 1)^3. Within {0, 1}: 1; within {1, 2}: 27; across: 1, 1, 8, 27.
        let a = FeatureSet::new(1, vec![0.0, 1.0]).unwrap();
        let b = FeatureSet::new(1, vec![1.0, 2.0]).unwrap();
        assert!((kid_of_all(&a, &b).unwrap() - (1.0 + 27.0 - 2.0 * 37.0 / 4.0)).abs() < 1e-12);
        let all = KidSettings { subsets: 3, subset_size: 2 };
        let found = kid(&a, &b, &all, 1).unwrap();
        assert!((found.mean - 9.5).abs() < 1e-12 && found.deviation < 1e-12);
        assert!(kid_of_all(&a, &FeatureSet::new(1, vec![1.0]).unwrap()).is_err());
        assert!(kid_of_all(&a, &FeatureSet::new(2, vec![1.0; 4]).unwrap()).is_err());
    }
}
