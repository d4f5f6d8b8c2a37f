//! Which tokens of a row are hidden in each draw of a likelihood bound (NELBO), and with which weight they count.
//!
//! Both estimators of [`NelboEstimator`] sum the cross-entropies of the hidden tokens of a row and multiply the sum by a
//! weight. [`NelboEstimator::AnyOrder`] draws how many of the n tokens are hidden: a count k, whose weight is n/k. The
//! counts are stratified: D draws of each of R items divide the unit interval into R D parts. Each draw takes
//! a part of its own, and the draws of one item lie in D different D-ths of the interval. A random point x of the part gives
//! `k = 1 + floor(n x)`. [`NelboEstimator::Mdlm`] draws a time t and hides each token with the schedule's probability at t; the
//! weight is 1/t.
//!
//! A draw depends on the seed, the item and its place in the set, and the number of the draw, and on nothing else.

use pgm_data::RowOrder;
pub use pgm_infer::score::draws::HiddenTokens;
use pgm_model::loss::{EPS, NoiseSchedule};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::batches::random::{EVALUATION, EVALUATION_GROUPS, VALIDATION, VALIDATION_GROUPS, VALIDATION_SEED, stream};
use crate::config::NelboEstimator;

/// An item of an evaluation: a row, or a choice of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrawnItem {
    /// Its place in the set, from 0.
    pub place: usize,
    /// Its index, which does not depend on the set.
    pub index: usize,
    /// Number of its positions.
    pub length: usize,
    /// Number of its tokens before the padding.
    pub valid: usize,
}

/// The draws of an evaluation set.
#[derive(Clone, Copy, Debug)]
pub struct NelboDraws {
    estimator: NelboEstimator,
    seed: u64,
    // Purposes of the streams: of the times, and of the hidden positions.
    purposes: [u64; 2],
    n_items: usize,
    n_draws: usize,
}

impl NelboDraws {
    /// The draws of an evaluation: `n_draws` of each of `n_items` items.
    pub fn of_evaluation(estimator: NelboEstimator, seed: u64, n_items: usize, n_draws: usize) -> Self {
        Self { estimator, seed, purposes: [EVALUATION, EVALUATION_GROUPS], n_items, n_draws }
    }

    /// The draws of the validations of a run, which are the same in every run.
    pub fn of_validation(estimator: NelboEstimator, n_items: usize, n_draws: usize) -> Self {
        let purposes = [VALIDATION, VALIDATION_GROUPS];
        Self { estimator, seed: VALIDATION_SEED, purposes, n_items, n_draws }
    }

