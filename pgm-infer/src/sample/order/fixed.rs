//! Orders that are fixed before the first step: uniform, sequential, low-discrepancy, dilated.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

use super::order_trait::{Order, OrderContext};

/// A queue of positions, taken from its end.
pub(super) struct FixedOrder(Vec<usize>);

impl FixedOrder {
    /// A random permutation.
    pub(super) fn uniform(open: &[usize], rng: &mut dyn Rng) -> Self {
        let mut queue = open.to_vec();
        queue.shuffle(rng);
        Self(queue)
    }

    /// Left to right.
    pub(super) fn sequential(open: &[usize]) -> Self {
        Self(open.iter().rev().copied().collect())
    }

    /// Van der Corput's sequence from a random start.
    pub(super) fn low_discrepancy(open: &[usize], rng: &mut dyn Rng) -> Self {
        let n = open.len();
        let start = rng.random::<f64>();
        let mut taken = vec![false; n];
        let mut queue = Vec::with_capacity(n);
        // The first 2^m points, 2^m >= n, hit each of n equal cells.
        for k in 0..(n as u64).next_power_of_two() {
            let point = (van_der_corput(k) + start).fract();
            let cell = ((point * n as f64) as usize).min(n.saturating_sub(1));
            if n > 0 && !std::mem::replace(&mut taken[cell], true) {
                queue.push(open[cell]);
            }
        }
        queue.extend((0..n).filter(|&cell| !taken[cell]).map(|cell| open[cell]));
        queue.reverse();
        Self(queue)
    }

    /// Every 2^k-th position, then the positions between, in random order within a level.
    pub(super) fn dilated(open: &[usize], rng: &mut dyn Rng) -> Self {
        let mut order: Vec<usize> = (0..open.len()).collect();
        order.shuffle(rng);
        // Coarse levels last: the queue is taken from its end.
        order.sort_by_key(|&index| if index == 0 { u32::MAX } else { index.trailing_zeros() });
        Self(order.into_iter().map(|index| open[index]).collect())
    }
}

// The k-th point of the sequence, in [0, 1).
fn van_der_corput(k: u64) -> f64 {
    k.reverse_bits() as f64 / 2.0_f64.powi(64)
}

impl Order for FixedOrder {
    fn candidates(&mut self, context: &OrderContext<'_>, _rng: &mut dyn Rng) -> Vec<usize> {
        self.0.split_off(self.0.len() - context.n_to_decode.min(self.0.len()))
    }
}
