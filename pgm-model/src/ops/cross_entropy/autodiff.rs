//! The gradient of [`linear_cross_entropy`](super::linear_cross_entropy): computed with the loss, scaled in the backward
//! pass.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};

use crate::ops::autodiff::{AutodiffTensor, register};
use crate::ops::extension::fused_ops::{FusedOps, scale_by};

#[derive(Debug)]
struct LinearCrossEntropy;

impl<B: FusedOps> Backward<B, 3> for LinearCrossEntropy {
    // The gradients of x, w and b where that of the loss is 1.
    type State = [FloatTensor<B>; 3];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node); // [1]
        let gradients = ops.state.map(|gradient| scale_by::<B>(gradient, grad.clone()));
        register::<B, 3>(ops.parents.map(|parent| parent.map(|parent| parent.id)), gradients, grads);
    }
}

pub(crate) fn linear_cross_entropy<B: FusedOps, C: CheckpointStrategy>(
    x: AutodiffTensor<B>,
    w: AutodiffTensor<B>,
    b: AutodiffTensor<B>,
    targets: IntTensor<B>,
    weights: AutodiffTensor<B>,
    excluded_class: usize,
) -> AutodiffTensor<B> {
    let weights = weights.into_primitive();
    match LinearCrossEntropy.prepare::<C>([x.node(), w.node(), b.node()]).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let [x, w, b] = [x, w, b].map(|tensor| tensor.into_primitive());
            let (loss, x_grad, w_grad, b_grad) =
                B::linear_cross_entropy_with_gradients(x, w, b, targets, weights, excluded_class);
            prep.finish([x_grad, w_grad, b_grad], loss)
        }
        OpsKind::UnTracked(prep) => {
            let [x, w, b] = [x, w, b].map(|tensor| tensor.into_primitive());
            prep.finish(B::linear_cross_entropy(x, w, b, targets, weights, excluded_class))
        }
    }
}
