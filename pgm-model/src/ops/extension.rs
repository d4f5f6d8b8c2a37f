//! The operations as a Burn backend extension, and their gradients.
//!
//! Flex and Cube implement it; other devices compute the same from ordinary tensor operations (see the parent module). A
//! backward pass is a method of its own, because `Autodiff<B>` reaches the inner backend only through the trait.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor, QuantizedTensor};
use burn::backend::{Autodiff, Backend, TensorMetadata, backend_extension};
use burn::tensor::FloatDType;
#[cfg(all(feature = "cube", feature = "fusion"))]
use burn::tensor::Shape;

use super::{AdamWStep, AttentionKind, is_half};

fn not_differentiable() -> ! {
    panic!("gradients of gradients are not defined for the fused operations")
}

/// Shapes are those of the functions in the parent module; `rows` are all dimensions but the last, flattened.
#[allow(missing_docs)]
#[cfg_attr(not(feature = "flex"), allow(dead_code))] // products of narrow weights are Flex's alone
#[backend_extension(
    Cube: cfg(feature = "cube"),
    Flex: cfg(feature = "flex"),
    Autodiff,
    Fusion: cfg(all(feature = "cube", feature = "fusion")),
)]
pub trait FusedOps: Backend {
    /// `x w` in float32.
    #[fusion(default)]
    fn wide_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::linear(x, weight, None)
    }

    /// Gradient of x.
    #[fusion(default)]
    fn wide_product_x_backward(weight: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::linear_x_backward(weight, grad)
    }

    /// Gradient of w.
    #[fusion(default)]
    fn wide_product_weight_backward(x: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::linear_weight_backward(x, grad)
    }

    /// `x w` in the type of w, which may be half precision, for float32 x; with checkpointing, it is not kept.
    #[fusion(default)]
    fn transient_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        match narrow_type::<Self>(&weight) {
            Some(narrow) => {
                let wide = x.dtype().into();
                Self::float_cast(Self::linear(Self::float_cast(x, narrow), weight, None), wide)
            }
            None => Self::wide_product(x, weight),
        }
    }

    /// Gradient of x.
    #[fusion(default)]
    fn transient_product_x_backward(weight: FloatTensor<Self>, grad: FloatTensor<Self>) -> FloatTensor<Self> {
        match narrow_type::<Self>(&weight) {
            Some(narrow) => {
                let wide = grad.dtype().into();
                Self::float_cast(Self::linear_x_backward(weight, Self::float_cast(grad, narrow)), wide)
            }
            None => Self::wide_product_x_backward(weight, grad),
        }
    }

    /// Gradient of w.
    #[fusion(default)]
    fn transient_product_weight_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        match narrow_type::<Self>(&weight) {
            Some(narrow) => {
                let [x, grad] = [x, grad].map(|tensor| Self::float_cast(tensor, narrow));
                Self::linear_weight_backward(x, grad)
            }
            None => Self::wide_product_weight_backward(x, grad),
        }
    }

    /// `x w` for float32 x and half-precision w, without a gradient.
    #[fusion(default)]
    fn half_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let _ = (x, weight);
        not_differentiable()
    }

    /// `x w` for float32 x and w quantised with a scale for each `block` inputs of an output, without a gradient.
    #[fusion(default)]
    fn quantised_product(x: FloatTensor<Self>, weight: QuantizedTensor<Self>, block: usize) -> FloatTensor<Self> {
        let _ = (x, weight, block);
        not_differentiable()
    }

    /// `gelu(x + bias)`.
    #[fusion(dtype = x, shape = x)]
    fn bias_gelu(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradients of x and bias.
    #[fusion(meta = |x, bias, _| (x.clone(), bias.clone()))]
    fn bias_gelu_backward(
        x: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (x, bias, grad);
        not_differentiable()
    }

    /// The normalised rows, and mean and reciprocal deviation of each, `[rows, 2]`, which have no gradient.
    #[fusion(meta = |x, _, _| (x.clone(), specs::moments(x)))]
    fn affine_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Gradients of x, weight and bias.
    #[fusion(meta = |x, weight, _, _| (x.clone(), weight.clone(), weight.clone()))]
    fn affine_norm_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        moments: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (x, weight, moments, grad);
        not_differentiable()
    }

    /// `x + branch gate`.
    #[fusion(dtype = x, shape = x)]
    fn gated_sum(x: FloatTensor<Self>, branch: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradients of branch and gate; that of x is `grad`.
    #[fusion(meta = |branch, gate, _| (branch.clone(), gate.clone()))]
    fn gated_sum_backward(
        branch: FloatTensor<Self>,
        gate: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (branch, gate, grad);
        not_differentiable()
    }

    /// Labels `[B, S]` as attention reads them, made once for all layers.
    #[fusion(meta = |labels| specs::sorted(labels))]
    fn sorted_by_label(labels: IntTensor<Self>) -> IntTensor<Self>;

    /// Self-attention, with sorted labels: the output and the log-sum-exp of each query's scores, `[B, h, C]`, which has no gradient.
    #[fusion(meta = |qkv, _, _, kind| specs::attention(qkv, 3, kind.n_heads))]
    fn self_attention(
        qkv: FloatTensor<Self>,
        angles: FloatTensor<Self>,
        labels: IntTensor<Self>,
        kind: AttentionKind,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Gradient of qkv.
    #[fusion(dtype = qkv, shape = qkv)]
    #[allow(clippy::too_many_arguments)]
    fn self_attention_backward(
        qkv: FloatTensor<Self>,
        angles: FloatTensor<Self>,
        labels: IntTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        kind: AttentionKind,
    ) -> FloatTensor<Self> {
        let _ = (qkv, angles, labels, out, lse, grad, kind);
        not_differentiable()
    }

    /// Cross-attention, with sorted labels: the output and the log-sum-exp of each query's scores, `[B, h, Q]`, which has no gradient.
    #[fusion(meta = |q, _, _, _, _, _, kind| specs::attention(q, 1, kind.n_heads))]
    #[allow(clippy::too_many_arguments)]
    fn cross_attention(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        q_angles: FloatTensor<Self>,
        k_angles: FloatTensor<Self>,
        q_labels: IntTensor<Self>,
        k_labels: IntTensor<Self>,
        kind: AttentionKind,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// Gradients of q and kv.
    #[fusion(meta = |q, kv, _, _, _, _, _, _, _, _| (q.clone(), kv.clone()))]
    #[allow(clippy::too_many_arguments)]
    fn cross_attention_backward(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        q_angles: FloatTensor<Self>,
        k_angles: FloatTensor<Self>,
        q_labels: IntTensor<Self>,
        k_labels: IntTensor<Self>,
        out: FloatTensor<Self>,
        lse: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        kind: AttentionKind,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (q, kv, q_angles, k_angles, q_labels, k_labels, out, lse, grad, kind);
        not_differentiable()
    }

    /// The weighted sum of cross-entropies, `[1]`, without gradients.
    #[fusion(dtype = x, shape = Shape::new([1]))]
    fn linear_cross_entropy(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        skip: usize,
    ) -> FloatTensor<Self>;

    /// The same with the gradients of x, w and b: the weights say all that a backward pass would learn, up to one
    /// factor, so the logits are made once.
    #[fusion(meta = |x, w, b, _, _, _| (specs::number(x), x.clone(), w.clone(), b.clone()))]
    fn linear_cross_entropy_with_gradients(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        skip: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (x, w, b, targets, weights, skip);
        not_differentiable()
    }

    /// One step of AdamW: the parameter and its two moments, in the memory they come in where nobody else holds it.
    #[fusion(meta = |parameter, _, moment_1, moment_2, _| (parameter.clone(), moment_1.clone(), moment_2.clone()))]
    fn adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        moment_1: FloatTensor<Self>,
        moment_2: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let _ = (parameter, gradient, moment_1, moment_2, step);
        not_differentiable()
    }

    /// The sum of squares, `[1]`.
    #[fusion(default)]
    fn sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_sum(Self::float_mul(x.clone(), x))
    }

    /// `x factor`, for one number `[1]`.
    #[fusion(default)]
    fn scaled(x: FloatTensor<Self>, factor: FloatTensor<Self>) -> FloatTensor<Self> {
        scaled::<Self>(x, factor)
    }

    /// `x + (y - x) share`.
    #[fusion(default)]
    fn moved(x: FloatTensor<Self>, y: FloatTensor<Self>, share: f32) -> FloatTensor<Self> {
        Self::float_add(x.clone(), Self::float_mul_scalar(Self::float_sub(y, x), share.into()))
    }
}

