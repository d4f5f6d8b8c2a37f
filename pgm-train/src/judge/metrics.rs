//! Statistics of samples: unigram entropy, distinct n-grams, bootstrap intervals.

use std::collections::{HashMap, HashSet};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Number of resamples of a bootstrap.
pub const RESAMPLES: usize = 1000;

/// A statistic with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The statistic of all values.
    pub value: f64,
    /// The central 95 % of its bootstrap distribution. Absent for fewer than two values.
    pub interval: Option<[f64; 2]>,
}

impl Estimate {
    /// The statistic of `values` with its [`interval`]. Absent when it is not finite.
    pub fn of<T: Copy>(values: &[T], statistic: impl Fn(&[T]) -> f64, seed: u64) -> Option<Self> {
        let value = statistic(values);
        value.is_finite().then(|| Self { value, interval: interval(values, statistic, seed) })
    }

    /// The mean of `values` with its [`interval`]. Absent when there are no values.
    pub fn of_mean(values: &[f64], seed: u64) -> Option<Self> {
        Self::of(values, mean, seed)
    }

    /// An estimate in a table, with its interval in brackets; a dash where there is none.
    pub fn shown(estimate: Option<Self>, digits: usize) -> String {
        match estimate {
            Some(Self { value, interval: Some([low, high]) }) => {
                format!("{value:.digits$} ({low:.digits$} to {high:.digits$})")
            }
            Some(Self { value, interval: None }) => format!("{value:.digits$}"),
            None => "-".to_string(),
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Bootstrap interval: the 2.5 % and 97.5 % quantiles of `statistic` over [`RESAMPLES`] resamples, drawn with
/// replacement and as large as `values`. Resamples whose statistic is not finite are skipped. Absent for fewer than two
/// values.
pub fn interval<T: Copy>(values: &[T], statistic: impl Fn(&[T]) -> f64, seed: u64) -> Option<[f64; 2]> {
    if values.len() < 2 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn = Vec::with_capacity(values.len());
    let resample = |_| {
        drawn.clear();
        drawn.extend((0..values.len()).map(|_| values[rng.random_range(0..values.len())]));
        statistic(&drawn)
    };
    central((0..RESAMPLES).map(resample).filter(|value| value.is_finite()).collect())
}

/// The 2.5 % and 97.5 % quantiles, linear between two values; absent when there are none. An infinite value next to a quantile
/// makes it infinite.
pub(crate) fn central(mut values: Vec<f64>) -> Option<[f64; 2]> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    let quantile = |q: f64| {
        let place = q * last as f64;
        let (below, above) = (values[place.floor() as usize], values[place.ceil() as usize]);
        if below == above { below } else { below + (above - below) * place.fract() }
    };
    Some([quantile(0.025), quantile(0.975)])
}

/// Entropy in nats of the token frequencies of a row; 0 for an empty row.
pub fn unigram_entropy(row: &[u32]) -> f64 {
    let mut counts: HashMap<u32, usize> = HashMap::new();
    for &token in row {
        *counts.entry(token).or_default() += 1;
    }
    // Sorted, so that the rounding of the sum does not depend on the map's order.
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable();
    let share = |count: usize| count as f64 / row.len() as f64;
    counts.into_iter().map(|count| -share(count) * share(count).ln()).sum()
}

/// Shares of distinct n-grams.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distinct {
    /// Tokens per n-gram.
    pub n: usize,
    /// Distinct n-grams of all samples divided by all their n-grams. It falls with the number of samples, so compare equal
    /// numbers of samples. Absent when no sample has n tokens.
    pub over_set: Option<f64>,
    /// The same within one sample, as the mean over the samples that have n tokens.
    pub per_sample: Option<f64>,
}

/// [`Distinct`] n-grams of one size. No n-gram spans two rows.
///
/// # Panics
/// When `n` is 0.
pub fn distinct(rows: &[&[u32]], n: usize) -> Distinct {
    let mut all: HashSet<&[u32]> = HashSet::new();
    let mut n_grams = 0;
    let mut shares = Vec::new();
    for row in rows.iter().filter(|row| row.len() >= n) {
        let distinct: HashSet<&[u32]> = row.windows(n).collect();
        let total = row.len() + 1 - n;
        shares.push(distinct.len() as f64 / total as f64);
        n_grams += total;
        all.extend(distinct);
    }
    let found = n_grams > 0;
    let over_set = found.then(|| all.len() as f64 / n_grams as f64);
    Distinct { n, over_set, per_sample: found.then(|| mean(&shares)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropies_by_hand() {
        assert_eq!(unigram_entropy(&[]), 0.0);
        assert_eq!(unigram_entropy(&[4, 4, 4]), 0.0);
        assert!((unigram_entropy(&[1, 2, 3, 4]) - 4_f64.ln()).abs() < 1e-12);
        // 3/4 and 1/4: 2 ln 2 - 3/4 ln 3.
        assert!((unigram_entropy(&[7, 7, 8, 7]) - (2.0 * 2_f64.ln() - 0.75 * 3_f64.ln())).abs() < 1e-12);
    }

    #[test]
    fn distinct_n_grams_within_and_over_samples() {
        let rows: [&[u32]; 4] = [&[1, 1, 1, 1], &[1, 2, 3, 1], &[5], &[]];
        let one = distinct(&rows, 1);
        assert_eq!(one.over_set, Some(4.0 / 9.0));
        assert_eq!(one.per_sample, Some((0.25 + 0.75 + 1.0) / 3.0));
        let two = distinct(&rows, 2);
        assert_eq!(two.over_set, Some(4.0 / 6.0));
        assert_eq!(two.per_sample, Some((1.0 / 3.0 + 1.0) / 2.0));
        assert_eq!(distinct(&rows, 5), Distinct { n: 5, over_set: None, per_sample: None });
    }

    #[test]
    fn an_interval_is_reproducible_and_as_wide_as_theory_says() {
        // Mean of 400 values of variance 1/12: standard error 0.01443, half width 0.02829.
        let values: Vec<f64> = (0..400).map(|i| (f64::from(i) + 0.5) / 400.0).collect();
        let found = Estimate::of_mean(&values, 5).unwrap();
        assert_eq!(Some(found), Estimate::of_mean(&values, 5));
        assert_ne!(Some(found), Estimate::of_mean(&values, 6));
        let [low, high] = found.interval.unwrap();
        assert!((found.value - 0.5).abs() < 1e-12);
        assert!((0.5 - low - 0.02829).abs() < 0.004 && (high - 0.5 - 0.02829).abs() < 0.004, "{low} {high}");
    }

    #[test]
    fn an_estimate_that_is_not_finite_is_absent() {
        assert_eq!(Estimate::of_mean(&[], 1), None);
        assert_eq!(Estimate::of_mean(&[3.0], 1), Some(Estimate { value: 3.0, interval: None }));
        assert_eq!(Estimate::of_mean(&[3.0, 3.0], 1).unwrap().interval, Some([3.0, 3.0]));
        // A ratio whose denominator is 0 in some resamples keeps the others.
        let pairs = [(1.0, 0.0), (2.0, 1.0)];
        let ratio = |drawn: &[(f64, f64)]| {
            drawn.iter().map(|pair| pair.0).sum::<f64>() / drawn.iter().map(|pair| pair.1).sum::<f64>()
        };
        assert_eq!(interval(&pairs, ratio, 1), Some([2.0, 3.0]));
    }
}
