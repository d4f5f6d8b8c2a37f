//! MAUVE (Pillutla et al. 2021, arXiv 2102.01454): how similar the distribution of samples is to that of references.
//!
//! K-means over the features of both sets assigns each feature to a bucket. The histograms `P` and `Q` of the two sets give
//! the curve `(exp(-c KL(Q | R)), exp(-c KL(P | R)))` over the mixtures `R = w P + (1 - w) Q`. MAUVE is the area under the
//! curve: 1 for equal histograms, 1/252 for disjoint ones at c = 5.
//!
//! As in the reference package (mauve-text): features scaled to norm 1, principal components up to 90 % of the variance, one
//! bucket per ten features of the smaller set, c = 5, 25 mixtures, trapezoids averaged over both axes; the smoothed score
//! adds 1/2 to every bucket of both histograms. Different: everything is float64, and k-means is Lloyd's algorithm from
//! k-means++ starts instead of faiss's. The rows are sorted first, so the score does not depend on their order nor on which
//! set comes first.
//!
//! The score depends on the model of the features and on the sizes of the sets, so compare only scores with equal settings.

mod curve;
mod k_means;
mod principal;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The share of the features' variance that the principal components keep.
const KEPT_VARIANCE: f64 = 0.9;
/// Resamples of the members of the buckets, for the interval of one clustering.
const RESAMPLES: usize = 200;
/// Clusterings of [`mauve`] unless a caller asks for another number.
pub const CLUSTERINGS: usize = 3;

/// The result of [`mauve`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mauve {
    /// The area under the curve, between 0 and 1; the mean over the clusterings.
    pub score: f64,
    /// 95 %, by a normal approximation. Its variance is that over resampled members of the buckets plus that of the mean over
    /// the clusterings.
    pub interval: [f64; 2],
    /// The score with 1/2 added to every bucket of both histograms (Krichevsky-Trofimov; the package's MAUVE*).
    pub smoothed: f64,
    /// Number of buckets of the histograms.
    pub buckets: usize,
    /// Number of principal components.
    pub components: usize,
    /// Number of clusterings, each the best of five runs of k-means.
    pub clusterings: usize,
}

/// MAUVE of two sets of features. `seed` draws the starting centres of k-means, once for each of the `clusterings`.
///
/// # Errors
/// [`TrainError::Judge`] when a set has fewer than two features, a feature is not finite or has another width, or there is
/// no clustering.
pub fn mauve(p: &[Vec<f32>], q: &[Vec<f32>], seed: u64, clusterings: usize) -> Result<Mauve, TrainError> {
    let fail = |problem: &str| Err(TrainError::judge("MAUVE", problem));
    if p.len() < 2 || q.len() < 2 {
        return fail("needs at least two features of each set; give more samples and references");
    }
    if clusterings == 0 {
        return fail("needs at least one clustering");
    }
    let width = p[0].len();
    let is_usable = |row: &Vec<f32>| row.len() == width && row.iter().all(|value| value.is_finite());
    if width == 0 || !p.iter().chain(q).all(is_usable) {
        return fail("the features must be finite and have one width");
    }
    // Rows with the set that they belong to, in an order that depends on their values only.
    let of_p = p.iter().map(|row| (unit(row), true));
    let mut rows: Vec<(Vec<f64>, bool)> = of_p.chain(q.iter().map(|row| (unit(row), false))).collect();
    let by_value = |a: &[f64], b: &[f64]| {
        let different = a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
        different.unwrap_or(std::cmp::Ordering::Equal)
    };
    rows.sort_by(|a, b| by_value(&a.0, &b.0));
    let (rows, is_p): (Vec<Vec<f64>>, Vec<bool>) = rows.into_iter().unzip();
    let rows = principal::components(&rows, KEPT_VARIANCE)?;

    let buckets = n_buckets(p.len(), q.len());
    let (mut scores, mut smoothed, mut variances) = (Vec::new(), Vec::new(), Vec::new());
    for clustering in 0..clusterings as u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(clustering);
        let members = k_means::best(&rows, buckets, &mut rng);
        let of = |wanted: bool| -> Vec<usize> {
            members.iter().zip(&is_p).filter(|(_, is_p)| **is_p == wanted).map(|(member, _)| *member).collect()
        };
        let (of_p, of_q) = (of(true), of(false));
        let score = |p: &[usize], q: &[usize], added| {
            curve::area(&curve::histogram(p, buckets, added), &curve::histogram(q, buckets, added))
        };
        scores.push(score(&of_p, &of_q, 0.0));
        smoothed.push(score(&of_p, &of_q, 0.5));
        let mut resampled = |members: &[usize]| -> Vec<usize> {
            (0..members.len()).map(|_| members[rng.random_range(0..members.len())]).collect()
        };
        let resamples: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                let (p, q) = (resampled(&of_p), resampled(&of_q));
                score(&p, &q, 0.0)
            })
            .collect();
        variances.push(variance(&resamples));
    }
    let score = mean(&scores);
    let deviation = (mean(&variances) + variance(&scores) / clusterings as f64).sqrt();
    Ok(Mauve {
        score,
        interval: [(score - 1.96 * deviation).max(0.0), (score + 1.96 * deviation).min(1.0)],
        smoothed: mean(&smoothed),
        buckets,
        components: rows[0].len(),
        clusterings,
    })
}