// What operations return, for fusion, which runs them later.
#[cfg(all(feature = "cube", feature = "fusion"))]
mod specs {
    use burn::backend::fusion::custom::TensorSpec;
    use burn::tensor::Shape;

    pub(super) fn number(x: &TensorSpec) -> TensorSpec {
        TensorSpec::new(Shape::new([1]), x.dtype)
    }

    pub(super) fn sorted(labels: &TensorSpec) -> TensorSpec {
        let [n_rows, n_tokens] = labels.shape.dims();
        TensorSpec::new(Shape::new([n_rows, 2 * n_tokens]), burn::tensor::DType::I32)
    }

    pub(super) fn moments(x: &TensorSpec) -> TensorSpec {
        let width = x.shape.last().copied().unwrap_or(1).max(1);
        TensorSpec::new(Shape::new([x.shape.num_elements() / width, 2]), x.dtype)
    }

    // Of queries that stand among `parts` vectors of each token.
    pub(super) fn attention(queries: &TensorSpec, parts: usize, n_heads: usize) -> (TensorSpec, TensorSpec) {
        let [n_rows, n_queries, width] = queries.shape.dims();
        let shapes = [[n_rows, n_queries, width / parts], [n_rows, n_heads, n_queries]];
        shapes.map(|shape| TensorSpec::new(Shape::new(shape), queries.dtype)).into()
    }
}

