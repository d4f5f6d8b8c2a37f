//! What a row gives: all of it, and what a step changes.

use crate::sample::logits::Alternatives;

/// One sampled row.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledRow {
    /// All tokens, by position. Open positions of a run that was stopped hold the mask.
    pub tokens: Vec<u32>,
    /// Decoded positions in the order in which they came.
    pub order: Vec<usize>,
    /// Log-probability of each decoded token when it was drawn, in nats, in that order.
    pub log_probabilities: Vec<f64>,
    /// Distance of each draw's uniform from the nearest boundary of its token's share of the cumulative distribution (at
    /// temperature 0: one minus the ratio of the second-best probability to the best). Below 1e-5 rounding may decide.
    pub margins: Vec<f64>,
    /// The most probable tokens at each of these positions with their log-probabilities, best first. Empty unless
    /// [`SampleSettings::alternatives`](crate::SampleSettings::alternatives) asks for them.
    pub alternatives: Vec<Alternatives>,
    /// Whether every position is decoded.
    pub complete: bool,
}

/// The changes of one row in a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowChange {
    /// Decoded positions and their tokens; a position whose token was drawn again and is another stands here again.
    pub decoded: Vec<(usize, u32)>,
    /// Log-probabilities of these tokens, in nats.
    pub log_probabilities: Vec<f64>,
    /// The most probable tokens at these positions, best first, if the settings ask for them.
    pub alternatives: Vec<Alternatives>,
    /// Positions that were opened again before the step, or by a public sampler in it; none of them is decoded in it.
    pub forgotten: Vec<usize>,
}
