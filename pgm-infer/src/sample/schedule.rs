//! How many positions each step decodes.

use std::f64::consts::FRAC_PI_2;
use std::str::FromStr;

use rand::Rng;
use rand_distr::{Binomial, Distribution};

/// How many positions each step decodes in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Equal shares: after step i of n, `round(open * i / n)` positions are decoded (the paper's Algorithm 2). It takes any
    /// length and any number of steps.
    #[default]
    Uniform,
    /// Each open position is decoded in the step from time t to s with probability `(t - s) / t`, as in MDLM's
    /// ancestral sampler (the paper's Algorithms 3-5). Positions that are left at the end take one more evaluation.
    Binomial,
    /// A curve as Halton-MaskGIT follows it (arXiv 2503.17076): after step i of n (from 0) the number of decoded positions
    /// is `max(i + 1, floor(curve((i + 1) / n) * open))`.
    Curve(Curve),
    /// A curve as the public confidence samplers follow it: after step i of n (from 0) the number of decoded positions is
    /// `floor(curve(i / (n - 1)) * open)`, in the first step at least one. A step that this gives nothing decodes nothing.
    CurveFromZero(Curve),
}

/// The share of the open positions that is decoded after a share of the steps: from 0 at 0 to 1 at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// `1 - arccos(r) / (pi / 2)`: slowly, and much in the last steps.
    Arccos,
    /// `1 - cos(r pi / 2)`, MaskGIT's (arXiv 2202.04200): few positions first.
    Cosine,
    /// `r`.
    Linear,
    /// `r^2`: few positions first.
    Square,
    /// `sqrt(r)`: many positions first.
    Root,
}

const CURVES: [(&str, Curve); 5] = [
    ("arccos", Curve::Arccos),
    ("cosine", Curve::Cosine),
    ("linear", Curve::Linear),
    ("square", Curve::Square),
    ("root", Curve::Root),
];

impl Curve {
    /// Names, as the command takes them.
    pub const NAMES: [&'static str; CURVES.len()] = {
        let mut names = [""; CURVES.len()];
        let mut index = 0;
        while index < CURVES.len() {
            names[index] = CURVES[index].0;
            index += 1;
        }
        names
    };

    /// The curve's name.
    pub fn name(self) -> &'static str {
        CURVES.iter().find(|(_, curve)| *curve == self).map_or("", |(name, _)| name)
    }

    /// The share of the positions after the share `r` of the steps, both in `[0, 1]`.
    pub fn share(self, r: f64) -> f64 {
        match self {
            Self::Arccos => 1.0 - r.acos() / FRAC_PI_2,
            Self::Cosine => 1.0 - (r * FRAC_PI_2).cos(),
            Self::Linear => r,
            Self::Square => r * r,
            Self::Root => r.sqrt(),
        }
    }
}

impl FromStr for Curve {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = CURVES.iter().find(|(known, _)| *known == name).map(|(_, curve)| *curve);
        found.ok_or_else(|| format!("{name} is not a curve; the curves are {}", Self::NAMES.join(", ")))
    }
}

/// How many positions of a row are open in a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenCounts {
    /// Before the first step.
    pub at_start: usize,
    /// Before this step. Only these are decoded in it.
    pub left: usize,
    /// Decoded ones that this step opens again.
    pub reopened: usize,
}

/// Time at which the binomial schedule stops; positions that are open then are decoded at once.
const LAST_TIME: f64 = 1e-5;

impl Schedule {
    /// Steps in all for a setting of `steps`.
    pub fn n_steps(self, steps: usize) -> usize {
        match self {
            Self::Uniform | Self::Curve(_) | Self::CurveFromZero(_) => steps,
            Self::Binomial => steps + 1,
        }
    }

