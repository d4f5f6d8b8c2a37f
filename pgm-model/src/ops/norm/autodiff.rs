//! The gradient of [`layer_norm`](super::layer_norm) and of RMSNorm, whose output a backward pass may recompute.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;

use crate::ops::autodiff::{AutodiffTensor, Recompute, register, saved, tracked};
use crate::ops::extension::fused_ops::FusedOps;

/// Which norm.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Layer,
    Rms,
}

impl Kind {
    fn forward<B: FusedOps>(self, [x, weight, bias]: [FloatTensor<B>; 3]) -> (FloatTensor<B>, FloatTensor<B>) {
        match self {
            Self::Layer => B::affine_norm(x, weight, bias),
            Self::Rms => B::affine_rms_norm(x, weight, bias),
        }
    }
}

#[derive(Debug)]
struct AffineNorm(Kind);

impl<B: FusedOps> Backward<B, 3> for AffineNorm {
    // x and the weight, and the moments of each row.
    type State = ([NodeId; 2], FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (nodes, moments) = ops.state;
        let [x, weight] = saved::<B, 2>(nodes, checkpointer);
        let (x, weight, bias) = match self.0 {
            Kind::Layer => B::affine_norm_backward(x, weight, moments, grad),
            Kind::Rms => B::affine_rms_norm_backward(x, weight, moments, grad),
        };
        register::<B, 3>(ops.parents.map(|parent| parent.map(|parent| parent.id)), [x, weight, bias], grads);
    }
}

pub(crate) fn affine_norm<B: FusedOps, C: CheckpointStrategy>(
    x: AutodiffTensor<B>,
    weight: AutodiffTensor<B>,
    bias: AutodiffTensor<B>,
    kind: Kind,
) -> (AutodiffTensor<B>, AutodiffTensor<B>) {
    let output: fn([FloatTensor<B>; 3]) -> FloatTensor<B> = match kind {
        Kind::Layer => |inputs| Kind::Layer.forward::<B>(inputs).0,
        Kind::Rms => |inputs| Kind::Rms.forward::<B>(inputs).0,
    };
    let recompute = Recompute::new([&x, &weight, &bias], output);
    let prepared = AffineNorm(kind).prepare::<C>([x.node(), weight.node(), bias.node()]).memory_bound();
    match prepared.retro_forward(recompute).parents(tracked::<B, 3>([&x, &weight, &bias])).stateful() {
        OpsKind::Tracked(mut prep) => {
            let saved = [prep.checkpoint(&x), prep.checkpoint(&weight)];
            let (y, moments) = kind.forward::<B>([x, weight, bias].map(AutodiffTensor::<B>::into_primitive));
            (prep.finish((saved, moments.clone()), y), AutodiffTensor::<B>::new(moments))
        }
        OpsKind::UnTracked(prep) => {
            let (y, moments) = kind.forward::<B>([x, weight, bias].map(AutodiffTensor::<B>::into_primitive));
            (prep.finish(y), AutodiffTensor::<B>::new(moments))
        }
    }
}
