//! How the tokens of a training row are divided into the two groups.

use std::f64::consts::FRAC_PI_2;

use serde::{Deserialize, Serialize};

use super::noise::NoiseSchedule;

/// The distribution of the groups of a training row.
///
/// A row has a number, its *level*. Given the level, each token is in group 1 with the same probability, independently of the
/// others. Either group may be empty.
///
/// | distribution | level of a row | probability of group 1 | the first token | loss |
/// |---|---|---|---|---|
/// | [`Noise`](Self::Noise), text | the time t, antithetic over the batch | `1 - alpha_t` | as the others | weighted by the level |
/// | [`Arccos`](Self::Arccos), images | r, uniform in `[0, 1)` | `arccos(r) / (pi / 2)` | BOS, always in group 0 | unweighted |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupDistribution {
    /// From a noise schedule, as the text models are trained.
    Noise(NoiseSchedule),
    /// The arccos of a uniform number, as the image models and MaskGIT are trained. On average 2/pi = 64 % of the tokens are
    /// in group 1.
    Arccos,
}

impl Default for GroupDistribution {
    fn default() -> Self {
        Self::Noise(NoiseSchedule::default())
    }
}

impl GroupDistribution {
    /// The levels of a batch of `n` rows from `n` uniforms in `[0, 1)`.
    ///
    /// `n` must be the whole optimiser batch, not a micro-batch of it.
    pub fn levels(self, uniforms: &[f64]) -> Vec<f64> {
        match self {
            Self::Noise(schedule) => schedule.antithetic_times(uniforms),
            Self::Arccos => uniforms.to_vec(),
        }
    }

    /// Probability of group 1 for a token of a row of this level.
    pub fn probability(self, level: f64) -> f64 {
        match self {
            Self::Noise(schedule) => schedule.masked_probability(level),
            Self::Arccos => level.acos() / FRAC_PI_2,
        }
    }

    /// Whether each of `length` tokens is in group 1. `uniform` gives a number in `[0, 1)` and is called once for each token.
    pub fn groups(self, level: f64, length: usize, mut uniform: impl FnMut() -> f64) -> Vec<bool> {
        let probability = self.probability(level);
        let mut in_group_one: Vec<bool> = (0..length).map(|_| uniform() < probability).collect();
        if let (Self::Arccos, Some(bos)) = (self, in_group_one.first_mut()) {
            *bos = false;
        }
        in_group_one
    }

    /// The weights of one row's tokens in the partition objective; `floor` as in
    /// [`NoiseSchedule::unmasked_weight`]. The images' loss is the plain cross-entropy of both groups.
    pub fn partition_weights(self, level: f64, in_group_one: &[bool], floor: f64) -> Vec<f64> {
        match self {
            Self::Noise(schedule) => schedule.partition_weights(level, in_group_one, floor),
            Self::Arccos => vec![1.0; in_group_one.len()],
        }
    }

    /// The weights of one row's tokens in the loss of a masked model, which predicts group 1 alone: MDLM's NELBO, and
    /// MaskGIT's plain cross-entropy.
    pub fn masked_weights(self, level: f64, in_group_one: &[bool]) -> Vec<f64> {
        match self {
            Self::Noise(schedule) => schedule.nelbo_weights(level, in_group_one),
            Self::Arccos => in_group_one.iter().map(|&in_group_one| f64::from(u8::from(in_group_one))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    const LENGTH: usize = 65;

    // The share of group 1 among the tokens after BOS, for each of many rows.
    fn shares(distribution: GroupDistribution, n_rows: usize) -> Vec<f64> {
        let mut rng = StdRng::seed_from_u64(11);
        let uniforms: Vec<f64> = (0..n_rows).map(|_| rng.random()).collect();
        let mut share = |level: f64| {
            let groups = distribution.groups(level, LENGTH, || rng.random());
            groups[1..].iter().filter(|&&in_group_one| in_group_one).count() as f64 / (LENGTH - 1) as f64
        };
        distribution.levels(&uniforms).into_iter().map(&mut share).collect()
    }

    fn mean_and_variance(values: &[f64]) -> (f64, f64) {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        (mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n)
    }

    #[test]
    fn images_have_two_in_pi_of_their_tokens_in_group_one_and_rows_differ_as_the_arccos_does() {
        let (mean, variance) = mean_and_variance(&shares(GroupDistribution::Arccos, 20_000));
        // The standard error of the mean is 0.0017.
        assert!((mean - 2.0 / PI).abs() < 0.006, "{mean}");
        // Between rows: Var(arccos r) = pi - 3 over (pi / 2)^2. Within a row: E[p (1 - p)] / n, with E[p^2] = 4 (pi - 2) / pi^2.
        let between = (PI - 3.0) / FRAC_PI_2.powi(2);
        let within = (2.0 / PI - 4.0 * (PI - 2.0) / (PI * PI)) / (LENGTH - 1) as f64;
        assert!((variance - between - within).abs() < 0.002, "{variance} against {}", between + within);
    }

    #[test]
    fn tokens_of_an_image_are_independent_given_their_row() {
        // At r = 1/2 the probability is 2/3; the count of a row has the variance of a binomial.
        assert!((GroupDistribution::Arccos.probability(0.5) - 2.0 / 3.0).abs() < 1e-12);
        let mut rng = StdRng::seed_from_u64(3);
        let mut count = || {
            let groups = GroupDistribution::Arccos.groups(0.5, LENGTH, || rng.random());
            assert!(!groups[0], "BOS is in group 0");
            groups.iter().filter(|&&in_group_one| in_group_one).count() as f64
        };
        let counts: Vec<f64> = (0..20_000).map(|_| count()).collect();
        let (mean, variance) = mean_and_variance(&counts);
        let n = (LENGTH - 1) as f64;
        assert!((mean - n * 2.0 / 3.0).abs() < 0.11, "{mean}");
        assert!((variance - n * 2.0 / 9.0).abs() < 0.6, "{variance}");
        let all = GroupDistribution::Arccos.groups(0.0, LENGTH, || 0.999_999);
        assert!(all[1..].iter().all(|&in_group_one| in_group_one), "r = 0 puts all others into group 1");
    }

    #[test]
    fn text_has_half_of_its_tokens_in_group_one_on_average() {
        let (mean, variance) = mean_and_variance(&shares(GroupDistribution::default(), 20_000));
        assert!((mean - 0.5).abs() < 0.002, "times are antithetic: {mean}");
        // A uniform level, and E[p (1 - p)] / n = 1 / 6n within a row.
        assert!((variance - 1.0 / 12.0 - 1.0 / 384.0).abs() < 0.003, "{variance}");
    }

    #[test]
    fn a_uniform_is_drawn_for_every_token_and_weights_follow_the_distribution() {
        for distribution in [GroupDistribution::default(), GroupDistribution::Arccos] {
            let mut n_drawn = 0;
            let groups = distribution.groups(0.25, 7, || {
                n_drawn += 1;
                0.0
            });
            assert_eq!((groups.len(), n_drawn), (7, 7));
            assert!(distribution.groups(0.25, 0, || 0.5).is_empty());
        }
        let text = GroupDistribution::default();
        assert_eq!(text.partition_weights(0.25, &[true, false], 0.0), [2.0, 0.5 / 0.75]);
        assert_eq!(GroupDistribution::Arccos.partition_weights(0.25, &[true, false], 0.0), [1.0, 1.0]);
        assert_eq!(text.masked_weights(0.25, &[true, false]), [4.0, 0.0]);
        assert_eq!(GroupDistribution::Arccos.masked_weights(0.25, &[true, false]), [1.0, 0.0]);
    }
}
