//! The teacher: what it predicts for every masked position of a row.
//!
//! From a masked row the teacher decodes step by step. The target of a position is the teacher's distribution at the step
//! that decoded it, or at the last step. The positions of a step are drawn before the teacher runs, so it runs at these
//! only: each masked position is computed once, apart from padding. The teacher keeps hidden states; logits are computed
//! from them for some positions at a time.
//!
//! Shapes: R rows, A rows with positions to decode, K positions of the row with most, N positions of all rows, H hidden,
//! V vocabulary.

use burn::tensor::{Device, Tensor};
use pgm_infer::denoise::{CleanRow, hidden_at};
use pgm_infer::sample::logits::PositionDraw;
use pgm_infer::{DrawSettings, Logits};
use pgm_model::Network;
use rand::{Rng, RngExt};

use crate::batches::MaskedRow;
use crate::run::chunks;

/// The smallest time that a teacher steps to.
pub(crate) const TIME_FLOOR: f64 = 1e-5;

/// A network that is not trained, and its sampling steps.
#[derive(Debug)]
pub(crate) struct Teacher {
    /// The network, without autodiff.
    pub(crate) network: Network,
    /// Id of the mask, which has no probability.
    pub(crate) mask_index: usize,
    /// Tokens that it never decodes: the mask, and BOS among image codes.
    pub(crate) never_drawn: Vec<usize>,
    /// Length of a step in time.
    pub(crate) dt: f64,
    /// Steps one after the other.
    pub(crate) n_steps: usize,
    /// Divides the logits, the student's, too.
    pub(crate) temperature: f64,
    /// Positions whose logits are computed at once.
    pub(crate) chunk: usize,
}

/// Times `t, t - dt, ...` of `n_steps` steps, with both ends, none below [`TIME_FLOOR`].
fn times(t: f64, dt: f64, n_steps: usize) -> Vec<f64> {
    (0..=n_steps).map(|step| (t - step as f64 * dt).max(TIME_FLOOR)).collect()
}

/// Probability that a position masked at time `from` is decoded by the step to time `to`.
fn decode_probability(from: f64, to: f64) -> f64 {
    (from - to) / from
}

/// The teacher's hidden states at every masked position of every row, each position once.
pub(crate) struct TeacherTargets {
    /// In the order of the evaluations, `[N, H]`.
    pub(crate) hidden: Tensor<2>,
    /// Index into `hidden` of each row's positions; absent where a position is not masked.
    pub(crate) index: Vec<Vec<Option<usize>>>,
}

impl Teacher {
    /// Decodes from each row and keeps the hidden states of what was decoded. The rows must have a masked position.
    pub(crate) fn targets(&self, rows: &[MaskedRow], device: &Device, rng: &mut impl Rng) -> TeacherTargets {
        let mut clean: Vec<CleanRow> = rows.iter().map(MaskedRow::clean).collect();
        let mut masked: Vec<Vec<usize>> = rows.iter().map(MaskedRow::masked).collect();
        let times: Vec<Vec<f64>> = rows.iter().map(|row| times(row.time, self.dt, self.n_steps)).collect();
        let mut index: Vec<Vec<Option<usize>>> = rows.iter().map(|row| vec![None; row.tokens.len()]).collect();
        let mut parts = Vec::new();
        let mut n_states = 0;
        for step in 0..self.n_steps {
            let is_last = step + 1 == self.n_steps;
            // What a step decodes is a set of its own, behind those of the row.
            let last_set = |row: &CleanRow| row.sets.as_ref().and_then(|sets| sets.last().copied());
            let next_sets: Vec<usize> = clean.iter().map(|row| last_set(row).map_or(0, |last| last + 1)).collect();
            let mut decoded = vec![Vec::new(); rows.len()];
            for (row, left) in masked.iter_mut().enumerate() {
                let probability = decode_probability(times[row][step], times[row][step + 1]);
                let (now, later) = left.drain(..).partition(|_| is_last || rng.random::<f64>() < probability);
                (decoded[row], *left) = (now, later);
            }
            let active: Vec<usize> = (0..rows.len()).filter(|&row| !decoded[row].is_empty()).collect();
            if active.is_empty() {
                continue;
            }
            let inputs: Vec<&CleanRow> = active.iter().map(|&row| &clean[row]).collect();
            let positions: Vec<&[usize]> = active.iter().map(|&row| decoded[row].as_slice()).collect();
            let hidden = hidden_at(&self.network, self.mask_index, &inputs, &positions, device); // [A, K, H]
            let [_, width, n_hidden] = hidden.dims();
            for (place, &row) in active.iter().enumerate() {
                for (offset, &position) in decoded[row].iter().enumerate() {
                    index[row][position] = Some(n_states + place * width + offset);
                }
            }
            n_states += active.len() * width;
            let hidden = hidden.reshape([active.len() * width, n_hidden]);
            if !is_last {
                let decoded: Vec<(usize, &[usize])> = active.iter().copied().zip(positions).collect();
                self.draw_tokens(&hidden, width, &decoded, rng).into_iter().for_each(|(row, position, token)| {
                    clean[row].positions.push(position);
                    clean[row].tokens.push(token);
                    clean[row].sets.iter_mut().for_each(|sets| sets.push(next_sets[row]));
                });
            }
            parts.push(hidden);
        }
        TeacherTargets { hidden: Tensor::cat(parts, 0), index }
    }

