//! A curve's perplexity at a given entropy, between its points, with all of it resampled together.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::judge::JudgedSample;
use crate::judge::counting::NllSum;
use crate::judge::metrics::{Estimate, RESAMPLES, central};

/// A statistic of all samples and of each resample of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Resampled {
    pub(super) value: f64,
    pub(super) resamples: Vec<f64>,
}

impl Resampled {
    /// A function of several resampled statistics, resample by resample.
    pub(super) fn map(parts: &[&Self], of: impl Fn(&[f64], bool) -> f64) -> Self {
        let value = of(&parts.iter().map(|part| part.value).collect::<Vec<_>>(), true);
        let n = parts.iter().map(|part| part.resamples.len()).min().unwrap_or(0);
        let resample = |at: usize| of(&parts.iter().map(|part| part.resamples[at]).collect::<Vec<_>>(), false);
        Self { value, resamples: (0..n).map(resample).collect() }
    }

    /// The exponential of the statistic, with the central 95 % of its resamples; absent when it is not finite.
    pub(super) fn exponential(&self) -> Option<Estimate> {
        let finite = self.resamples.iter().filter(|value| value.is_finite()).map(|value| value.exp()).collect();
        let value = self.value.exp();
        value.is_finite().then(|| Estimate { value, interval: central(finite) })
    }
}

/// The samples of each resample. Sample i of every point and every model has the same seed, so one draw serves them all: what
/// their seeds share cancels in comparisons.
pub(super) fn resamples(n: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..RESAMPLES).map(|_| (0..n).map(|_| rng.random_range(0..n)).collect()).collect()
}

/// Entropy and logarithm of the perplexity at one point.
#[derive(Clone, Debug)]
pub(super) struct ResampledPoint {
    pub(super) entropy: Resampled,
    pub(super) log_perplexity: Resampled,
}

impl ResampledPoint {
    /// A point's samples; `drawn` are the samples of each resample.
    pub(super) fn new(samples: &[JudgedSample], drawn: &[Vec<usize>]) -> Self {
        let all: Vec<usize> = (0..samples.len()).collect();
        let entropy = |rows: &[usize]| {
            let known: Vec<f64> = rows.iter().filter_map(|&row| samples[row].entropy).collect();
            known.iter().sum::<f64>() / known.len() as f64
        };
        let log_perplexity =
            |rows: &[usize]| NllSum::total(&rows.iter().map(|&row| samples[row].paper).collect::<Vec<_>>()).mean();
        let resampled = |of: &dyn Fn(&[usize]) -> f64| Resampled {
            value: of(&all),
            resamples: drawn.iter().map(|rows| of(rows)).collect(),
        };
        Self { entropy: resampled(&entropy), log_perplexity: resampled(&log_perplexity) }
    }
}

/// The logarithm of a curve's perplexity at an entropy, linear in the entropy between two neighbouring points. From the first
/// point on, the first two neighbours that enclose the entropy count. NaN when none do; only a resample is then continued
/// along the nearer end, so that the interval of a value close to an end is not cut off.
pub(super) fn at_entropy(points: &[ResampledPoint], target: &Resampled) -> Resampled {
    let mut parts: Vec<&Resampled> = vec![target];
    parts.extend(points.iter().flat_map(|point| [&point.entropy, &point.log_perplexity]));
    Resampled::map(&parts, |values, is_value| {
        let points: Vec<[f64; 2]> = values[1..].as_chunks::<2>().0.to_vec();
        interpolate(&points, values[0], !is_value)
    })
}

// points: entropy and logarithm of the perplexity
fn interpolate(points: &[[f64; 2]], target: f64, continued: bool) -> f64 {
    let between = |a: [f64; 2], b: [f64; 2]| {
        if a[0] == b[0] { a[1] } else { a[1] + (b[1] - a[1]) * (target - a[0]) / (b[0] - a[0]) }
    };
    if let Some(point) = points.iter().find(|point| point[0] == target) {
        return point[1];
    }
    let enclosing = points.windows(2).find(|pair| (pair[0][0] - target) * (pair[1][0] - target) <= 0.0);
    match (enclosing, points) {
        (Some(pair), _) => between(pair[0], pair[1]),
        (None, [first, second, ..]) if continued => {
            let [.., before, last] = points else { return f64::NAN };
            if (first[0] - target).abs() <= (last[0] - target).abs() {
                between(*first, *second)
            } else {
                between(*before, *last)
            }
        }
        _ => f64::NAN,
    }
}

