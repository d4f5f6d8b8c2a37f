//! The public samplers of images as they are, for comparison with their results.
//!
//! | sampler | what it does otherwise |
//! |---|---|
//! | partition, Halton | nothing sees the newest code in the step after it was drawn, if the model has registers |
//! | partition, confidence | the same; dropout is on; the mask and BOS may be drawn; after its first step it is one code ahead of its curve |
//! | MaskGIT, Halton | every earlier code is drawn again in every step, and the mask may be drawn |
//! | MaskGIT, confidence | the same, and where the mask was drawn the position is open again; after step i at least i + 1 codes are drawn |
//!
//! Drawn tokens that are no codes are read as the last code at the end.

use rand::Rng;

use crate::sample::draw::DrawSettings;
use crate::sample::schedule::{OpenCounts, Schedule};

/// One of the public samplers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishedSampler {
    /// Of a partition model, in Halton's order.
    PartitionHalton,
    /// Of a partition model, in the order of confidence.
    PartitionConfidence,
    /// Of MaskGIT, in Halton's order.
    MaskGitHalton,
    /// Of MaskGIT, in the order of confidence.
    MaskGitConfidence,
}

/// How a row is sampled as a public sampler does it. The temperature and the weight of a class are settings of the row; see
/// [`ImageOverrides`](crate::settings::ImageOverrides).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsPublished {
    /// The sampler.
    pub sampler: PublishedSampler,
    /// Whether the model has registers, which the samplers of partition models miscount.
    pub has_registers: bool,
    /// The mask's token; codes are below it.
    pub mask: u32,
    /// Steps at the beginning in which the logits are halved.
    pub warm_up: usize,
}

/// What the network does otherwise for a row of a public sampler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkQuirks {
    /// Nothing sees the newest token.
    pub hides_newest: bool,
    /// Dropout is on, with this seed.
    pub dropout: Option<u64>,
}

impl AsPublished {
    /// What the network does otherwise in step `step` (from 0) of the row with this seed.
    pub(super) fn network(&self, seed: u64, step: usize) -> NetworkQuirks {
        let is_partition =
            matches!(self.sampler, PublishedSampler::PartitionHalton | PublishedSampler::PartitionConfidence);
        // Neighbouring seeds and steps get seeds of their own.
        let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (step as u64).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let dropout = (self.sampler == PublishedSampler::PartitionConfidence).then_some(seed);
        NetworkQuirks { hides_newest: is_partition && self.has_registers, dropout }
    }

    /// Whether every decoded code is drawn again in every step.
    pub(super) fn redraws(&self) -> bool {
        matches!(self.sampler, PublishedSampler::MaskGitHalton | PublishedSampler::MaskGitConfidence)
    }

    /// Whether tokens that are no codes may be drawn.
    pub(super) fn draws_any_token(&self) -> bool {
        self.sampler != PublishedSampler::PartitionHalton
    }

    /// Whether a position at which this token was drawn is open afterwards, but for the last step.
    pub(super) fn leaves_open(&self, token: u32) -> bool {
        self.sampler == PublishedSampler::MaskGitConfidence && token == self.mask
    }

    /// Whether the codes of a step come in the order of their positions, so that the newest is the last of them.
    pub(super) fn sorts_positions(&self) -> bool {
        self.sampler == PublishedSampler::PartitionConfidence
    }

    /// The code that a token is read as.
    pub(crate) fn code(&self, token: u32) -> u32 {
        token.min(self.mask.saturating_sub(1))
    }

    /// How tokens are drawn in step `step` (from 0).
    pub(super) fn draw(&self, draw: DrawSettings, step: usize) -> DrawSettings {
        let factor = if step < self.warm_up { 2.0 } else { 1.0 };
        DrawSettings { temperature: factor * draw.temperature, ..draw }
    }