    // A token for each decoded position, as (row, position, token). The states of the place-th row begin at
    // `place * width`.
    fn draw_tokens(
        &self,
        hidden: &Tensor<2>,
        width: usize,
        decoded: &[(usize, &[usize])],
        rng: &mut impl Rng,
    ) -> Vec<(usize, usize, u32)> {
        let mut targets = Vec::new();
        let mut draws = Vec::new();
        for (place, (row, positions)) in decoded.iter().enumerate() {
            for (offset, position) in positions.iter().enumerate() {
                targets.push((*row, *position));
                draws.push((place * width + offset, rng.random::<f64>()));
            }
        }
        let mut tokens = Vec::with_capacity(draws.len());
        for range in chunks(hidden.dims()[0], self.chunk) {
            let first = draws.partition_point(|(state, _)| *state < range.start);
            let last = draws.partition_point(|(state, _)| *state < range.end);
            let draw = |&(state, uniform): &(usize, f64)| PositionDraw { row: 0, index: state - range.start, uniform };
            let draws: Vec<PositionDraw> = draws[first..last].iter().map(draw).collect();
            let logits = self.logits(hidden.clone().slice(range.clone()));
            let drawn = Logits::new(logits)
                .and_then(|logits| logits.draw(&draws, &self.never_drawn, &DrawSettings::default()))
                .expect("the device computes");
            tokens.extend(drawn.into_iter().map(|drawn| drawn.class as u32));
        }
        targets.into_iter().zip(tokens).map(|((row, position), token)| (row, position, token)).collect()
    }

    /// Logits of hidden states, at the teacher's temperature.
    ///
    /// # Shapes
    /// `[N, H] -> [1, N, V]`
    pub(crate) fn logits(&self, hidden: Tensor<2>) -> Tensor<3> {
        self.at_temperature(self.network.logits(hidden.unsqueeze_dim(0)))
    }

    /// Logits at the temperature.
    ///
    /// # Shapes
    /// `[1, N, V] -> [1, N, V]`
    pub(crate) fn at_temperature(&self, logits: Tensor<3>) -> Tensor<3> {
        if self.temperature == 1.0 { logits } else { logits / self.temperature }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{VOCAB, networks};
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn times_and_decode_probabilities_are_those_of_a_table_made_by_hand() {
        // t, dt, times after each of three steps, probability that a masked position is decoded by each.
        let table = [
            (0.5, 0.125, [0.5, 0.375, 0.25, 0.125], [0.25, 1.0 / 3.0, 0.5]),
            (1.0, 0.25, [1.0, 0.75, 0.5, 0.25], [0.25, 1.0 / 3.0, 0.5]),
            (0.25, 0.125, [0.25, 0.125, 1e-5, 1e-5], [0.5, 0.99992, 0.0]),
            (0.1, 0.5, [0.1, 1e-5, 1e-5, 1e-5], [0.9999, 0.0, 0.0]),
        ];
        for (t, dt, expected, probabilities) in table {
            let found = times(t, dt, 3);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-12, "{found} for {expected}");
            }
            for (pair, expected) in found.windows(2).zip(probabilities) {
                assert!((decode_probability(pair[0], pair[1]) - expected).abs() < 1e-9, "t {t}: {pair:?}");
            }
        }
    }

    #[test]
    fn every_masked_position_has_one_target_and_the_first_step_decodes_its_share() {
        let (network, _) = networks(false);
        let never_drawn = vec![VOCAB - 1];
        let mask_index = VOCAB - 1;
        let teacher = Teacher { network, mask_index, never_drawn, dt: 0.125, n_steps: 2, temperature: 1.0, chunk: 256 };
        let rows = vec![MaskedRow {
            tokens: vec![1; 400],
            is_masked: vec![true; 400],
            time: 0.5,
            valid: 400,
            class: None,
            sets: None,
        }];
        let targets = teacher.targets(&rows, &Device::flex(), &mut ChaCha8Rng::seed_from_u64(3));
        let mut indices: Vec<usize> = targets.index[0].iter().copied().map(Option::unwrap).collect();
        indices.sort_unstable();
        assert_eq!(indices, (0..400).collect::<Vec<_>>(), "as many states as masked positions, each used once");
        // The positions of each evaluation ascend. A quarter of 400 are decoded by the first, with a standard deviation
        // of 8.7.
        let mut by_index: Vec<usize> = (0..400).collect();
        by_index.sort_by_key(|&position| targets.index[0][position]);
        let n_first = by_index.windows(2).position(|pair| pair[1] < pair[0]).unwrap() + 1;
        assert!((65..=135).contains(&n_first), "{n_first} of 400 decoded by the first step");
    }
}
