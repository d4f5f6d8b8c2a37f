//! Helpers that register the operations' gradients with Burn's autodiff.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};
use burn::tensor::{GradientCheckpointingStrategy, Tensor};

/// A tensor of the autodiff backend over `B`.
pub(crate) type AutodiffTensor<B> = FloatTensor<Autodiff<B>>;

/// Registers the gradients of those parents that are in the graph.
pub(crate) fn register<B: Backend, const N: usize>(
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

/// The saved outputs of these nodes, recomputed where checkpointing did not keep them.
pub(crate) fn saved<B: Backend, const N: usize>(
    nodes: [NodeId; N],
    checkpointer: &mut Checkpointer,
) -> [FloatTensor<B>; N] {
    nodes.map(|node| checkpointer.retrieve_node_output(node))
}

/// Those inputs of an operation that are in the graph: only they can be checkpointed.
pub(crate) fn tracked<B: Backend, const N: usize>(
    inputs: [&AutodiffTensor<B>; N],
) -> impl Iterator<Item = &AutodiffTensor<B>> {
    inputs.into_iter().filter(|tensor| tensor.is_tracked())
}

/// The tensor with Burn's gradient checkpointing switched on: operations on it recompute what they would keep.
pub(crate) fn with_recomputation<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.with_gradient_checkpointing_strategy(GradientCheckpointingStrategy::Balanced)
}

/// An input of a recomputed operation: a node of the graph, or a constant outside it.
#[derive(Debug)]
enum RecomputeInput<B: Backend> {
    Node(NodeId),
    Constant(FloatTensor<B>),
}

/// Recomputes an output in the backward pass, where checkpointing did not keep it.
#[derive(Debug)]
pub(crate) struct Recompute<B: Backend, const N: usize> {
    inputs: [RecomputeInput<B>; N],
    operation: fn([FloatTensor<B>; N]) -> FloatTensor<B>,
}

impl<B: Backend, const N: usize> Recompute<B, N> {
    pub(crate) fn new(inputs: [&AutodiffTensor<B>; N], operation: fn([FloatTensor<B>; N]) -> FloatTensor<B>) -> Self {
        let inputs = inputs.map(|tensor| match tensor.is_tracked() {
            true => RecomputeInput::Node(tensor.id()),
            false => RecomputeInput::Constant(tensor.primitive().clone()),
        });
        Self { inputs, operation }
    }
}

impl<B: Backend, const N: usize> RetroForward for Recompute<B, N> {
    fn forward(&self, states: &mut BackwardStates, out_node: NodeId) {
        let inputs = self.inputs.each_ref().map(|input| match input {
            RecomputeInput::Node(id) => states.get_state::<FloatTensor<B>>(id),
            RecomputeInput::Constant(tensor) => tensor.clone(),
        });
        states.save(out_node, (self.operation)(inputs));
    }
}
