//! MAUVE (Pillutla et al. 2021, arXiv 2102.01454): how similar the distribution of samples is to that of references.
//!
//! K-means over the features of both sets assigns each feature to a bucket. The histograms `P` and `Q` of the two sets give
//! the curve `(exp(-c KL(Q | R)), exp(-c KL(P | R)))` over the mixtures `R = w P + (1 - w) Q`. MAUVE is the area under the
//! curve: 1 for equal histograms, 1/252 for disjoint ones at c = 5.
//!
//! As in the reference package: features scaled to norm 1, one bucket per ten features of the smaller set, c = 5, 25
//! mixtures, trapezoids averaged over both axes. Different: no PCA before k-means (the package keeps 90 % of the variance),
//! and Lloyd's algorithm with k-means++ starts instead of faiss. The score depends on the model of the features and on the
//! sizes of the sets, so compare only scores with equal settings.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::TrainError;

const SCALE: f64 = 5.0;
const MIXTURES: usize = 25;
const RESTARTS: usize = 5;
const ITERATIONS: usize = 500;

/// The result of [`mauve`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mauve {
    /// The area under the curve, between 0 and 1.
    pub score: f64,
    /// Number of buckets of the histograms.
    pub buckets: usize,
}

/// MAUVE of two sets of features. `seed` draws the starting centres of k-means.
///
/// # Errors
/// [`TrainError::Judge`] when a set has fewer than two features, or a feature is not finite or has another width.
pub fn mauve(p: &[Vec<f32>], q: &[Vec<f32>], seed: u64) -> Result<Mauve, TrainError> {
    let fail = |problem: &str| Err(TrainError::judge("MAUVE", problem));
    if p.len() < 2 || q.len() < 2 {
        return fail("needs at least two features of each set; give more samples and references");
    }
    let width = p[0].len();
    let is_usable = |row: &Vec<f32>| row.len() == width && row.iter().all(|value| value.is_finite());
    if !p.iter().chain(q).all(is_usable) {
        return fail("the features must be finite and have one width");
    }
    let rows: Vec<Vec<f32>> = p.iter().chain(q).map(|row| unit(row)).collect();
    let buckets = ((p.len().min(q.len()) as f64 / 10.0).round() as usize).max(2);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let runs = (0..RESTARTS).map(|_| k_means(&rows, buckets, &mut rng));
    let (members, _) = runs.min_by(|a, b| a.1.total_cmp(&b.1)).expect("RESTARTS is not 0");
    let (of_p, of_q) = members.split_at(p.len());
    Ok(Mauve { score: area(&histogram(of_p, buckets), &histogram(of_q, buckets)), buckets })
}

fn unit(row: &[f32]) -> Vec<f32> {
    let norm = dot(row, row).sqrt().max(f32::MIN_POSITIVE);
    row.iter().map(|value| value / norm).collect()
}

// Sixteen partial sums, which the compiler keeps in vector registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    f64::from(dot(a, a) + dot(b, b) - 2.0 * dot(a, b)).max(0.0)
}

// The bucket of each row, and the sum of squared distances of the rows to their centres.
fn k_means(rows: &[Vec<f32>], buckets: usize, rng: &mut ChaCha8Rng) -> (Vec<usize>, f64) {
    let mut centres = starts(rows, buckets, rng);
    let mut members = vec![usize::MAX; rows.len()];
    for _ in 0..ITERATIONS {
        let offsets: Vec<f32> = centres.iter().map(|centre| 0.5 * dot(centre, centre)).collect();
        let nearest = |row: &Vec<f32>| {
            let scores = centres.iter().zip(&offsets).map(|(centre, offset)| offset - dot(row, centre));
            scores.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(bucket, _)| bucket)
        };
        let found: Vec<usize> = rows.iter().map(nearest).collect();
        if found == members {
            break;
        }
        members = found;
        for (bucket, centre) in centres.iter_mut().enumerate() {
            let own_rows = || rows.iter().zip(&members).filter(|(_, member)| **member == bucket).map(|(row, _)| row);
            let count = own_rows().count();
            // An empty bucket keeps its centre; it adds nothing to either histogram.
            if count > 0 {
                centre.fill(0.0);
                for row in own_rows() {
                    centre.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
                }
                centre.iter_mut().for_each(|sum| *sum /= count as f32);
            }
        }
    }
    let spread = rows.iter().zip(&members).map(|(row, &bucket)| squared_distance(row, &centres[bucket])).sum();
    (members, spread)
}

