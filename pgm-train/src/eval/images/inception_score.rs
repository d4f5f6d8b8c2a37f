//! The Inception Score (Salimans et al. 2016): `exp` of the mean divergence of a picture's classes from all pictures' classes.

use super::kid::SubsetScore;
use super::statistics::FeatureSet;
use crate::TrainError;

/// Mean and standard deviation over the parts.
pub type SplitScore = SubsetScore;

/// Parts of the published score.
pub(super) const SPLITS: usize = 10;

/// The score of class logits, cut into `splits` parts in their order. The published score has 10.
///
/// # Shapes
/// logits `[N, classes]`
///
/// # Errors
/// [`TrainError::Judge`] for fewer rows than parts.
pub fn inception_score(logits: &FeatureSet, splits: usize) -> Result<SplitScore, TrainError> {
    let n = logits.n_rows();
    if splits == 0 || n < splits {
        let problem = format!("{n} pictures cannot be cut into {splits} parts; give more pictures");
        return Err(TrainError::judge("Inception Score", problem));
    }
    let scores: Vec<f64> = (0..splits).map(|part| score(logits, part * n / splits..(part + 1) * n / splits)).collect();
    Ok(SplitScore::of(&scores))
}

fn score(logits: &FeatureSet, rows: std::ops::Range<usize>) -> f64 {
    let n_rows = rows.len() as f64;
    let log_probabilities: Vec<Vec<f64>> = rows.map(|row| log_softmax(logits.row(row))).collect();
    let mut mean = vec![0.0; logits.width()];
    for row in &log_probabilities {
        mean.iter_mut().zip(row).for_each(|(sum, value)| *sum += value.exp() / n_rows);
    }
    let divergence = |row: &Vec<f64>| -> f64 {
        // A class that no picture has adds 0.
        let term =
            |(value, mean): (&f64, &f64)| if value.exp() > 0.0 { value.exp() * (value - mean.ln()) } else { 0.0 };
        row.iter().zip(&mean).map(term).sum()
    };
    (log_probabilities.iter().map(divergence).sum::<f64>() / n_rows).exp()
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = logits.iter().map(|&value| f64::from(value) - f64::from(largest));
    let log_sum = shifted.clone().map(f64::exp).sum::<f64>().ln();
    shifted.map(|value| value - log_sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sure_and_different_pictures_score_their_number_of_classes_and_equal_ones_score_one() {
        let sure: Vec<f32> =
            (0..4).flat_map(|row| (0..4).map(move |class| if row == class { 200.0 } else { 0.0 })).collect();
        let sure = FeatureSet::new(4, sure).unwrap();
        assert!((inception_score(&sure, 1).unwrap().mean - 4.0).abs() < 1e-9);
        assert!((inception_score(&sure, 4).unwrap().mean - 1.0).abs() < 1e-9);
        let equal = FeatureSet::new(3, [1.0, 2.0, 0.5].repeat(6)).unwrap();
        let found = inception_score(&equal, 3).unwrap();
        assert!((found.mean - 1.0).abs() < 1e-9 && found.deviation < 1e-9);
        assert!(inception_score(&equal, 7).is_err() && inception_score(&equal, 0).is_err());
    }
}
