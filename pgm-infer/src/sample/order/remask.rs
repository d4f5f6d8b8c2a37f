//! A uniform order that opens decoded positions again (ReMDM, arXiv 2503.00307).

use rand::{Rng, RngExt};

use super::candidates::draw_positions;
use super::order_trait::{Order, OrderContext};

/// Decodes random positions and reopens each decoded one before a step with probability `rate` at most.
pub(super) struct Remask {
    pub(super) rate: f64,
}

impl Order for Remask {
    fn candidates(&mut self, context: &OrderContext<'_>, rng: &mut dyn Rng) -> Vec<usize> {
        draw_positions(context.open, context.n_to_decode, rng)
    }

    // The decoded share must be able to grow to `to`: a position may be reopened only if another can be decoded for it.
    fn remask(&mut self, context: &OrderContext<'_>, rng: &mut dyn Rng) -> Vec<usize> {
        let progress = context.progress;
        let most = if progress.from > 0.0 { (1.0 - progress.to) / progress.from } else { 0.0 };
        let probability = self.rate.min(most).clamp(0.0, 1.0);
        context.decoded.iter().copied().filter(|_| rng.random_bool(probability)).collect()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::order_trait::Progress;
    use super::super::tests::context;
    use super::*;

    #[test]
    fn positions_are_reopened_at_the_rate_and_not_at_the_end() {
        let mut rng = StdRng::seed_from_u64(4);
        let decoded: Vec<usize> = (0..20_000).collect();
        let mut order = Remask { rate: 0.05 };
        let mut reopened = |from, to| {
            let context = OrderContext { progress: Progress { from, to }, ..context(&[20_000], &decoded, 0) };
            order.remask(&context, &mut rng).len()
        };
        assert_eq!(reopened(0.0, 0.1), 0);
        let n = reopened(0.5, 0.6);
        assert!((900..1100).contains(&n), "{n}");
        assert_eq!(reopened(0.9, 1.0), 0);
    }
}
