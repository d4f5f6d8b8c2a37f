//! What a row asks of a step's network evaluation.

use crate::sample::border::BorderQuery;
use crate::sample::order::Progress;

/// The beginning of a row's step: where its network evaluation needs logits.
#[derive(Clone, Debug)]
pub struct RowStep {
    /// Candidate positions, then those that are drawn again; empty when nothing is drawn, which needs no evaluation.
    pub positions: Vec<usize>,
    /// For each candidate, the uniform number in `[0, 1)` that decides its token.
    pub uniforms: Vec<f64>,
    /// Positions that were opened again.
    pub forgotten: Vec<usize>,
    pub(super) n_to_decode: usize,
    pub(super) progress: Progress,
    // A step of the borders reads these instead.
    pub(super) border_queries: Vec<BorderQuery>,
    pub(super) guidance_weight: f64,
}
