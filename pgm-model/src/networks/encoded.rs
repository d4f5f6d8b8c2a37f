//! Encoded clean tokens.
// B batch, C clean tokens, H hidden

use burn::tensor::Tensor;

use crate::attention_plan::CleanKeys;
use crate::condition::Condition;

/// All that decoding reads of the clean tokens: the encoder output, and each layer's keys and values of it.
///
/// Any number of [`decode`](crate::PartitionTransformer::decode) calls may share it.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Encoder output, `[B, C, H]`.
    pub(super) output: Tensor<3>,
    /// Keys, then values, of the GroupSwap, `[B, C, 2 H]`.
    pub(super) swap: Tensor<3>,
    /// Keys, then values, of each decoder block, `[B, C, 2 H]`.
    pub(super) blocks: Vec<Tensor<3>>,
    /// Positions and labels of the keys.
    pub(super) keys: CleanKeys,
    /// The condition of the rows; `None` in a folded network.
    pub(super) condition: Option<Condition>,
}

impl Encoded {
    /// The encoder output, `[B, C, H]`.
    pub fn output(&self) -> &Tensor<3> {
        &self.output
    }
}