// Registers the gradients of those parents that are on the graph.
fn register<B: Backend, const N: usize>(
    parents: [Option<NodeId>; N],
    gradients: [FloatTensor<B>; N],
    grads: &mut Gradients,
) {
    for (parent, gradient) in parents.into_iter().zip(gradients) {
        if let Some(parent) = parent {
            grads.register::<B>(parent, gradient);
        }
    }
}

/// What a backward pass has of an operation's input: a node of the graph, or the numbers of what is not on it.
#[derive(Debug)]
enum Input<B: Backend> {
    Tracked(NodeId),
    Constant(FloatTensor<B>),
}

/// Computes an output again in the backward pass, where checkpointing did not keep it.
#[derive(Debug)]
struct Again<B: Backend, const N: usize> {
    inputs: [Input<B>; N],
    run: fn([FloatTensor<B>; N]) -> FloatTensor<B>,
}

impl<B: Backend, const N: usize> Again<B, N> {
    fn new(inputs: [&FloatTensor<Autodiff<B>>; N], run: fn([FloatTensor<B>; N]) -> FloatTensor<B>) -> Self {
        let inputs = inputs.map(|tensor| match tensor.is_tracked() {
            true => Input::Tracked(tensor.id()),
            false => Input::Constant(tensor.primitive().clone()),
        });
        Self { inputs, run }
    }
}

impl<B: Backend, const N: usize> RetroForward for Again<B, N> {
    fn forward(&self, states: &mut BackwardStates, out_node: NodeId) {
        let inputs = self.inputs.each_ref().map(|input| match input {
            Input::Tracked(id) => states.get_state::<FloatTensor<B>>(id),
            Input::Constant(tensor) => tensor.clone(),
        });
        states.save(out_node, (self.run)(inputs));
    }
}

// Those of an operation's inputs that a checkpoint can hold.
fn tracked<B: Backend, const N: usize>(
    inputs: [&FloatTensor<Autodiff<B>>; N],
) -> impl Iterator<Item = &FloatTensor<Autodiff<B>>> {
    inputs.into_iter().filter(|tensor| tensor.is_tracked())
}

