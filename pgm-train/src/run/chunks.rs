//! Positions in chunks, so that logits of all of them never exist together, neither in the forward nor in the backward pass.
// N positions, H hidden

use std::ops::Range;

use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use pgm_model::Network;

use super::train_model::TrainModel;

/// Positions whose logits are computed at once: 50 MiB of float32 for a vocabulary of 50,000.
pub(crate) const CHUNK: usize = 256;

/// The ranges of at most `chunk` positions that make up `0..n`.
pub(crate) fn chunks(n: usize, chunk: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(chunk).map(move |start| start..n.min(start + chunk))
}

/// Loss, `[1]` without gradients, and gradients of a student whose loss is a sum over positions. `network` computed the
/// hidden states from the weights of `student`; `loss` is called with a network, the hidden states of a range of positions
/// and that range, and returns `[1]`.
///
/// The head, the loss and the backward pass through both run over at most `chunk` positions at a time. The gradients of the
/// hidden states then go through the rest of the network at once.
///
/// # Shapes
/// hidden `[N, H]`
pub(crate) fn step_by_chunks(
    student: &TrainModel,
    (network, hidden): (&Network, Tensor<2>),
    chunk: usize,
    loss: impl Fn(&Network, Tensor<2>, Range<usize>) -> Tensor<1>,
) -> (Tensor<1>, GradientsParams) {
    let n = hidden.dims()[0];
    if n <= chunk {
        let loss = loss(network, hidden, 0..n);
        return (loss.clone().inner(), GradientsParams::from_grads(loss.backward(), student));
    }
    let mut gradients = GradientsAccumulator::new();
    let mut loss_sum: Option<Tensor<1>> = None;
    let mut hidden_gradients = Vec::new();
    for range in chunks(n, chunk) {
        let leaf = hidden.clone().slice(range.clone()).detach().require_grad();
        // A backward pass consumes the graph that casts the parameters, so each chunk calls `for_step` anew.
        let loss = loss(&student.for_step().network, leaf.clone(), range);
        let value = loss.clone().inner();
        loss_sum = Some(match loss_sum {
            Some(sum) => sum + value,
            None => value,
        });
        let mut chunk_gradients = loss.backward();
        hidden_gradients.push(leaf.grad_remove(&mut chunk_gradients).expect("the loss depends on hidden states"));
        gradients.accumulate(student, GradientsParams::from_grads(chunk_gradients, student));
    }
    // A surrogate: its gradient at `hidden` equals the loss's, so its backward pass carries that through the network.
    let rest = (hidden * Tensor::cat(hidden_gradients, 0)).sum();
    gradients.accumulate(student, GradientsParams::from_grads(rest.backward(), student));
    (loss_sum.expect("at least one chunk"), gradients.grads())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_all_positions_once() {
        assert_eq!(chunks(7, 3).collect::<Vec<_>>(), [0..3, 3..6, 6..7]);
        assert!(chunks(3, 3).eq(std::iter::once(0..3)));
        assert_eq!(chunks(0, 3).count(), 0);
    }
}
