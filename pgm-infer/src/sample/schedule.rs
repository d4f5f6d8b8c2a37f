//! How many positions each step decodes.

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
}

/// Time at which the binomial schedule stops; positions that are open then are decoded at once.
const LAST_TIME: f64 = 1e-5;

impl Schedule {
    /// Steps in all for a setting of `steps`.
    pub fn n_steps(self, steps: usize) -> usize {
        match self {
            Self::Uniform => steps,
            Self::Binomial => steps + 1,
        }
    }

    /// Positions that step `step` (from 0) of `steps` decodes: all that are left from the last step on. `n_open` positions
    /// were open at the start, `n_left` are open now.
    pub fn count(self, step: usize, steps: usize, n_open: usize, n_left: usize, rng: &mut impl Rng) -> usize {
        match self {
            Self::Uniform => {
                let decoded = n_open - n_left;
                let wanted = (n_open as f64 * (step + 1) as f64 / steps as f64).round() as usize;
                // A custom order may be ahead of the schedule.
                wanted.min(n_open).saturating_sub(decoded)
            }
            Self::Binomial if step >= steps => n_left,
            Self::Binomial => {
                let time = |step: usize| 1.0 - (1.0 - LAST_TIME) * step as f64 / steps as f64;
                let probability = (time(step) - time(step + 1)) / time(step);
                // A probability in (0, 1) is always accepted.
                Binomial::new(n_left as u64, probability).map_or(0, |count| count.sample(rng) as usize)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn uniform_shares_sum_up_for_any_length_and_number_of_steps() {
        let mut rng = StdRng::seed_from_u64(0);
        for n_open in [0, 1, 2, 7, 100, 1023] {
            for steps in [1, 2, 3, 7, 128, 2000] {
                let mut left = n_open;
                let mut counts = Vec::new();
                for step in 0..steps {
                    counts.push(Schedule::Uniform.count(step, steps, n_open, left, &mut rng));
                    left -= counts[step];
                }
                assert_eq!(left, 0, "{n_open} positions in {steps} steps");
                let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                assert!(most - least <= 1, "{n_open} positions in {steps} steps: {counts:?}");
            }
        }
    }

    #[test]
    fn binomial_counts_have_the_expected_mean_and_variance() {
        let mut rng = StdRng::seed_from_u64(1);
        let (steps, n_open, n) = (4, 60, 4000);
        let mut sums = vec![(0.0, 0.0); steps + 1];
        for _ in 0..n {
            let mut left = n_open;
            for (step, sum) in sums.iter_mut().enumerate() {
                let count = Schedule::Binomial.count(step, steps, n_open, left, &mut rng);
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
}
