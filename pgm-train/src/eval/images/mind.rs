//! MIND (arXiv 2605.06797): three times the width of the features, times the mean squared difference of sorted projections
//! onto random directions.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::statistics::FeatureSet;
use crate::TrainError;

/// Directions of the published score.
const DIRECTIONS: usize = 1000;

/// The score of two sets. Of sets of different sizes, the larger one is read at the quantiles of the smaller.
///
/// # Errors
/// [`TrainError::Judge`] for different widths.
pub fn mind(a: &FeatureSet, b: &FeatureSet, seed: u64) -> Result<f64, TrainError> {
    if a.width() != b.width() {
        let problem = format!("the two sets have features of width {} and {}", a.width(), b.width());
        return Err(TrainError::judge("MIND", problem));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sum = 0.0;
    for _ in 0..DIRECTIONS {
        let direction: Vec<f64> = (0..a.width()).map(|_| StandardNormal.sample(&mut rng)).collect();
        let length = direction.iter().map(|value: &f64| value * value).sum::<f64>().sqrt();
        let project = |set: &FeatureSet| -> Vec<f64> {
            let product = |row: usize| -> f64 {
                set.row(row).iter().zip(&direction).map(|(&x, along)| f64::from(x) * along).sum::<f64>() / length
            };
            let mut values: Vec<f64> = (0..set.n_rows()).map(product).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let (x, y) = (project(a), project(b));
        let n = x.len().min(y.len());
        let squares = (0..n).map(|place| (quantile(&x, place, n) - quantile(&y, place, n)).powi(2));
        sum += squares.sum::<f64>() / n as f64;
    }
    Ok(3.0 * a.width() as f64 * sum / DIRECTIONS as f64)
}

// The value in the middle of part `place` of `n` equal parts of a sorted list.
fn quantile(sorted: &[f64], place: usize, n: usize) -> f64 {
    if sorted.len() == n {
        return sorted[place];
    }
    let at = (place as f64 + 0.5) * sorted.len() as f64 / n as f64 - 0.5;
    let (below, above) = (at.floor().max(0.0) as usize, (at.ceil() as usize).min(sorted.len() - 1));
    sorted[below] + (sorted[above] - sorted[below]) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_sets_score_zero_and_a_shift_scores_three_times_its_square() {
        // E (shift . direction)^2 = |shift|^2 / D over unit directions.
        let values: Vec<f32> = (0..60).map(|at| ((at * 37) % 23) as f32).collect();
        let a = FeatureSet::new(3, values.clone()).unwrap();
        assert_eq!(mind(&a, &a, 1).unwrap(), 0.0);
        let shift = [2.0, 0.0, -1.0];
        let moved = values.iter().enumerate().map(|(at, value)| value + shift[at % 3]).collect();
        let found = mind(&a, &FeatureSet::new(3, moved).unwrap(), 1).unwrap();
        assert!((found - 15.0).abs() < 1.5, "{found}");
        // Twice the same rows have the same quantiles, but for the ends.
        let twice = FeatureSet::new(3, [values.clone(), values].concat()).unwrap();
        assert!(mind(&a, &twice, 1).unwrap() < 10.0);
        assert!(mind(&a, &FeatureSet::new(2, vec![0.0; 4]).unwrap(), 1).is_err());
    }
}
