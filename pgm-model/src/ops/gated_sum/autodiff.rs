//! The gradient of [`gated_sum`](super::gated_sum).

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};

use crate::ops::autodiff::{AutodiffTensor, register, saved};
use crate::ops::extension::fused_ops::FusedOps;

#[derive(Debug)]
struct GatedSum;

impl<B: FusedOps> Backward<B, 3> for GatedSum {
    type State = [NodeId; 2];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let [branch, gate] = saved::<B, 2>(ops.state, checkpointer);
        let (branch, gate) = B::gated_sum_backward(branch, gate, grad.clone());
        register::<B, 3>(ops.parents.map(|parent| parent.map(|parent| parent.id)), [grad, branch, gate], grads);
    }
}

pub(crate) fn gated_sum<B: FusedOps, C: CheckpointStrategy>(
    x: AutodiffTensor<B>,
    branch: AutodiffTensor<B>,
    gate: AutodiffTensor<B>,
) -> AutodiffTensor<B> {
    match GatedSum.prepare::<C>([x.node(), branch.node(), gate.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let saved = [prep.checkpoint(&branch), prep.checkpoint(&gate)];
            prep.finish(saved, B::gated_sum(x.into_primitive(), branch.into_primitive(), gate.into_primitive()))
        }
        OpsKind::UnTracked(prep) => {
            prep.finish(B::gated_sum(x.into_primitive(), branch.into_primitive(), gate.into_primitive()))
        }
    }
}