/// The logarithm of the wall time at which a model reaches a perplexity: along its curves from the fastest, linear in the
/// logarithms. The first curve's time when that has reached it, infinite when none does. `curves` are logarithms of the time
/// and of the perplexity.
pub(super) fn time_to_reach(curves: &[(f64, &Resampled)], target: &Resampled) -> Resampled {
    let mut parts: Vec<&Resampled> = vec![target];
    parts.extend(curves.iter().map(|(_, perplexity)| *perplexity));
    Resampled::map(&parts, |values, _| {
        let points: Vec<[f64; 2]> = curves
            .iter()
            .zip(&values[1..])
            .map(|((time, _), &perplexity)| [*time, perplexity])
            .filter(|point| point[1].is_finite())
            .collect();
        reach(&points, values[0])
    })
}

fn reach(points: &[[f64; 2]], target: f64) -> f64 {
    let Some(first) = points.iter().position(|point| point[1] <= target) else { return f64::INFINITY };
    if first == 0 {
        return points[0][0];
    }
    let (before, at) = (points[first - 1], points[first]);
    before[0] + (at[0] - before[0]) * (before[1] - target) / (before[1] - at[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(nats: f64, entropy: f64) -> JudgedSample {
        let sum = NllSum { nats, tokens: 10 };
        JudgedSample { public_code: sum, paper: sum, entropy: Some(entropy) }
    }

    fn fixed(value: f64, resamples: &[f64]) -> Resampled {
        Resampled { value, resamples: resamples.to_vec() }
    }

    #[test]
    fn between_two_points_the_logarithm_is_linear_in_the_entropy() {
        let points = [[3.0, 4.0], [2.5, 3.0], [2.0, 2.8], [2.2, 2.0]];
        assert!((interpolate(&points, 2.75, false) - 3.5).abs() < 1e-12);
        assert!((interpolate(&points, 2.1, false) - 2.84).abs() < 1e-12);
        assert_eq!(interpolate(&points, 2.5, false), 3.0);
        // Outside: no value, unless it is continued along the nearer end.
        assert!(interpolate(&points, 3.1, false).is_nan() && interpolate(&points, 1.0, false).is_nan());
        assert!((interpolate(&points, 3.1, true) - 4.2).abs() < 1e-12);
        assert!((interpolate(&points[..3], 1.9, true) - 2.76).abs() < 1e-12);
        // One point has a value at its own entropy only.
        assert!(interpolate(&points[..1], 2.9, true).is_nan() && interpolate(&[], 2.9, true).is_nan());
        assert_eq!(interpolate(&points[..1], 3.0, false), 4.0);
        assert_eq!(interpolate(&[[1.0, 5.0], [1.0, 6.0]], 1.1, true), 5.0);
    }

    #[test]
    fn points_are_resampled_together_and_the_interval_covers_the_value() {
        let hot: Vec<JudgedSample> =
            (0..40).map(|i| judged(40.0 + f64::from(i % 5), 3.0 + 0.01 * f64::from(i % 3))).collect();
        let cold: Vec<JudgedSample> =
            (0..40).map(|i| judged(20.0 + f64::from(i % 5), 2.0 + 0.01 * f64::from(i % 3))).collect();
        let drawn = resamples(40, 3);
        assert_eq!(drawn, resamples(40, 3));
        let points = [ResampledPoint::new(&hot, &drawn), ResampledPoint::new(&cold, &drawn)];
        assert!((points[0].log_perplexity.value - 4.2).abs() < 1e-12);
        // The two curves differ by 2 nats a token in every resample, because they are drawn together.
        let gap = Resampled::map(&[&points[0].log_perplexity, &points[1].log_perplexity], |v, _| v[0] - v[1]);
        assert!(gap.resamples.iter().all(|gap| (gap - 2.0).abs() < 1e-9));
        let target = fixed(2.5, &vec![2.5; RESAMPLES]);
        let found = at_entropy(&points, &target).exponential().unwrap();
        let [low, high] = found.interval.unwrap();
        assert!(low < found.value && found.value < high && high / low < 1.2, "{found:?}");
        assert!((found.value.ln() - (2.2 + 2.0 * (2.5 - points[1].entropy.value))).abs() < 1e-9);
        assert_eq!(at_entropy(&points[..1], &target).exponential(), None);
    }

    #[test]
    fn the_time_to_reach_a_perplexity_is_read_along_the_curves() {
        let points = [[0.0, 5.0], [1.0, 4.0], [2.0, 3.5], [3.0, 3.6]];
        assert_eq!(reach(&points, 4.5), 0.5);
        assert_eq!(reach(&points, 5.5), 0.0);
        assert_eq!(reach(&points, 3.5), 2.0);
        assert_eq!(reach(&points, 3.4), f64::INFINITY);
        let (slow, fast) = (fixed(5.0, &[5.0, 4.4]), fixed(4.0, &[4.0, f64::NAN]));
        let found = time_to_reach(&[(0.0, &slow), (1.0, &fast)], &fixed(4.5, &[4.5, 4.2]));
        assert_eq!((found.value, found.resamples), (0.5, vec![0.5, f64::INFINITY]));
    }
}
