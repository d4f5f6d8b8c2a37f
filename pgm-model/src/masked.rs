//! The masked baseline (MDLM's DiT, arXiv 2406.07524) from the same blocks.
//!
//! Shapes: B batch, L length, K positions asked for, H hidden, V vocabulary.

use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{Device, Int, Tensor, assert_shape};

use crate::block::EncoderBlock;
use crate::conditioning::TimeEmbedding;
use crate::config::MaskedConfig;
use crate::head::{Head, LossTarget};
use crate::partition::{embed, embedding};
use crate::plan::Positions;
use crate::rotary::{AngleTables, RotaryAngles};

/// Predicts the tokens behind mask tokens, from the full sequence.
#[derive(Module, Debug)]
pub struct MaskedTransformer {
    embedding: Embedding,
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

    /// The network for inference: what the condition does is folded into the weights, for the same logits to rounding.
    /// It can neither be trained nor stored any more.
    pub fn folded(self) -> Self {
        let Some(condition) = self.condition() else { return self };
        Self {
            time: None,
            blocks: self.blocks.into_iter().map(|block| block.folded(&condition)).collect(),
            head: self.head.folded(&condition),
            ..self
        }
    }

    // The condition of all rows, `[1, c]`; absent in a folded network.
    fn condition(&self) -> Option<Tensor<2>> {
        self.time.as_ref().map(TimeEmbedding::forward)
    }

    /// Logits at every position.
    ///
    /// # Shapes
    /// tokens with masks `[B, L] -> [B, L, V]`
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let condition = self.condition();
        self.head.forward(self.encode(tokens, condition.as_ref()), condition.as_ref())
    }

    /// The weighted loss of [`forward`](Self::forward)'s logits, `[1]`.
    ///
    /// # Shapes
    /// tokens with masks `[B, L]`
    pub fn loss(&self, tokens: Tensor<2, Int>, goal: &LossTarget) -> Tensor<1> {
        let condition = self.condition();
        self.head.loss(self.encode(tokens, condition.as_ref()), condition.as_ref(), goal)
    }

    /// Logits at some positions; the network runs over all of them, the head only over these.
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
        let condition = self.condition();
        let encoded = self.encode(tokens, condition.as_ref());
        let [n_rows, length, width] = encoded.dims();
        let n_positions = positions.indices().dims()[1];
        assert_shape!(positions.indices(), [n_rows, n_positions]);
        // Rows of all sequences in one list: row b, position i is entry b L + i.
        let row_start = Tensor::<1, Int>::arange(0..n_rows as i64, &encoded.device()).mul_scalar(length as i32);
        let index = positions.indices().clone() + row_start.unsqueeze_dim(1); // [B, K]
        let chosen = encoded.reshape([n_rows * length, width]).select(0, index.reshape([n_rows * n_positions]));
        chosen.reshape([n_rows, n_positions, width])
    }

    /// The head alone.
    ///
    /// # Shapes
    /// `[B, K, H] -> [B, K, V]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.head.forward(hidden, self.condition().as_ref())
    }

    fn encode(&self, tokens: Tensor<2, Int>, condition: Option<&Tensor<2>>) -> Tensor<3> {
        let length = tokens.dims()[1];
        let angles = RotaryAngles::new(&self.rotary, &Positions::all(1, length, &tokens.device()));
        let x = embed(&self.embedding, tokens); // [B, L, H]
        self.blocks.iter().fold(x, |x, block| block.forward(x, condition, &angles, None))
    }
}
