//! The gradients of attention. The backward pass keeps the output and each query's log-sum-exp, from which it recomputes
//! the probabilities.

use burn::backend::Backend;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};

use super::settings::AttentionSettings;
use crate::ops::autodiff::{AutodiffTensor, register, saved};
use crate::ops::extension::fused_ops::FusedOps;

// The inputs of the backward pass: N tensors that need gradients, and angles and labels of each side.
#[derive(Clone, Debug)]
struct Saved<B: Backend, const N: usize> {
    inputs: [NodeId; N],
    angles: [FloatTensor<B>; N],
    labels: [IntTensor<B>; N],
    out: FloatTensor<B>,
    lse: FloatTensor<B>,
    settings: AttentionSettings,
}

#[derive(Debug)]
struct SelfAttention;

impl<B: FusedOps> Backward<B, 1> for SelfAttention {
    type State = Saved<B, 1>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let Saved { inputs, angles: [angles], labels: [labels], out, lse, settings } = ops.state;
        let [qkv] = saved::<B, 1>(inputs, checkpointer);
        let qkv = B::self_attention_backward(qkv, angles, labels, out, lse, grad, settings);
        register::<B, 1>(ops.parents.map(|parent| parent.map(|parent| parent.id)), [qkv], grads);
    }
}

pub(crate) fn self_attention<B: FusedOps, C: CheckpointStrategy>(
    qkv: AutodiffTensor<B>,
    angles: AutodiffTensor<B>,
    labels: IntTensor<B>,
    settings: AttentionSettings,
) -> (AutodiffTensor<B>, AutodiffTensor<B>) {
    let angles = angles.into_primitive();
    let run = |qkv: FloatTensor<B>, labels: IntTensor<B>| B::self_attention(qkv, angles.clone(), labels, settings);
    match SelfAttention.prepare::<C>([qkv.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let inputs = [prep.checkpoint(&qkv)];
            let (out, lse) = run(qkv.into_primitive(), labels.clone());
            let (angles, labels) = ([angles], [labels]);
            let state = Saved { inputs, angles, labels, out: out.clone(), lse: lse.clone(), settings };
            (prep.finish(state, out), AutodiffTensor::<B>::new(lse))
        }
        OpsKind::UnTracked(prep) => {
            let (out, lse) = run(qkv.into_primitive(), labels);
            (prep.finish(out), AutodiffTensor::<B>::new(lse))
        }
    }
}

#[derive(Debug)]
struct CrossAttention;

impl<B: FusedOps> Backward<B, 2> for CrossAttention {
    type State = Saved<B, 2>;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let Saved { inputs, angles, labels, out, lse, settings } = ops.state;
        let [q, kv] = saved::<B, 2>(inputs, checkpointer);
        let ([q_angles, k_angles], [q_labels, k_labels]) = (angles, labels);
        let (q, kv) =
            B::cross_attention_backward(q, kv, q_angles, k_angles, q_labels, k_labels, out, lse, grad, settings);
        register::<B, 2>(ops.parents.map(|parent| parent.map(|parent| parent.id)), [q, kv], grads);
    }
}

#[allow(clippy::too_many_arguments)] // those of the extension's table
pub(crate) fn cross_attention<B: FusedOps, C: CheckpointStrategy>(
    q: AutodiffTensor<B>,
    kv: AutodiffTensor<B>,
    q_angles: AutodiffTensor<B>,
    k_angles: AutodiffTensor<B>,
    q_labels: IntTensor<B>,
    k_labels: IntTensor<B>,
    settings: AttentionSettings,
) -> (AutodiffTensor<B>, AutodiffTensor<B>) {
    let angles = [q_angles, k_angles].map(|table| table.into_primitive());
    let labels = [q_labels, k_labels];
    let run = |q: FloatTensor<B>, kv: FloatTensor<B>| {
        let ([q_angles, k_angles], [q_labels, k_labels]) = (angles.clone(), labels.clone());
        B::cross_attention(q, kv, q_angles, k_angles, q_labels, k_labels, settings)
    };
    match CrossAttention.prepare::<C>([q.node(), kv.node()]).compute_bound().stateful() {
        OpsKind::Tracked(mut prep) => {
            let inputs = [prep.checkpoint(&q), prep.checkpoint(&kv)];
            let (out, lse) = run(q.into_primitive(), kv.into_primitive());
            let state = Saved { inputs, angles, labels, out: out.clone(), lse: lse.clone(), settings };
            (prep.finish(state, out), AutodiffTensor::<B>::new(lse))
        }
        OpsKind::UnTracked(prep) => {
            let (out, lse) = run(q.into_primitive(), kv.into_primitive());
            (prep.finish(out), AutodiffTensor::<B>::new(lse))
        }
    }
}