// k-means++: each further centre is a row drawn with probability proportional to its squared distance to the nearest
// centre so far.
fn starts(rows: &[Vec<f32>], buckets: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f32>> {
    let mut centres = vec![rows[rng.random_range(0..rows.len())].clone()];
    let mut nearest = vec![f64::INFINITY; rows.len()];
    while centres.len() < buckets {
        let newest = &centres[centres.len() - 1];
        for (least, row) in nearest.iter_mut().zip(rows) {
            *least = least.min(squared_distance(row, newest));
        }
        let mut left = rng.random::<f64>() * nearest.iter().sum::<f64>();
        let drawn = nearest.iter().position(|distance| {
            left -= distance;
            left < 0.0
        });
        centres.push(rows[drawn.unwrap_or(rows.len() - 1)].clone());
    }
    centres
}

fn histogram(members: &[usize], buckets: usize) -> Vec<f64> {
    let mut shares = vec![0.0; buckets];
    for &bucket in members {
        shares[bucket] += 1.0 / members.len() as f64;
    }
    shares
}

// The area under the curve of two histograms.
fn area(p: &[f64], q: &[f64]) -> f64 {
    let margin = 1e-6;
    let mixture = |index: usize| margin + (1.0 - 2.0 * margin) * index as f64 / (MIXTURES - 1) as f64;
    let point = |index: usize| {
        let weight = mixture(index);
        let between: Vec<f64> = p.iter().zip(q).map(|(p, q)| weight * p + (1.0 - weight) * q).collect();
        [(-SCALE * divergence(q, &between)).exp(), (-SCALE * divergence(p, &between)).exp()]
    };
    let mut points: Vec<[f64; 2]> = (0..MIXTURES).map(point).collect();
    points.extend([[0.0, 1.0], [1.0, 0.0]]);
    let mut under = |x: usize, y: usize| {
        // Points of equal x in descending y, as the curve falls.
        points.sort_by(|a, b| a[x].total_cmp(&b[x]).then(b[y].total_cmp(&a[y])));
        points.windows(2).map(|pair| (pair[1][x] - pair[0][x]) * (pair[0][y] + pair[1][y]) / 2.0).sum::<f64>()
    };
    let (first, second) = (under(0, 1), under(1, 0));
    (first + second) / 2.0
}

// KL(a | b) in nats.
fn divergence(a: &[f64], b: &[f64]) -> f64 {
    let terms = a.iter().zip(b).filter(|(a, _)| **a > 0.0).map(|(a, b)| a * (a / b).ln());
    terms.sum::<f64>().max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cloud(n: usize, centre: [f32; 3], seed: u64) -> Vec<Vec<f32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut near = |value: f32| value + 0.1 * (rng.random::<f32>() - 0.5);
        (0..n).map(|_| centre.map(&mut near).to_vec()).collect()
    }

    #[test]
    fn areas_of_known_histograms() {
        assert!((area(&[0.25, 0.75], &[0.25, 0.75]) - 1.0).abs() < 1e-12);
        // Disjoint: the area under ((1 - w)^5, w^5) is 5! 5! / 10! = 1 / 252; trapezoids overestimate it a little.
        let disjoint = area(&[1.0, 0.0], &[0.0, 1.0]);
        assert!(disjoint > 1.0 / 252.0 && disjoint < 1.0 / 252.0 + 2e-4, "{disjoint}");
        let (p, q) = ([0.5, 0.3, 0.2, 0.0], [0.1, 0.3, 0.1, 0.5]);
        let some = area(&p, &q);
        // The reference package (mauve-text 0.4.0) gives this value.
        assert!((some - 0.206_194_108_692).abs() < 1e-10, "{some}");
        assert!((some - area(&q, &p)).abs() < 1e-12);
    }

    #[test]
    fn a_divergence_by_hand() {
        let expected = 0.5 * (0.5_f64 / 0.25).ln() + 0.5 * (0.5_f64 / 0.75).ln();
        assert!((divergence(&[0.5, 0.5, 0.0], &[0.25, 0.75, 0.0]) - expected).abs() < 1e-12);
    }

    #[test]
    fn equal_sets_score_one_and_distant_sets_almost_zero() {
        let (a, b) = (cloud(200, [1.0, 0.0, 0.0], 1), cloud(200, [0.0, 1.0, 0.0], 2));
        let same = mauve(&a, &a, 3).unwrap();
        assert!((same.score - 1.0).abs() < 1e-9 && same.buckets == 20, "{same:?}");
        let far = mauve(&a, &b, 3).unwrap();
        assert!(far.score < 0.005, "{far:?}");
        // Other rows of the same distribution: less than 1, but near.
        let again = mauve(&a, &cloud(200, [1.0, 0.0, 0.0], 4), 3).unwrap();
        assert!(again.score > 0.8 && again.score < 1.0, "{again:?}");
        assert_eq!(mauve(&a, &b, 3).unwrap(), far);
    }

    #[test]
    fn a_set_that_shares_half_its_rows_scores_between_and_the_score_is_symmetric() {
        let a = cloud(100, [1.0, 0.0, 0.0], 1);
        let half: Vec<_> = a[..50].iter().cloned().chain(cloud(50, [0.0, 0.0, 1.0], 2)).collect();
        let (forth, back) = (mauve(&a, &half, 1).unwrap().score, mauve(&half, &a, 1).unwrap().score);
        assert!(forth > 0.1 && forth < 0.9 && (forth - back).abs() < 0.1, "{forth} {back}");
    }

    #[test]
    fn sets_that_cannot_be_compared_are_an_error() {
        let row = vec![vec![1.0_f32, 2.0]; 3];
        assert!(mauve(&row, &row[..1], 0).unwrap_err().to_string().starts_with("MAUVE: needs at least two"));
        assert!(mauve(&row, &[vec![1.0], vec![2.0]], 0).unwrap_err().to_string().contains("one width"));
        assert!(mauve(&row, &[vec![f32::NAN, 1.0], vec![2.0, 1.0]], 0).is_err());
    }
}
