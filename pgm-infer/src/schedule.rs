//! How many positions each step decodes.

use rand::Rng;
use rand_distr::{Binomial, Distribution};

/// The law of the number of positions a step decodes in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Equal shares: after step i of n, `round(open * i / n)` positions are decoded (the paper's Algorithm 2). Any
    /// length, any number of steps.
    #[default]
    Uniform,
    /// Each open position is decoded in the step from time t to s with probability `(t - s) / t`, as in MDLM's
    /// ancestral sampler (the paper's Algorithms 3-5). What is left at the end takes one more evaluation.
    Binomial,
}

/// Time at which the binomial schedule stops; what is open then is decoded at once.
const LAST_TIME: f64 = 1e-5;

impl Schedule {
    /// Steps that may decode something, when `steps` are asked for.
    pub fn n_steps(self, steps: usize) -> usize {
        match self {
            Self::Uniform => steps,
            Self::Binomial => steps + 1,
        }
    }

    /// Positions that step `step` (from 0) of `steps` decodes, of `n_left` left of `n_open` at the start.
    pub fn count(self, step: usize, steps: usize, n_open: usize, n_left: usize, rng: &mut impl Rng) -> usize {
        match self {
            Self::Uniform => {
                let decoded = n_open - n_left;
                let due = (n_open as f64 * (step + 1) as f64 / steps as f64).round() as usize;
                // An order of one's own may be ahead.
                due.min(n_open).saturating_sub(decoded)
            }
            Self::Binomial if step == steps => n_left,
            Self::Binomial => {
                let time = |step: usize| 1.0 - (1.0 - LAST_TIME) * step as f64 / steps as f64;
                let probability = (time(step) - time(step + 1)) / time(step);
                // A probability in (0, 1) is always accepted.
                Binomial::new(n_left as u64, probability).map_or(0, |law| law.sample(rng) as usize)
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
    fn binomial_counts_have_the_laws_mean_and_variance() {
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
