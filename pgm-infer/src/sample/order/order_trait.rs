//! The interface of an order.

use rand::Rng;

use crate::sample::logits::LogitStats;

/// The state of a row that an order sees in a step.
#[derive(Clone, Copy, Debug)]
pub struct OrderContext<'a> {
    /// Tokens of the row, given ones included.
    pub length: usize,
    /// Open positions, ascending; not empty.
    pub open: &'a [usize],
    /// Decoded positions in the order in which they came, given ones left out.
    pub decoded: &'a [usize],
    /// How many positions the schedule wants decoded in this step, at least one; 0 in a call of
    /// [`remask`](Order::remask), which is called before the schedule.
    pub n_to_decode: usize,
    /// Where in the run this step is.
    pub progress: Progress,
}

/// The part of a run that one step covers, as shares of all planned steps in `[0, 1]`.
///
/// Steps that decode nothing count. Steps after the planned ones are all at 1. For an order that
/// [chooses its own count](Order::chooses_count) a step for each open position is planned, and it may need fewer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Share of the steps done before this one.
    pub from: f64,
    /// Share of the steps done after it.
    pub to: f64,
}

/// A token drawn at a candidate position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The position.
    pub position: usize,
    /// The token.
    pub token: u32,
    /// Its log-probability under the model, in nats.
    pub log_probability: f64,
    /// The distribution at the position, if the order [needs](Order::needs_stats) it.
    pub stats: LogitStats,
}

/// Chooses the positions that the steps of one row decode.
///
/// An order starts when the row's [borders](crate::sample::Border) are drawn. It sees them neither as open nor as decoded.
///
/// The random generator passed to its methods is the row's own stream: each draw from it moves the uniforms of the tokens that
/// are drawn later. An order whose randomness must not do that keeps a generator of
/// [`OrderStart::independent_rng`](super::OrderStart::independent_rng).
pub trait Order: Send {
    /// Positions among `context.open` at which this step draws a token, each once and at least one. The network runs at
    /// each of them.
    fn candidates(&mut self, context: &OrderContext<'_>, rng: &mut dyn Rng) -> Vec<usize>;

    /// Indices of the drawn candidates that are decoded, at least one; the default takes all. Positions that are still open
    /// after the last planned step are decoded in further steps.
    fn select(&mut self, context: &OrderContext<'_>, drawn: &[Candidate]) -> Vec<usize> {
        let _ = context;
        (0..drawn.len()).collect()
    }

    /// Positions among `context.decoded` that are opened again before a step; the default opens none. They are candidates from
    /// the next step on. Not called after the last planned step.
    fn remask(&mut self, context: &OrderContext<'_>, rng: &mut dyn Rng) -> Vec<usize> {
        let _ = (context, rng);
        Vec::new()
    }

    /// Whether [`select`](Self::select) reads [`Candidate::stats`]. Called once, before the first step.
    fn needs_stats(&self) -> bool {
        false
    }

    /// Whether the order decides how many positions a step decodes; the number of steps in the settings then has no
    /// effect. Called once, before the first step.
    fn chooses_count(&self) -> bool {
        false
    }
}