    /// As [`Schedule::count`]. The samplers by confidence do not follow their curve exactly.
    pub(super) fn count(
        &self,
        schedule: Schedule,
        (step, steps): (usize, usize),
        positions: OpenCounts,
        rng: &mut impl Rng,
    ) -> usize {
        let Schedule::CurveFromZero(curve) = schedule else { return schedule.count(step, steps, positions, rng) };
        let OpenCounts { at_start: n_open, left: n_left, .. } = positions;
        if step + 1 >= steps {
            return n_left;
        }
        let of_curve = (curve.share(step as f64 / (steps - 1) as f64) * n_open as f64).floor() as usize;
        let target = match self.sampler {
            PublishedSampler::PartitionHalton | PublishedSampler::PartitionConfidence => of_curve + 1,
            PublishedSampler::MaskGitHalton | PublishedSampler::MaskGitConfidence => of_curve.max(step + 1),
        };
        target.min(n_open).saturating_sub(n_open - n_left)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;
    use crate::sample::schedule::Curve;

    fn of(sampler: PublishedSampler) -> AsPublished {
        AsPublished { sampler, has_registers: true, mask: 7, warm_up: 1 }
    }

    #[test]
    fn the_samplers_by_confidence_are_ahead_of_their_curve() {
        let decoded = |sampler, steps, n_open| {
            let (mut rng, mut decoded) = (StdRng::seed_from_u64(0), 0);
            let count = |step| {
                let left = OpenCounts { at_start: n_open, left: n_open - decoded, reopened: 0 };
                decoded += of(sampler).count(Schedule::CurveFromZero(Curve::Square), (step, steps), left, &mut rng);
                decoded
            };
            (0..steps).map(count).collect::<Vec<usize>>()
        };
        // 20 (i / 5)^2, rounded down, is 0, 0, 3, 7, 12, 20.
        assert_eq!(decoded(PublishedSampler::PartitionConfidence, 6, 20), [1, 1, 4, 8, 13, 20]);
        assert_eq!(decoded(PublishedSampler::MaskGitConfidence, 6, 20), [1, 2, 3, 7, 12, 20]);
        assert_eq!(decoded(PublishedSampler::MaskGitConfidence, 6, 3), [1, 2, 3, 3, 3, 3]);
        assert_eq!(decoded(PublishedSampler::PartitionConfidence, 1, 3), [3]);
        let (mut rng, curve) = (StdRng::seed_from_u64(0), Schedule::Curve(Curve::Arccos));
        let left = OpenCounts { at_start: 40, left: 30, reopened: 0 };
        let count = of(PublishedSampler::MaskGitHalton).count(curve, (2, 8), left, &mut rng);
        assert_eq!(count, curve.count(2, 8, left, &mut rng));
    }

    #[test]
    fn only_partition_models_hide_a_token_and_only_their_confidence_has_dropout() {
        let quirks = |sampler| of(sampler).network(5, 2);
        assert_eq!(quirks(PublishedSampler::MaskGitHalton), NetworkQuirks::default());
        assert_eq!(quirks(PublishedSampler::MaskGitConfidence), NetworkQuirks::default());
        let halton = quirks(PublishedSampler::PartitionHalton);
        assert_eq!(halton, NetworkQuirks { hides_newest: true, dropout: None });
        let confidence = of(PublishedSampler::PartitionConfidence);
        let mut seeds: Vec<u64> =
            (0..4).flat_map(|seed| (0..4).filter_map(move |step| confidence.network(seed, step).dropout)).collect();
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 16);
        let plain = AsPublished { has_registers: false, ..of(PublishedSampler::PartitionHalton) };
        assert_eq!(plain.network(5, 2), NetworkQuirks::default());
    }

    #[test]
    fn the_warm_up_halves_the_logits_of_the_first_steps() {
        let draw = DrawSettings { temperature: 0.8, top_k: 3, ..DrawSettings::default() };
        let published = of(PublishedSampler::MaskGitHalton);
        assert_eq!(published.draw(draw, 0), DrawSettings { temperature: 1.6, ..draw });
        assert_eq!(published.draw(draw, 1), draw);
        assert_eq!([6, 7, 8].map(|token| published.code(token)), [6, 6, 6]);
    }
}