// One bucket for ten features of the smaller set, halves rounded to even as Python does.
fn n_buckets(n_p: usize, n_q: usize) -> usize {
    ((n_p.min(n_q) as f64 / 10.0).round_ties_even() as usize).max(2)
}

fn unit(row: &[f32]) -> Vec<f64> {
    let norm = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    row.iter().map(|&value| f64::from(value) / norm).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

// With n - 1; 0 for one value.
fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    let sum: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    sum / values.len().saturating_sub(1).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloud(n: usize, centre: [f32; 3], seed: u64) -> Vec<Vec<f32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut near = |value: f32| value + 0.1 * (rng.random::<f32>() - 0.5);
        (0..n).map(|_| centre.map(&mut near).to_vec()).collect()
    }

    fn score(p: &[Vec<f32>], q: &[Vec<f32>], seed: u64) -> Mauve {
        mauve(p, q, seed, 2).unwrap()
    }

    #[test]
    fn equal_sets_score_one_and_distant_sets_almost_zero() {
        let (a, b) = (cloud(200, [1.0, 0.0, 0.0], 1), cloud(200, [0.0, 1.0, 0.0], 2));
        let same = score(&a, &a, 3);
        assert!((same.score - 1.0).abs() < 1e-9 && (same.smoothed - 1.0).abs() < 1e-9, "{same:?}");
        assert!(same.buckets == 20 && same.clusterings == 2 && same.interval[1] <= 1.0, "{same:?}");
        let far = score(&a, &b, 3);
        assert!(far.score < 0.005 && far.smoothed < 0.05 && far.components == 1, "{far:?}");
        // Other rows of the same distribution: less than 1, but near.
        let again = score(&a, &cloud(200, [1.0, 0.0, 0.0], 4), 3);
        assert!(again.score > 0.8 && again.score < 1.0 && again.components == 2, "{again:?}");
        assert!(again.interval[0] < again.score && again.score < again.interval[1], "{again:?}");
        assert_eq!(score(&a, &b, 3), far);
    }

    #[test]
    fn the_score_is_symmetric_and_does_not_depend_on_the_order_of_the_rows() {
        let a = cloud(100, [1.0, 0.0, 0.0], 1);
        let half: Vec<_> = a[..50].iter().cloned().chain(cloud(50, [0.0, 0.0, 1.0], 2)).collect();
        let (forth, back) = (score(&a, &half, 1), score(&half, &a, 1));
        assert!(
            forth.score > 0.1 && forth.score < 0.9 && (forth.score - back.score).abs() < 1e-9,
            "{forth:?} {back:?}"
        );
        let turned: Vec<_> = a.iter().rev().cloned().collect();
        assert!((score(&turned, &half, 1).score - forth.score).abs() < 1e-9);
    }

    #[test]
    fn the_score_falls_as_more_of_one_set_is_replaced() {
        let (a, other) = (cloud(100, [1.0, 0.0, 0.0], 1), cloud(100, [0.0, 0.0, 1.0], 2));
        let replaced = |n: usize| -> Vec<Vec<f32>> { other[..n].iter().chain(&a[n..]).cloned().collect() };
        let scores: Vec<f64> = [0, 25, 50, 75, 100].map(|n| score(&a, &replaced(n), 1).score).to_vec();
        assert!(scores.windows(2).all(|pair| pair[1] < pair[0] - 0.05), "{scores:?}");
    }

    // Six groups along six axes, with other shares of them in the two sets, so that every clustering finds the groups.
    #[test]
    fn the_score_of_separate_groups_is_that_of_the_reference_package() {
        let set = |counts: [usize; 6], shift: usize| -> Vec<Vec<f32>> {
            let groups = counts.iter().enumerate();
            let members = groups.flat_map(|(group, &count)| (0..count).map(move |index| (group, index)));
            let row = |(group, index): (usize, usize)| {
                let value = |at: usize| {
                    let noise = ((index * 7 + at * 3 + shift) % 11) as f32 / 110.0;
                    if at == group { 3.0 + noise } else { noise }
                };
                (0..8).map(value).collect()
            };
            members.map(row).collect()
        };
        let (p, q) = (set([20, 10, 10, 10, 5, 5], 0), set([5, 5, 10, 15, 15, 10], 4));
        let found = mauve(&p, &q, 1, 3).unwrap();
        // mauve-text 0.4.0 has, for these rows and every seed, this mauve and this mauve_star.
        assert!((found.score - 0.762_852_303_824_948_6).abs() < 1e-9, "{found:?}");
        assert!((found.smoothed - 0.794_798_131_201_248_6).abs() < 1e-9, "{found:?}");
        assert_eq!(found.buckets, 6);
    }

    #[test]
    fn sets_that_cannot_be_compared_are_an_error() {
        let row = vec![vec![1.0_f32, 2.0]; 3];
        let message = |p: &[Vec<f32>], q: &[Vec<f32>]| mauve(p, q, 0, 1).unwrap_err().to_string();
        assert!(message(&row, &row[..1]).starts_with("MAUVE: needs at least two"));
        assert!(message(&row, &[vec![1.0], vec![2.0]]).contains("one width"));
        assert!(message(&row, &[vec![f32::NAN, 1.0], vec![2.0, 1.0]]).contains("finite"));
        assert!(mauve(&row, &row, 0, 0).unwrap_err().to_string().contains("clustering"));
        // Rows that are all alike have no variance, and one bucket holds them all.
        assert!((score(&row, &row, 0).score - 1.0).abs() < 1e-12);
    }
}