impl<B: FusedOps, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn wide_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct WideProduct;

        impl<B: FusedOps> Backward<B, 2> for WideProduct {
            // Each is needed for the other's gradient only.
            type State = [Option<NodeId>; 2];

            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let grad = grads.consume::<B>(&ops.node);
                let saved = ops.state.map(|id| id.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id)));
                let ([x, weight], [of_x, of_weight]) = (saved, ops.parents);
                if let (Some(parent), Some(weight)) = (of_x, weight) {
                    grads.register::<B>(parent.id, B::wide_product_x_backward(weight, grad.clone()));
                }
                if let (Some(parent), Some(x)) = (of_weight, x) {
                    grads.register::<B>(parent.id, B::wide_product_weight_backward(x, grad));
                }
            }
        }

        match WideProduct.prepare::<C>([x.node(), weight.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let (for_weight, for_x) = (weight.is_tracked(), x.is_tracked());
                let saved = [for_weight.then(|| prep.checkpoint(&x)), for_x.then(|| prep.checkpoint(&weight))];
                prep.finish(saved, B::wide_product(x.into_primitive(), weight.into_primitive()))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::wide_product(x.into_primitive(), weight.into_primitive())),
        }
    }

    fn transient_product(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct TransientProduct;

        impl<B: FusedOps> Backward<B, 2> for TransientProduct {
            type State = [NodeId; 2];

            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let grad = grads.consume::<B>(&ops.node);
                let [x, weight] = ops.state.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
                let [of_x, of_weight] = ops.parents;
                if let Some(parent) = of_weight {
                    let gradient = B::transient_product_weight_backward(x, weight.clone(), grad.clone());
                    grads.register::<B>(parent.id, gradient);
                }
                if let Some(parent) = of_x {
                    grads.register::<B>(parent.id, B::transient_product_x_backward(weight, grad));
                }
            }
        }

        let again = Again::new([&x, &weight], |[x, weight]| B::transient_product(x, weight));
        let prepared = TransientProduct.prepare::<C>([x.node(), weight.node()]).memory_bound().retro_forward(again);
        match prepared.parents(tracked([&x, &weight])).stateful() {
            OpsKind::Tracked(mut prep) => {
                let saved = [prep.checkpoint(&x), prep.checkpoint(&weight)];
                prep.finish(saved, B::transient_product(x.into_primitive(), weight.into_primitive()))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::transient_product(x.into_primitive(), weight.into_primitive())),
        }
    }

    fn bias_gelu(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct BiasGelu;

        impl<B: FusedOps> Backward<B, 2> for BiasGelu {
            type State = [NodeId; 2];

            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let grad = grads.consume::<B>(&ops.node);
                let [x, bias] = ops.state.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
                let (x, bias) = B::bias_gelu_backward(x, bias, grad);
                register::<B, 2>(ops.parents.map(|parent| parent.map(|parent| parent.id)), [x, bias], grads);
            }
        }

        let again = Again::new([&x, &bias], |[x, bias]| B::bias_gelu(x, bias));
        let prepared = BiasGelu.prepare::<C>([x.node(), bias.node()]).memory_bound().retro_forward(again);
        match prepared.parents(tracked([&x, &bias])).stateful() {
            OpsKind::Tracked(mut prep) => {
                let saved = [prep.checkpoint(&x), prep.checkpoint(&bias)];
                prep.finish(saved, B::bias_gelu(x.into_primitive(), bias.into_primitive()))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::bias_gelu(x.into_primitive(), bias.into_primitive())),
        }
    }

    fn affine_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        #[derive(Debug)]
        struct LayerNorm;

        impl<B: FusedOps> Backward<B, 3> for LayerNorm {
            type State = ([NodeId; 2], FloatTensor<B>);

            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let grad = grads.consume::<B>(&ops.node);
                let (saved, moments) = ops.state;
                let [x, weight] = saved.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
                let (x, weight, bias) = B::affine_norm_backward(x, weight, moments, grad);
                register::<B, 3>(ops.parents.map(|parent| parent.map(|parent| parent.id)), [x, weight, bias], grads);
            }
        }

        let again = Again::new([&x, &weight, &bias], |[x, weight, bias]| B::affine_norm(x, weight, bias).0);
        let prepared = LayerNorm.prepare::<C>([x.node(), weight.node(), bias.node()]).memory_bound();
        match prepared.retro_forward(again).parents(tracked([&x, &weight, &bias])).stateful() {
            OpsKind::Tracked(mut prep) => {
                let saved = [prep.checkpoint(&x), prep.checkpoint(&weight)];
                let (y, moments) = B::affine_norm(x.into_primitive(), weight.into_primitive(), bias.into_primitive());
                (prep.finish((saved, moments.clone()), y), FloatTensor::<Self>::new(moments))
            }
            OpsKind::UnTracked(prep) => {
                let (y, moments) = B::affine_norm(x.into_primitive(), weight.into_primitive(), bias.into_primitive());
                (prep.finish(y), FloatTensor::<Self>::new(moments))
            }
        }
    }

    fn gated_sum(x: FloatTensor<Self>, branch: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct GatedSum;

        impl<B: FusedOps> Backward<B, 3> for GatedSum {
            type State = [NodeId; 2];

            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let grad = grads.consume::<B>(&ops.node);
                let [branch, gate] = ops.state.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
                let (branch, gate) = B::gated_sum_backward(branch, gate, grad.clone());
                register::<B, 3>(ops.parents.map(|parent| parent.map(|parent| parent.id)), [grad, branch, gate], grads);
            }
        }

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

    fn sorted_by_label(labels: IntTensor<Self>) -> IntTensor<Self> {
        B::sorted_by_label(labels)
    }

    fn self_attention(
        qkv: FloatTensor<Self>,
        angles: FloatTensor<Self>,
        labels: IntTensor<Self>,
        kind: AttentionKind,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        #[derive(Debug)]
        struct SelfAttention;

        #[derive(Clone, Debug)]
        struct Saved<B: Backend> {
            qkv: NodeId,
            angles: FloatTensor<B>,
            labels: IntTensor<B>,
            out: FloatTensor<B>,
            lse: FloatTensor<B>,
            kind: AttentionKind,
        }

        impl<B: FusedOps> Backward<B, 1> for SelfAttention {
            type State = Saved<B>;

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let grad = grads.consume::<B>(&ops.node);
                let Saved { qkv, angles, labels, out, lse, kind } = ops.state;
                let qkv: FloatTensor<B> = checkpointer.retrieve_node_output(qkv);
                let qkv = B::self_attention_backward(qkv, angles, labels, out, lse, grad, kind);
                register::<B, 1>(ops.parents.map(|parent| parent.map(|parent| parent.id)), [qkv], grads);
            }
        }

        let angles = angles.into_primitive();
        let run = |qkv: FloatTensor<B>, labels: IntTensor<B>| B::self_attention(qkv, angles.clone(), labels, kind);
        match SelfAttention.prepare::<C>([qkv.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let saved = prep.checkpoint(&qkv);
                let (out, lse) = run(qkv.into_primitive(), labels.clone());
                let state = Saved { qkv: saved, angles, labels, out: out.clone(), lse: lse.clone(), kind };
                (prep.finish(state, out), FloatTensor::<Self>::new(lse))
            }
            OpsKind::UnTracked(prep) => {
                let (out, lse) = run(qkv.into_primitive(), labels);
                (prep.finish(out), FloatTensor::<Self>::new(lse))
            }
        }
    }

    fn cross_attention(
        q: FloatTensor<Self>,
        kv: FloatTensor<Self>,
        q_angles: FloatTensor<Self>,
        k_angles: FloatTensor<Self>,
        q_labels: IntTensor<Self>,
        k_labels: IntTensor<Self>,
        kind: AttentionKind,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        #[derive(Debug)]
        struct CrossAttention;

        #[derive(Clone, Debug)]
        struct Saved<B: Backend> {
            inputs: [NodeId; 2],
            angles: [FloatTensor<B>; 2],
            labels: [IntTensor<B>; 2],
            out: FloatTensor<B>,
            lse: FloatTensor<B>,
            kind: AttentionKind,
        }

        impl<B: FusedOps> Backward<B, 2> for CrossAttention {
            type State = Saved<B>;

            fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
                let grad = grads.consume::<B>(&ops.node);
                let Saved { inputs, angles, labels, out, lse, kind } = ops.state;
                let [q, kv] = inputs.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
                let ([qa, ka], [ql, kl]) = (angles, labels);
                let (q, kv) = B::cross_attention_backward(q, kv, qa, ka, ql, kl, out, lse, grad, kind);
                register::<B, 2>(ops.parents.map(|parent| parent.map(|parent| parent.id)), [q, kv], grads);
            }
        }

        let angles = [q_angles, k_angles].map(|table| table.into_primitive());
        let labels = [q_labels, k_labels];
        let run = |q: FloatTensor<B>, kv: FloatTensor<B>| {
            let ([qa, ka], [ql, kl]) = (angles.clone(), labels.clone());
            B::cross_attention(q, kv, qa, ka, ql, kl, kind)
        };
        match CrossAttention.prepare::<C>([q.node(), kv.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let inputs = [prep.checkpoint(&q), prep.checkpoint(&kv)];
                let (out, lse) = run(q.into_primitive(), kv.into_primitive());
                let state = Saved { inputs, angles, labels, out: out.clone(), lse: lse.clone(), kind };
                (prep.finish(state, out), FloatTensor::<Self>::new(lse))
            }
            OpsKind::UnTracked(prep) => {
                let (out, lse) = run(q.into_primitive(), kv.into_primitive());
                (prep.finish(out), FloatTensor::<Self>::new(lse))
            }
        }
    }

    fn linear_cross_entropy(
        x: FloatTensor<Self>,
        w: FloatTensor<Self>,
        b: FloatTensor<Self>,
        targets: IntTensor<Self>,
        weights: FloatTensor<Self>,
        skip: usize,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct LinearCrossEntropy;

        impl<B: FusedOps> Backward<B, 3> for LinearCrossEntropy {
            type State = [FloatTensor<B>; 3];

            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
                let grad = grads.consume::<B>(&ops.node); // [1]
                let scaled = ops.state.map(|gradient| scaled::<B>(gradient, grad.clone()));
                register::<B, 3>(ops.parents.map(|parent| parent.map(|parent| parent.id)), scaled, grads);
            }
        }

        let weights = weights.into_primitive();
        match LinearCrossEntropy.prepare::<C>([x.node(), w.node(), b.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let [x, w, b] = [x, w, b].map(|tensor| tensor.into_primitive());
                let (loss, gx, gw, gb) = B::linear_cross_entropy_with_gradients(x, w, b, targets, weights, skip);
                prep.finish([gx, gw, gb], loss)
            }
            OpsKind::UnTracked(prep) => {
                let [x, w, b] = [x, w, b].map(|tensor| tensor.into_primitive());
                prep.finish(B::linear_cross_entropy(x, w, b, targets, weights, skip))
            }
        }
    }
}

// The type of a weight in half precision.
fn narrow_type<B: Backend>(weight: &FloatTensor<B>) -> Option<FloatDType> {
    is_half(weight.dtype()).then(|| weight.dtype().into())
}

// A gradient times one number, `[1]`, in the gradient's type.
fn scaled<B: Backend>(gradient: FloatTensor<B>, factor: FloatTensor<B>) -> FloatTensor<B> {
    let ones = vec![1; gradient.shape().num_dims()];
    let factor =
        if factor.dtype() == gradient.dtype() { factor } else { B::float_cast(factor, gradient.dtype().into()) };
    B::float_mul(gradient, B::float_reshape(factor, ones.into()))
}
