//! Precision and recall of distributions (Kynkaanniemi et al. 2019): the share of one set that lies in the manifold of the
//! other. The manifold is the union of balls around the rows, each as wide as the distance to the k-th neighbour.

use serde::{Deserialize, Serialize};

use super::distances::{products, squared_lengths};
use super::statistics::FeatureSet;
use crate::TrainError;

/// The result of [`precision_recall`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrecisionRecall {
    /// Share of the samples in the manifold of the references.
    pub precision: f64,
    /// Share of the references in the manifold of the samples.
    pub recall: f64,
    /// Neighbours that decide the width of a ball.
    pub neighbours: usize,
}

/// Precision and recall with the `neighbours`-th nearest row (3 in the published scores).
///
/// # Errors
/// [`TrainError::Judge`] for a set with at most as many rows as neighbours, or for different widths.
pub fn precision_recall(
    samples: &FeatureSet,
    references: &FeatureSet,
    neighbours: usize,
) -> Result<PrecisionRecall, TrainError> {
    let n_rows = samples.n_rows().min(references.n_rows());
    if neighbours == 0 || n_rows <= neighbours {
        let problem = format!("{n_rows} pictures are too few for {neighbours} neighbours; give more pictures");
        return Err(TrainError::judge("precision and recall", problem));
    }
    let (of_samples, of_references) = (squared_radii(samples, neighbours)?, squared_radii(references, neighbours)?);
    Ok(PrecisionRecall {
        precision: share_inside(samples, references, &of_references)?,
        recall: share_inside(references, samples, &of_samples)?,
        neighbours,
    })
}

fn squared_radii(set: &FeatureSet, neighbours: usize) -> Result<Vec<f64>, TrainError> {
    let lengths = squared_lengths(set);
    // The nearest rows so far, the farthest of them last.
    let mut nearest: Vec<Vec<f64>> = vec![Vec::new(); set.n_rows()];
    products(set, set, |first_row, first_column, block| {
        for row in 0..block.nrows() {
            let found = &mut nearest[first_row + row];
            for column in 0..block.ncols() {
                let (i, j) = (first_row + row, first_column + column);
                if i == j {
                    continue;
                }
                let distance = (lengths[i] + lengths[j] - 2.0 * block[(row, column)]).max(0.0);
                if found.len() < neighbours || distance < found[neighbours - 1] {
                    let place = found.partition_point(|&other| other <= distance);
                    found.insert(place, distance);
                    found.truncate(neighbours);
                }
            }
        }
    })?;
    Ok(nearest.into_iter().map(|found| found[neighbours - 1]).collect())
}

fn share_inside(set: &FeatureSet, centres: &FeatureSet, squared_radii: &[f64]) -> Result<f64, TrainError> {
    let (lengths, of_centres) = (squared_lengths(set), squared_lengths(centres));
    let mut inside = vec![false; set.n_rows()];
    products(set, centres, |first_row, first_column, block| {
        for row in 0..block.nrows() {
            let i = first_row + row;
            inside[i] = inside[i]
                || (0..block.ncols()).any(|column| {
                    let j = first_column + column;
                    lengths[i] + of_centres[j] - 2.0 * block[(row, column)] <= squared_radii[j]
                });
        }
    })?;
    Ok(inside.iter().filter(|&&inside| inside).count() as f64 / set.n_rows() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_by_hand() {
        // Balls around the references 0, 1, 3 with k = 1: radii 1, 1, 2. Around the samples 2, 10, 12: 8, 2, 2.
        let references = FeatureSet::new(1, vec![0.0, 1.0, 3.0]).unwrap();
        let samples = FeatureSet::new(1, vec![2.0, 10.0, 12.0]).unwrap();
        let found = precision_recall(&samples, &references, 1).unwrap();
        assert_eq!((found.precision, found.recall), (1.0 / 3.0, 1.0));
        assert!(precision_recall(&samples, &references, 3).is_err());
    }
}