    /// All draws of an item.
    pub fn all(&self, item: DrawnItem) -> impl Iterator<Item = HiddenTokens> + '_ {
        (0..self.n_draws).map(move |draw| self.draw(item, draw))
    }

    /// One draw of an item.
    ///
    /// Each position takes one uniform, so items of different lengths with the same index and place share the order in
    /// which their common positions are hidden.
    pub fn draw(&self, item: DrawnItem, draw: usize) -> HiddenTokens {
        let mut rng = stream(self.seed, self.purposes[1], (item.index * self.n_draws + draw) as u64);
        match self.estimator {
            NelboEstimator::AnyOrder => self.any_order(item, draw, &mut rng),
            NelboEstimator::Mdlm => {
                // The times of an item share one uniform, one in each of `n_draws` equal parts of [EPS, 1].
                let uniform = stream(self.seed, self.purposes[0], item.index as u64).random::<f64>();
                let time = EPS + (1.0 - EPS) * (uniform + draw as f64) / self.n_draws as f64;
                let schedule = NoiseSchedule::LogLinear;
                let p = schedule.masked_probability(time);
                let is_hidden = (0..item.length).map(|_| rng.random::<f64>() < p).collect();
                HiddenTokens { is_hidden, weight: schedule.masked_weight(time) }
            }
        }
    }

    fn any_order(&self, item: DrawnItem, draw: usize, rng: &mut ChaCha8Rng) -> HiddenTokens {
        // Each draw has a permutation of the items of its own.
        let order = RowOrder::new(self.seed, self.n_items.max(1));
        let part = order.step((draw * self.n_items + item.place) as u64, 1)[0] + draw * self.n_items;
        HiddenTokens::any_order(item.length, item.valid, (part, self.n_items * self.n_draws), rng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 13;

    fn item(place: usize, valid: usize) -> DrawnItem {
        DrawnItem { place, index: place, length: LENGTH, valid }
    }

    fn n_hidden(drawn: &HiddenTokens, valid: usize) -> usize {
        drawn.is_hidden[..valid].iter().filter(|&&is_hidden| is_hidden).count()
    }

    // Over MDLM's times, 1/t for each draw that hides a token, times the number of hidden paddings, has the mean p/2 for p of
    // them: the integral of 1/t t (p t) over t.
    #[test]
    fn padding_is_hidden_as_often_by_either_estimator() {
        let (valid, padding) = (5, LENGTH - 5);
        for estimator in [NelboEstimator::AnyOrder, NelboEstimator::Mdlm] {
            let draws = NelboDraws::of_evaluation(estimator, 3, 2000, 8);
            let mut sum = 0.0;
            for place in 0..2000 {
                for drawn in draws.all(item(place, valid)).filter(|drawn| drawn.is_hidden[0]) {
                    sum += drawn.weight * (n_hidden(&drawn, LENGTH) - n_hidden(&drawn, valid)) as f64 / 16_000.0;
                }
            }
            assert!((sum - padding as f64 / 2.0).abs() < 0.15, "{estimator:?}: {sum}");
        }
    }

    #[test]
    fn every_count_is_drawn_about_equally_often() {
        for (n_items, n_draws, valid) in [(66, 4, 13), (7, 1, 5), (26, 3, 13), (1, 64, 11), (5, 2, 1)] {
            let draws = NelboDraws::of_validation(NelboEstimator::AnyOrder, n_items, n_draws);
            let mut counts = vec![0; valid];
            for place in 0..n_items {
                let mut parts = Vec::new();
                for drawn in draws.all(item(place, valid)) {
                    let k = n_hidden(&drawn, valid);
                    assert!(k >= 1);
                    assert_eq!(drawn.weight, valid as f64 / k as f64);
                    counts[k - 1] += 1;
                    parts.push(k);
                }
                assert!(parts.is_sorted(), "the draws of a row lie in successive parts: {parts:?}");
            }
            // Strata that lie within a count belong to it; at most one stratum reaches over each of its borders.
            let share = (n_items * n_draws) as f64 / valid as f64;
            assert!(counts.iter().all(|&count| (count as f64 - share).abs() < 2.0), "{counts:?} for {share}");
        }
    }

    #[test]
    fn every_position_is_hidden_as_often_as_every_other() {
        let draws = NelboDraws::of_evaluation(NelboEstimator::AnyOrder, 5, 400, 10);
        let mut times = [0.0; LENGTH];
        for place in 0..400 {
            for drawn in draws.all(item(place, LENGTH)) {
                times.iter_mut().zip(&drawn.is_hidden).filter(|(_, hidden)| **hidden).for_each(|(n, _)| *n += 1.0);
            }
        }
        // 4000 draws with a mean share of (n + 1) / 2n: the standard error is 0.008.
        let share = (LENGTH + 1) as f64 / (2 * LENGTH) as f64;
        assert!(times.iter().all(|n| (n / 4000.0 - share).abs() < 0.032), "{times:?}");
    }

    #[test]
    fn the_draws_of_one_item_are_those_of_the_score_of_one_text() {
        for (seed, index, n_draws) in [(0, 0, 1), (7, 0, 16), (7, 5, 33)] {
            let draws = NelboDraws::of_evaluation(NelboEstimator::AnyOrder, seed, 1, n_draws);
            let of_item: Vec<HiddenTokens> = draws.all(DrawnItem { place: 0, ..item(index, LENGTH) }).collect();
            let of_text: Vec<HiddenTokens> = pgm_infer::score::draws::any_order(seed, index, LENGTH, n_draws).collect();
            assert_eq!(of_item, of_text);
        }
    }

    #[test]
    fn a_draw_depends_on_seed_item_and_number_only() {
        let of = |seed, n_draws| NelboDraws::of_evaluation(NelboEstimator::AnyOrder, seed, 9, n_draws);
        let all: Vec<HiddenTokens> = of(1, 4).all(item(3, LENGTH)).collect();
        assert_eq!(all[2], of(1, 4).draw(item(3, LENGTH), 2));
        assert_ne!(all, of(2, 4).all(item(3, LENGTH)).collect::<Vec<_>>());
        assert_ne!(all, of(1, 4).all(item(4, LENGTH)).collect::<Vec<_>>());
    }

    #[test]
    fn the_times_of_mdlm_lie_in_equal_parts() {
        let draws = NelboDraws::of_validation(NelboEstimator::Mdlm, 3, 4);
        for place in 0..3 {
            let parts: Vec<usize> = draws
                .all(item(place, LENGTH))
                .map(|drawn| ((drawn.weight.recip() - EPS) / (1.0 - EPS) * 4.0) as usize)
                .collect();
            assert_eq!(parts, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn rows_of_different_lengths_share_the_order_of_their_common_positions() {
        let draws = NelboDraws::of_evaluation(NelboEstimator::AnyOrder, 3, 1, 32);
        let short = DrawnItem { place: 0, index: 4, length: 8, valid: 8 };
        let long = DrawnItem { length: 10, valid: 10, ..short };
        let mut n_equal = 0;
        for (short, long) in draws.all(short).zip(draws.all(long)) {
            let (a, b) = (&short.is_hidden, &long.is_hidden[..8]);
            // One set contains the other.
            assert!(a.iter().zip(b).all(|(a, b)| a <= b) || a.iter().zip(b).all(|(a, b)| b <= a));
            n_equal += usize::from(a == b);
        }
        assert!(n_equal > 8, "{n_equal}");
    }
}