    // Decoded positions after step `step` of a curve.
    fn curve_target(curve: Curve, from_zero: bool, step: usize, steps: usize, n_open: usize) -> usize {
        if step + 1 >= steps {
            return n_open;
        }
        let (r, least) = if from_zero {
            (step as f64 / (steps - 1) as f64, 1)
        } else {
            ((step + 1) as f64 / steps as f64, step + 1)
        };
        ((curve.share(r) * n_open as f64).floor() as usize).max(least).min(n_open)
    }

    /// Positions that step `step` (from 0) of `steps` decodes: all that are left from the last step on.
    pub fn count(self, step: usize, steps: usize, positions: OpenCounts, rng: &mut impl Rng) -> usize {
        let OpenCounts { at_start, left, reopened } = positions;
        // A custom order may be ahead of the schedule.
        let up_to = |wanted: usize| wanted.saturating_sub((at_start - left).saturating_sub(reopened)).min(left);
        match self {
            Self::Uniform => {
                let wanted = (at_start as f64 * (step + 1) as f64 / steps as f64).round() as usize;
                up_to(wanted.min(at_start))
            }
            Self::Curve(curve) => up_to(Self::curve_target(curve, false, step, steps, at_start)),
            Self::CurveFromZero(curve) => up_to(Self::curve_target(curve, true, step, steps, at_start)),
            Self::Binomial if step >= steps => left,
            Self::Binomial => {
                let time = |step: usize| 1.0 - (1.0 - LAST_TIME) * step as f64 / steps as f64;
                // What is reopened is decoded again elsewhere, so that the decoded share stays on its course (ReMDM, arXiv
                // 2503.00307, with the share that was reopened for the expected one).
                let share = time(step) - time(step + 1) + reopened as f64 / at_start.max(1) as f64;
                let probability = (share / time(step)).min(1.0);
                // A probability in [0, 1] is always accepted.
                Binomial::new(left as u64, probability).map_or(0, |count| count.sample(rng) as usize)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn uniform_shares_sum_up_for_any_length_and_number_of_steps() {
        let mut rng = StdRng::seed_from_u64(0);
        for n_open in [0, 1, 2, 7, 100, 1023] {
            for steps in [1, 2, 3, 7, 128, 2000] {
                let mut left = n_open;
                let mut counts = Vec::new();
                for step in 0..steps {
                    let positions = OpenCounts { at_start: n_open, left, reopened: 0 };
                    counts.push(Schedule::Uniform.count(step, steps, positions, &mut rng));
                    left -= counts[step];
                }
                assert_eq!(left, 0, "{n_open} positions in {steps} steps");
                let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                assert!(most - least <= 1, "{n_open} positions in {steps} steps: {counts:?}");
            }
        }
    }

    // The number of decoded positions after each step.
    fn decoded(schedule: Schedule, steps: usize, n_open: usize) -> Vec<usize> {
        let (mut rng, mut decoded) = (StdRng::seed_from_u64(0), 0);
        let count = |step| {
            let positions = OpenCounts { at_start: n_open, left: n_open - decoded, reopened: 0 };
            decoded += schedule.count(step, steps, positions, &mut rng);
            decoded
        };
        (0..steps).map(count).collect()
    }

    #[test]
    fn curves_decode_as_many_positions_as_the_published_samplers() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/schedules.json")).unwrap();
        let numbers = |value: &serde_json::Value| -> Vec<usize> {
            value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap() as usize).collect()
        };
        let mut n_compared = 0;
        for (name, value) in golden.as_object().unwrap() {
            let words: Vec<&str> = name.split('_').collect();
            let [.., steps, grid] = words[..] else { continue };
            let (Ok(steps), Ok(grid)) = (steps.parse::<usize>(), grid.parse::<usize>()) else { continue };
            let n_open = grid * grid;
            if name.starts_with("halton_counts") {
                let after = decoded(Schedule::Curve(Curve::Arccos), steps, n_open);
                let counts: Vec<usize> = (0..steps).map(|i| after[i] - if i == 0 { 0 } else { after[i - 1] }).collect();
                assert_eq!(counts, numbers(value), "{name}");
                n_compared += 1;
            } else if name.starts_with("confidence_schedule") {
                let after = decoded(Schedule::CurveFromZero(words[2].parse().unwrap()), steps, n_open);
                // The sampler decodes one position in a first step that the curve gives none.
                let expected: Vec<usize> = numbers(value).into_iter().map(|count| count.max(1)).collect();
                assert_eq!(after, expected, "{name}");
                n_compared += 1;
            }
        }
        assert_eq!(n_compared, 18);
    }

    #[test]
    fn curves_end_complete_for_any_length_and_number_of_steps() {
        for curve in Curve::NAMES.map(|name| name.parse::<Curve>().unwrap()) {
            for schedule in [Schedule::Curve(curve), Schedule::CurveFromZero(curve)] {
                for n_open in [0, 1, 2, 7, 100, 1023] {
                    for steps in [1, 2, 3, 7, 128, 2000] {
                        let after = decoded(schedule, steps, n_open);
                        assert!(after.is_sorted() && after[steps - 1] == n_open, "{schedule:?} {n_open} {steps}");
                        assert!(n_open == 0 || after[0] > 0, "{schedule:?} {n_open} {steps}");
                    }
                }
            }
        }
        assert!("cosinus".parse::<Curve>().unwrap_err().contains("arccos, cosine, linear, square, root"));
    }

    #[test]
    fn binomial_counts_have_the_expected_mean_and_variance() {
        let mut rng = StdRng::seed_from_u64(1);
        let (steps, n_open, n) = (4, 60, 4000);
        let mut sums = vec![(0.0, 0.0); steps + 1];
        for _ in 0..n {
            let mut left = n_open;
            for (step, sum) in sums.iter_mut().enumerate() {
                let positions = OpenCounts { at_start: n_open, left, reopened: 0 };
                let count = Schedule::Binomial.count(step, steps, positions, &mut rng);
                left -= count;
                sum.0 += count as f64;
                sum.1 += (count * count) as f64;
            }
            assert_eq!(left, 0);
        }
        // Over all steps each position falls into each quarter of the time with probability 1/4.
        for (mean, square) in sums[..steps].iter().map(|(a, b)| (a / f64::from(n), b / f64::from(n))) {
            assert!((mean - 15.0).abs() < 0.25, "{mean}");
            assert!((square - mean * mean - 60.0 * 0.25 * 0.75).abs() < 0.9, "{}", square - mean * mean);
        }
    }

    // The mean number of positions that are open after each step, where each decoded one is reopened before a step with
    // probability `rate`, or less towards the end (the order "remask").
    fn mean_left(schedule: Schedule, steps: usize, n_open: usize, rate: f64) -> Vec<f64> {
        let (n, mut rng) = (400, StdRng::seed_from_u64(2));
        let mut sums = vec![0.0; steps];
        for _ in 0..n {
            let mut left = n_open;
            for (step, sum) in sums.iter_mut().enumerate() {
                let (from, to) = (step as f64 / steps as f64, (step + 1) as f64 / steps as f64);
                let most = if from > 0.0 { (1.0 - to) / from } else { 0.0 };
                let reopened = (left..n_open).filter(|_| rng.random_bool(rate.min(most))).count();
                let count = schedule.count(step, steps, OpenCounts { at_start: n_open, left, reopened }, &mut rng);
                assert!(count <= left);
                left = left + reopened - count;
                *sum += left as f64 / f64::from(n);
            }
        }
        sums
    }

    #[test]
    fn reopened_positions_do_not_delay_a_schedule() {
        for schedule in [Schedule::Uniform, Schedule::Binomial] {
            let left = mean_left(schedule, 32, 128, 0.1);
            for (step, wanted) in [(7, 96.0), (15, 64.0), (27, 16.0), (31, 0.0)] {
                assert!(
                    (left[step] - wanted).abs() < 2.0,
                    "{schedule:?}: {} of {wanted} after step {step}",
                    left[step]
                );
            }
        }
    }
}
