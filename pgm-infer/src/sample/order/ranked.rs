//! Orders that draw at many positions and decode the best of them: confidence, margin, entropy.

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

use super::candidates::{CandidateLimit, rank};
use super::order_trait::{Candidate, Order, OrderContext, Progress};

/// The score by which a [`RankedOrder`] sorts its candidates.
#[derive(Clone, Copy)]
pub(super) enum Score {
    /// Probability of the drawn token.
    Confidence,
    /// Probability of the best token less that of the second.
    Margin,
    /// Small entropy.
    Entropy,
}

/// Decodes the candidates of the highest score.
pub(super) struct RankedOrder {
    pub(super) score: Score,
    pub(super) limit: CandidateLimit,
    /// Noise on the log-probabilities by which [`Score::Confidence`] sorts.
    pub(super) noise: Option<AnnealedNoise>,
}

/// Gumbel noise that falls linearly to 0 from the first step to the last.
pub(super) struct AnnealedNoise {
    pub(super) scale: f64,
    pub(super) rng: ChaCha8Rng,
}

impl AnnealedNoise {
    // `log p + scale * Gumbel * (1 - i / (n - 1))` in step i of n.
    fn add(&mut self, progress: Progress, drawn: &[Candidate]) -> Vec<Candidate> {
        // All steps but one, as a share of all.
        let others = 1.0 - (progress.to - progress.from);
        let done = if others > 0.0 { (progress.from / others).min(1.0) } else { 0.0 };
        let scale = self.scale * (1.0 - done);
        let mut noisy = |candidate: &Candidate| {
            let gumbel = -(-self.rng.random::<f64>().ln()).ln();
            let noise = if scale > 0.0 { scale * gumbel } else { 0.0 };
            Candidate { log_probability: candidate.log_probability + noise, ..*candidate }
        };
        drawn.iter().map(&mut noisy).collect()
    }
}

impl Order for RankedOrder {
    fn candidates(&mut self, context: &OrderContext<'_>, rng: &mut dyn Rng) -> Vec<usize> {
        self.limit.positions(context, rng)
    }

    fn select(&mut self, context: &OrderContext<'_>, drawn: &[Candidate]) -> Vec<usize> {
        let noisy = self.noise.as_mut().map(|noise| noise.add(context.progress, drawn));
        let mut ranking = rank(noisy.as_deref().unwrap_or(drawn), |candidate| match self.score {
            Score::Confidence => candidate.log_probability,
            Score::Margin => candidate.stats.margin,
            Score::Entropy => -candidate.stats.entropy,
        });
        ranking.truncate(context.n_to_decode);
        ranking
    }

    fn needs_stats(&self) -> bool {
        !matches!(self.score, Score::Confidence)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::super::tests::{candidates, context};
    use super::*;

    #[test]
    fn noise_moves_the_ranking_at_first_and_not_in_the_last_step() {
        let drawn = candidates(&[0.1, 0.2, 0.3, 0.4]);
        let first = |from: f64, scale: f64, seed: u64| {
            let noise = Some(AnnealedNoise { scale, rng: ChaCha8Rng::seed_from_u64(seed) });
            let mut order = RankedOrder { score: Score::Confidence, limit: CandidateLimit::All, noise };
            let progress = Progress { from, to: from + 0.25 };
            order.select(&OrderContext { progress, ..context(&[0, 1, 2, 3], &[], 1) }, &drawn)[0]
        };
        // At scale 1 the drawn token of probability p wins with probability p / sum p: the Gumbel trick.
        let n = 4000;
        let wins = (0..n).filter(|&seed| first(0.0, 1.0, seed) == 0).count() as f64;
        let expected = 1.0 / [0.0_f64, -0.1, -0.2, -0.3].map(f64::exp).iter().sum::<f64>();
        assert!((wins / n as f64 - expected).abs() < 0.03, "{wins} of {n}, {expected}");
        assert!((0..50).all(|seed| first(0.75, 9.0, seed) == 0), "the last of four steps has no noise");
        let halfway = (0..n).filter(|&seed| first(0.5, 1.0, seed) == 0).count();
        assert!(halfway as f64 > 1.1 * wins, "the noise falls: {halfway}");
    }
}
