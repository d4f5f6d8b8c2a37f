//! The objectives: log-linear noise, its weights, and the weighted cross-entropy (section 3 of the paper, eq. 8).
//!
//! The paper's equation prints the two weights the other way round; its text and its code agree with what is here: a
//! token of group 1, which plays the masks, is weighted by `w(t)`, a token of group 0 by `w(1 - t)`.
//!
//! Shapes: B batch, L length, V vocabulary.

use burn::tensor::activation::log_softmax;
use burn::tensor::{FloatDType, Int, Tensor};

use crate::ops::is_half;

/// The smallest time and the floor of the noise: `alpha_t = 1 - (1 - EPS) t`.
pub const EPS: f64 = 1e-3;

/// Probability that a token falls into group 1 (is masked) at time `t`: `1 - alpha_t`.
pub fn masked_probability(t: f64) -> f64 {
    (1.0 - EPS) * t
}

/// Times of a batch of `n` rows, antithetic: one in each of `n` equal parts of `[EPS, 1]`, given `n` uniforms.
///
/// `n` must be the whole optimiser batch, not a micro-batch of it.
pub fn antithetic_times(uniforms: &[f64]) -> Vec<f64> {
    let n = uniforms.len() as f64;
    let spread = |(index, u): (usize, &f64)| EPS + (1.0 - EPS) * ((u / n + index as f64 / n) % 1.0);
    uniforms.iter().enumerate().map(spread).collect()
}

/// Weight of a token of group 1, `-alpha'_t / (1 - alpha_t) = 1/t`.
pub fn masked_weight(t: f64) -> f64 {
    1.0 / t
}

/// Weight of a token of group 0, `w(1 - t) = 1 / max(1 - t, floor)`. With floor 0 it has no bound, as in the public code.
pub fn unmasked_weight(t: f64, floor: f64) -> f64 {
    1.0 / (1.0 - t).max(floor)
}

/// The weights of one row in the partition objective, `weight / 2` for each token.
pub fn partition_weights(t: f64, in_group_one: &[bool], floor: f64) -> impl Iterator<Item = f64> {
    let [zero, one] = [unmasked_weight(t, floor) / 2.0, masked_weight(t) / 2.0];
    in_group_one.iter().map(move |&in_group_one| if in_group_one { one } else { zero })
}

/// The weights of one row in MDLM's NELBO: `w(t)` on the masked tokens, 0 elsewhere. It is the masked model's training
/// loss and both models' validation loss.
pub fn nelbo_weights(t: f64, in_group_one: &[bool]) -> impl Iterator<Item = f64> {
    let one = masked_weight(t);
    in_group_one.iter().map(move |&in_group_one| if in_group_one { one } else { 0.0 })
}

/// Cross-entropy of each token in nats, in float32 for narrower logits, too, with the mask's column left out.
///
/// # Shapes
/// logits `[B, L, V]`, targets `[B, L] -> [B, L]`
pub fn token_cross_entropy(logits: Tensor<3>, targets: Tensor<2, Int>, mask_index: usize) -> Tensor<2> {
    let n_classes = logits.dims()[2];
    let column = Tensor::<1, Int>::arange(0..n_classes as i64, &logits.device());
    let is_mask = column.equal_elem(mask_index as i64).unsqueeze::<3>();
    let logits = if is_half(logits.dtype()) { logits.cast(FloatDType::F32) } else { logits };
    // Finite rather than -inf: exp gives the same 0, and no gradient becomes NaN.
    let logits = logits.clone().mask_fill(is_mask.expand(logits.dims()), -1e30);
    let log_probabilities = log_softmax(logits, 2);
    log_probabilities.gather(2, targets.unsqueeze_dim(2)).squeeze_dim::<2>(2).neg()
}

/// Sum of weighted cross-entropies, `[1]`. Weights `[B, L]` hold everything else: `w(t)`, the half, validity, and
/// division by the number of valid tokens of the whole optimiser batch.
pub fn weighted_loss(logits: Tensor<3>, targets: Tensor<2, Int>, weights: Tensor<2>, mask_index: usize) -> Tensor<1> {
    (token_cross_entropy(logits, targets, mask_index) * weights).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn antithetic_times_fill_every_stratum_once() {
        let times = antithetic_times(&[0.9, 0.1, 0.5, 0.999]);
        for (index, t) in times.iter().enumerate() {
            let unit = (t - EPS) / (1.0 - EPS);
            assert!((index as f64 / 4.0..(index + 1) as f64 / 4.0).contains(&unit), "{t}");
        }
    }

    #[test]
    fn weights_are_bounded_by_the_floor_and_only_by_it() {
        assert_eq!(unmasked_weight(1.0, EPS), 1000.0);
        assert_eq!(unmasked_weight(1.0, 0.0), f64::INFINITY);
        assert_eq!(unmasked_weight(0.25, EPS), 1.0 / 0.75);
        let row: Vec<f64> = partition_weights(0.25, &[true, false], EPS).collect();
        assert_eq!(row, [2.0, 0.5 / 0.75]);
        assert_eq!(nelbo_weights(0.25, &[true, false]).collect::<Vec<_>>(), [4.0, 0.0]);
    }
}
