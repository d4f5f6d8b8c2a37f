//! The gradients of [`matmul`](super::matmul), of its recomputed form, and of the bias that is added to it.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::autodiff::{AutodiffTensor, Recompute, saved, tracked};
use crate::ops::extension::fused_ops::FusedOps;

#[derive(Debug)]
struct Matmul;

impl<B: FusedOps> Backward<B, 2> for Matmul {
    // x and the weight: each is kept only if the other needs a gradient.
    type State = [Option<NodeId>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let saved = ops.state.map(|id| id.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id)));
        let ([x, weight], [x_node, weight_node]) = (saved, ops.parents);
        if let (Some(parent), Some(weight)) = (x_node, weight) {
            grads.register::<B>(parent.id, B::matmul_x_backward(weight, grad.clone()));
        }
        if let (Some(parent), Some(x)) = (weight_node, x) {
            grads.register::<B>(parent.id, B::matmul_weight_backward(x, grad));
        }
    }
}

pub(crate) fn matmul<B: FusedOps, C: CheckpointStrategy>(
    x: AutodiffTensor<B>,
    weight: AutodiffTensor<B>,
) -> AutodiffTensor<B> {
    match Matmul.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let (for_weight, for_x) = (weight.is_tracked(), x.is_tracked());
            let saved = [for_weight.then(|| prep.checkpoint(&x)), for_x.then(|| prep.checkpoint(&weight))];
            prep.finish(saved, B::matmul(x.into_primitive(), weight.into_primitive()))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::matmul(x.into_primitive(), weight.into_primitive())),
    }
}

#[derive(Debug)]
struct RecomputedMatmul;

impl<B: FusedOps> Backward<B, 2> for RecomputedMatmul {
    type State = [NodeId; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let [x, weight] = saved::<B, 2>(ops.state, checkpointer);
        let [x_node, weight_node] = ops.parents;
        if let Some(parent) = weight_node {
            let gradient = B::recomputed_matmul_weight_backward(x, weight.clone(), grad.clone());
            grads.register::<B>(parent.id, gradient);
        }
        if let Some(parent) = x_node {
            grads.register::<B>(parent.id, B::recomputed_matmul_x_backward(weight, grad));
        }
    }
}

pub(crate) fn recomputed_matmul<B: FusedOps, C: CheckpointStrategy>(
    x: AutodiffTensor<B>,
    weight: AutodiffTensor<B>,
) -> AutodiffTensor<B> {
    let recompute = Recompute::new([&x, &weight], |[x, weight]| B::recomputed_matmul(x, weight));
    let prepared = RecomputedMatmul.prepare::<C>([x.node(), weight.node()]).memory_bound().retro_forward(recompute);
    match prepared.parents(tracked::<B, 2>([&x, &weight])).stateful() {
        OpsKind::Tracked(mut prep) => {
            let saved = [prep.checkpoint(&x), prep.checkpoint(&weight)];
            prep.finish(saved, B::recomputed_matmul(x.into_primitive(), weight.into_primitive()))
        }
        OpsKind::UnTracked(prep) => prep.finish(B::recomputed_matmul(x.into_primitive(), weight.into_primitive())),
    }
}

#[derive(Debug)]
struct AddBias;

impl<B: FusedOps> Backward<B, 2> for AddBias {
    type State = ();

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let [y_node, bias_node] = ops.parents;
        if let Some(parent) = bias_node {
            grads.register::<B>(parent.id, B::add_bias_backward(grad.clone()));
        }
        if let Some(parent) = y_node {
            grads.register::<B>(parent.id, grad);
        }
    }
}

pub(crate) fn add_bias<B: FusedOps, C: CheckpointStrategy>(
    y: AutodiffTensor<B>,
    bias: AutodiffTensor<B>,
) -> AutodiffTensor<B> {
    let recompute = Recompute::new([&y, &bias], |[y, bias]| B::add_bias(y, bias));
    let prepared = AddBias.prepare::<C>([y.node(), bias.node()]).memory_bound().retro_forward(recompute);
    match prepared.parents(tracked::<B, 2>([&y, &bias])).stateful() {
        OpsKind::Tracked(prep) => prep.finish((), B::add_bias(y.into_primitive(), bias.into_primitive())),
        OpsKind::UnTracked(prep) => prep.finish(B::add_bias(y.into_primitive(), bias.into_primitive())),
    }
}
