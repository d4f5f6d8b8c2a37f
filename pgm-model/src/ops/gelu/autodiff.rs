//! The gradient of [`bias_gelu`](super::bias_gelu), whose output a backward pass may recompute.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

use crate::ops::autodiff::{AutodiffTensor, Recompute, register, saved, tracked};
use crate::ops::extension::fused_ops::FusedOps;

#[derive(Debug)]
struct BiasGelu;

impl<B: FusedOps> Backward<B, 2> for BiasGelu {
    type State = [NodeId; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let [x, bias] = saved::<B, 2>(ops.state, checkpointer);
        let (x, bias) = B::bias_gelu_backward(x, bias, grad);
        register::<B, 2>(ops.parents.map(|parent| parent.map(|parent| parent.id)), [x, bias], grads);
    }
}

pub(crate) fn bias_gelu<B: FusedOps, C: CheckpointStrategy>(
    x: AutodiffTensor<B>,
    bias: AutodiffTensor<B>,
) -> AutodiffTensor<B> {
    let recompute = Recompute::new([&x, &bias], |[x, bias]| B::bias_gelu(x, bias));
    let prepared = BiasGelu.prepare::<C>([x.node(), bias.node()]).memory_bound().retro_forward(recompute);
    match prepared.parents(tracked::<B, 2>([&x, &bias])).stateful() {
        OpsKind::Tracked(mut prep) => {
            let saved = [prep.checkpoint(&x), prep.checkpoint(&bias)];
            prep.finish(saved, B::bias_gelu(x.into_primitive(), bias.into_primitive()))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::bias_gelu(x.into_primitive(), bias.into_primitive())),
    }
}
