//! The order of an autoregressive network.

use rand::Rng;

use super::order_trait::{Order, OrderContext};

/// Decodes the first open position, one per step.
pub(crate) struct LeftToRight;

impl Order for LeftToRight {
    fn candidates(&mut self, context: &OrderContext<'_>, _rng: &mut dyn Rng) -> Vec<usize> {
        context.open.first().copied().into_iter().collect()
    }

    fn chooses_count(&self) -> bool {
        true
    }
}
