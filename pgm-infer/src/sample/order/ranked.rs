//! Orders that draw at many positions and decode the best of them: confidence, margin, entropy.

use rand::Rng;

use super::candidates::{CandidateLimit, rank};
use super::order_trait::{Candidate, Order, OrderContext};

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
}

impl Order for RankedOrder {
    fn candidates(&mut self, context: &OrderContext<'_>, rng: &mut dyn Rng) -> Vec<usize> {
        self.limit.positions(context, rng)
    }

    fn select(&mut self, context: &OrderContext<'_>, drawn: &[Candidate]) -> Vec<usize> {
        let mut ranking = rank(drawn, |candidate| match self.score {
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
