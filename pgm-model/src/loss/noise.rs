//! Noise schedules: how much is masked at a time, and with which weight a token then counts.

use serde::{Deserialize, Serialize};

/// The smallest time, and alpha at t = 1: `alpha_t = 1 - (1 - EPS) t`, so that some signal is always left.
pub const EPS: f64 = 1e-3;

/// How the share `alpha_t` of clean tokens falls with the time t.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseSchedule {
    /// `alpha_t = 1 - (1 - EPS) t`. "Log-linear" is MDLM's name: the total noise `-ln alpha_t` makes the share linear.
    #[default]
    LogLinear,
}

impl NoiseSchedule {
    /// Probability that a token is masked (falls into group 1) at time `t`: `1 - alpha_t`.
    pub fn masked_probability(self, t: f64) -> f64 {
        match self {
            Self::LogLinear => (1.0 - EPS) * t,
        }
    }

    /// Weight of a masked token, a token of group 1: `w(t) = -alpha'_t / (1 - alpha_t)`.
    pub fn masked_weight(self, t: f64) -> f64 {
        match self {
            Self::LogLinear => 1.0 / t,
        }
    }

    /// Weight of a token of group 0: `w(1 - t)`, where `1 - t` is at least `floor`. With floor 0 it has no bound, as in the
    /// public code.
    pub fn unmasked_weight(self, t: f64, floor: f64) -> f64 {
        self.masked_weight((1.0 - t).max(floor))
    }

    /// Antithetic times of a batch of `n` rows from `n` uniforms: one in each of `n` equal parts of `[EPS, 1]`.
    ///
    /// `n` must be the whole optimiser batch, not a micro-batch of it.
    pub fn antithetic_times(self, uniforms: &[f64]) -> Vec<f64> {
        let Self::LogLinear = self;
        let n = uniforms.len() as f64;
        let spread = |(index, u): (usize, &f64)| EPS + (1.0 - EPS) * ((u / n + index as f64 / n) % 1.0);
        uniforms.iter().enumerate().map(spread).collect()
    }

    /// The weights of one row in the partition objective, `weight / 2` for each token.
    pub fn partition_weights(self, t: f64, in_group_one: &[bool], floor: f64) -> Vec<f64> {
        let [zero, one] = [self.unmasked_weight(t, floor) / 2.0, self.masked_weight(t) / 2.0];
        in_group_one.iter().map(|&in_group_one| if in_group_one { one } else { zero }).collect()
    }

    /// The weights of one row in MDLM's NELBO: `w(t)` for masked tokens, 0 for the others. It is the masked model's training
    /// loss and the validation loss of both models.
    pub fn nelbo_weights(self, t: f64, in_group_one: &[bool]) -> Vec<f64> {
        let one = self.masked_weight(t);
        in_group_one.iter().map(|&in_group_one| if in_group_one { one } else { 0.0 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG_LINEAR: NoiseSchedule = NoiseSchedule::LogLinear;

    #[test]
    fn antithetic_times_fill_every_stratum_once() {
        let times = LOG_LINEAR.antithetic_times(&[0.9, 0.1, 0.5, 0.999]);
        for (index, t) in times.iter().enumerate() {
            let unit = (t - EPS) / (1.0 - EPS);
            assert!((index as f64 / 4.0..(index + 1) as f64 / 4.0).contains(&unit), "{t}");
        }
    }

    #[test]
    fn weights_are_bounded_by_the_floor_and_only_by_it() {
        assert_eq!(LOG_LINEAR.unmasked_weight(1.0, EPS), 1000.0);
        assert_eq!(LOG_LINEAR.unmasked_weight(1.0, 0.0), f64::INFINITY);
        assert_eq!(LOG_LINEAR.unmasked_weight(0.25, EPS), 1.0 / 0.75);
        assert_eq!(LOG_LINEAR.partition_weights(0.25, &[true, false], EPS), [2.0, 0.5 / 0.75]);
        assert_eq!(LOG_LINEAR.nelbo_weights(0.25, &[true, false]), [4.0, 0.0]);
    }

    #[test]
    fn the_weight_is_the_slope_of_the_masked_share_over_the_share() {
        for t in [0.01, 0.3, 0.99] {
            let share = |t| LOG_LINEAR.masked_probability(t);
            let slope = (share(t + 1e-6) - share(t - 1e-6)) / 2e-6;
            assert!((LOG_LINEAR.masked_weight(t) - slope / share(t)).abs() < 1e-6 / t);
        }
    }
}
