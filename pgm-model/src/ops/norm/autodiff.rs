//! The gradient of [`layer_norm`](super::layer_norm), whose output a backward pass may recompute.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::autodiff::{AutodiffTensor, Recompute, register, saved, tracked};
use crate::ops::extension::fused_ops::FusedOps;

#[derive(Debug)]
struct AffineNorm;

impl<B: FusedOps> Backward<B, 3> for AffineNorm {
    // x and the weight, and the moments of each row.
    type State = ([NodeId; 2], FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (nodes, moments) = ops.state;
        let [x, weight] = saved::<B, 2>(nodes, checkpointer);
        let (x, weight, bias) = B::affine_norm_backward(x, weight, moments, grad);
        register::<B, 3>(ops.parents.map(|parent| parent.map(|parent| parent.id)), [x, weight, bias], grads);
    }
}

pub(crate) fn affine_norm<B: FusedOps, C: CheckpointStrategy>(
    x: AutodiffTensor<B>,
    weight: AutodiffTensor<B>,
    bias: AutodiffTensor<B>,
) -> (AutodiffTensor<B>, AutodiffTensor<B>) {
    let recompute = Recompute::new([&x, &weight, &bias], |[x, weight, bias]| B::affine_norm(x, weight, bias).0);
    let prepared = AffineNorm.prepare::<C>([x.node(), weight.node(), bias.node()]).memory_bound();
    match prepared.retro_forward(recompute).parents(tracked::<B, 3>([&x, &weight, &bias])).stateful() {
        OpsKind::Tracked(mut prep) => {
            let saved = [prep.checkpoint(&x), prep.checkpoint(&weight)];
            let (y, moments) = B::affine_norm(x.into_primitive(), weight.into_primitive(), bias.into_primitive());
            (prep.finish((saved, moments.clone()), y), AutodiffTensor::<B>::new(moments))
        }
        OpsKind::UnTracked(prep) => {
            let (y, moments) = B::affine_norm(x.into_primitive(), weight.into_primitive(), bias.into_primitive());
            (prep.finish(y), AutodiffTensor::<B>::new(moments))
        }
    }
}
