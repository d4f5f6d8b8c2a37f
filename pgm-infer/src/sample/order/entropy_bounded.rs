//! As many positions per step as an entropy bound allows (EB-Sampler, arXiv 2505.24857).

use rand::Rng;

use super::candidates::{CandidateLimit, rank};
use super::order_trait::{Candidate, Order, OrderContext};

/// Decodes the smallest entropies that add up to no more than a bound, the largest of them not counted.
pub(super) struct EntropyBounded {
    pub(super) bound: f64,
    pub(super) limit: CandidateLimit,
}

impl Order for EntropyBounded {
    fn candidates(&mut self, context: &OrderContext<'_>, rng: &mut dyn Rng) -> Vec<usize> {
        self.limit.positions(context, rng)
    }

    fn select(&mut self, _context: &OrderContext<'_>, drawn: &[Candidate]) -> Vec<usize> {
        let mut ranking = rank(drawn, |candidate| -candidate.stats.entropy);
        // The entropies ascend, so the sum without the largest is the sum of those before it.
        let mut before = 0.0;
        let mut n = 0;
        for &index in &ranking {
            if n > 0 && before > self.bound {
                break;
            }
            before += drawn[index].stats.entropy;
            n += 1;
        }
        ranking.truncate(n);
        ranking
    }

    fn needs_stats(&self) -> bool {
        true
    }

    fn chooses_count(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{candidates, context};
    use super::*;

    #[test]
    fn an_entropy_bound_counts_all_but_the_largest() {
        let drawn = candidates(&[0.5, 0.1, 0.9, 0.3]);
        let select = |bound| {
            let mut order = EntropyBounded { bound, limit: CandidateLimit::All };
            order.select(&context(&[0, 1, 2, 3], &[], 1), &drawn)
        };
        assert_eq!(select(0.0), [1]);
        assert_eq!(select(0.1), [1, 3], "0.1 + 0.3 less 0.3");
        assert_eq!(select(0.4), [1, 3, 0]);
        assert_eq!(select(5.0), [1, 3, 0, 2]);
    }
}
