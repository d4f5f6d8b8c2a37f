//! The candidates of orders that look at logits: which open positions they consider.

use rand::{Rng, seq::index};
use serde::{Deserialize, Serialize};

use super::order_trait::{Candidate, OrderContext};

/// How many open positions an order that looks at logits considers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CandidateLimit {
    /// All of them.
    #[default]
    All,
    /// This many, drawn anew for each step, and never fewer than the step decodes.
    Some(usize),
}

impl CandidateLimit {
    pub(super) fn positions(self, context: &OrderContext<'_>, rng: &mut dyn Rng) -> Vec<usize> {
        match self {
            Self::All => context.open.to_vec(),
            Self::Some(n) => draw_positions(context.open, n.max(context.n_to_decode), rng),
        }
    }
}

/// `n` of the open positions without replacement, or all of them if there are no more.
pub(super) fn draw_positions(open: &[usize], n: usize, rng: &mut dyn Rng) -> Vec<usize> {
    if n >= open.len() {
        return open.to_vec();
    }
    index::sample(rng, open.len(), n).into_iter().map(|index| open[index]).collect()
}

/// Indices of the candidates, the largest score first. Equal scores are sorted by position, so that the sequence of the
/// candidates does not matter.
pub(super) fn rank(drawn: &[Candidate], score: impl Fn(&Candidate) -> f64) -> Vec<usize> {
    let mut ranking: Vec<usize> = (0..drawn.len()).collect();
    let key = |index: usize| (score(&drawn[index]), drawn[index].position);
    ranking.sort_by(|&a, &b| key(b).0.total_cmp(&key(a).0).then(key(a).1.cmp(&key(b).1)));
    ranking
}
