//! The masked-diffusion baseline (MDLM, arXiv 2406.07524): encoder blocks with full attention.
// B batch, L length, K positions to decode, H hidden, V vocabulary

use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{Device, Int, Tensor};

use super::at_positions::at_positions;
use super::embedding::{embed, embedding};
use crate::attention_plan::SelfAttentionPlan;
use crate::condition::{Condition, TimeEmbedding};
use crate::config::MaskedConfig;
use crate::layers::{EncoderBlock, Head, LossTarget};
use crate::rotary::{AngleTables, RotaryAngles};
use crate::sequence::Positions;

/// Predicts the tokens behind mask tokens, from the full sequence.
#[derive(Module, Debug)]
pub struct MaskedTransformer {
    pub(super) embedding: Embedding,
    time: Option<TimeEmbedding>,
    blocks: Vec<EncoderBlock>,
    head: Head,
    #[module(skip)]
    rotary: AngleTables,
}

impl MaskedTransformer {
    /// A new network with the paper's initialisation. Parameters are drawn on first use, from the device's generator.
    pub fn new(config: &MaskedConfig, device: &Device) -> Self {
        let backbone = &config.backbone;
        Self {
            embedding: embedding(backbone, device),
            time: Some(TimeEmbedding::new(backbone.cond_dim, device)),
            blocks: (0..config.n_blocks).map(|_| EncoderBlock::new(backbone, device)).collect(),
            head: Head::new(backbone, device),
            rotary: AngleTables::new(backbone.head_dim(), backbone.length),
        }
    }

    /// The network for inference, see [`PartitionTransformer::folded`](crate::PartitionTransformer::folded).
    pub fn folded(self) -> Self {
        // Only a condition that all rows share can be folded.
        let Some(Condition::Constant(condition)) = self.condition() else { return self };
        Self {
            time: None,
            blocks: self.blocks.into_iter().map(|block| block.folded(&condition)).collect(),
            head: self.head.folded(&condition),
            ..self
        }
    }

    /// The network without its last blocks: hidden states are those after the first `n_blocks`.
    pub fn first_blocks(mut self, n_blocks: usize) -> Self {
        self.blocks.truncate(n_blocks);
        self
    }

    /// The number of blocks.
    pub fn n_blocks(&self) -> usize {
        self.blocks.len()
    }

    // `None` in a folded network.
    fn condition(&self) -> Option<Condition> {
        self.time.as_ref().map(|time| Condition::Constant(time.forward()))
    }

    /// Logits at every position.
    ///
    /// # Shapes
    /// tokens with masks `[B, L] -> [B, L, V]`
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let condition = self.condition();
        self.head.forward(self.run(tokens, condition.as_ref()), condition.as_ref())
    }

    /// The weighted loss of the logits of [`forward`](Self::forward).
    ///
    /// # Shapes
    /// tokens with masks `[B, L] -> [1]`
    pub fn loss(&self, tokens: Tensor<2, Int>, target: &LossTarget) -> Tensor<1> {
        let condition = self.condition();
        self.head.loss(self.run(tokens, condition.as_ref()), condition.as_ref(), target)
    }

    /// Logits at some positions: the blocks run over the full sequence, the head over `positions` only.
    ///
    /// # Shapes
    /// tokens with masks `[B, L]`, positions `[B, K] -> [B, K, V]`
    pub fn forward_at(&self, tokens: Tensor<2, Int>, positions: &Positions) -> Tensor<3> {
        self.logits(self.hidden_at(tokens, positions))
    }

    /// As [`forward_at`](Self::forward_at), before the head.
    ///
    /// # Shapes
    /// tokens with masks `[B, L]`, positions `[B, K] -> [B, K, H]`
    pub fn hidden_at(&self, tokens: Tensor<2, Int>, positions: &Positions) -> Tensor<3> {
        at_positions(self.run(tokens, self.condition().as_ref()), positions)
    }

    /// The head alone.
    ///
    /// # Shapes
    /// `[B, K, H] -> [B, K, V]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.head.forward(hidden, self.condition().as_ref())
    }

    // [B, L] -> [B, L, H]
    fn run(&self, tokens: Tensor<2, Int>, condition: Option<&Condition>) -> Tensor<3> {
        let length = tokens.dims()[1];
        let angles = RotaryAngles::new(&self.rotary, &Positions::all(1, length, &tokens.device()));
        let plan = SelfAttentionPlan { angles, visibility: None };
        let x = embed(&self.embedding, tokens); // [B, L, H]
        self.blocks.iter().fold(x, |x, block| block.forward(x, condition, &plan))
    }
}
