//! The autoregressive baseline: encoder blocks with causal attention.
//!
//! The logits at position i predict the token at position i + 1.
// B batch, L length, S new tokens, C cached and new tokens, H hidden, V vocabulary

use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::cache::Cache;
use super::embedding::{embed, embedding};
use crate::attention_plan::SelfAttentionPlan;
use crate::condition::{Condition, TimeEmbedding};
use crate::config::AutoregressiveConfig;
use crate::layers::{EncoderBlock, Head, KeyValues, LossTarget};
use crate::rotary::{AngleTables, RotaryAngles};
use crate::sequence::Positions;
use crate::visibility::Visibility;

/// Predicts each token from those before it.
#[derive(Module, Debug)]
pub struct AutoregressiveTransformer {
    pub(super) embedding: Embedding,
    time: Option<TimeEmbedding>,
    blocks: Vec<EncoderBlock>,
    head: Head,
    #[module(skip)]
    rotary: AngleTables,
}

impl AutoregressiveTransformer {
    /// A new network with the paper's initialisation. Parameters are drawn on first use, from the device's generator.
    pub fn new(config: &AutoregressiveConfig, device: &Device) -> Self {
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

    // `None` in a folded network.
    fn condition(&self) -> Option<Condition> {
        self.time.as_ref().map(|time| Condition::Constant(time.forward()))
    }

    /// Logits of the token after each position.
    ///
    /// # Shapes
    /// tokens `[B, L] -> [B, L, V]`
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        self.logits(self.hidden(tokens))
    }

    /// As [`forward`](Self::forward), before the head.
    ///
    /// # Shapes
    /// tokens `[B, L] -> [B, L, H]`
    pub fn hidden(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        self.run(tokens, self.condition().as_ref())
    }

    /// The head alone.
    ///
    /// # Shapes
    /// `[B, L, H] -> [B, L, V]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.head.forward(hidden, self.condition().as_ref())
    }

    /// The weighted loss of the logits of [`forward`](Self::forward). The targets are the tokens that follow `tokens`.
    ///
    /// # Shapes
    /// tokens `[B, L] -> [1]`
    pub fn loss(&self, tokens: Tensor<2, Int>, target: &LossTarget) -> Tensor<1> {
        let condition = self.condition();
        self.head.loss(self.run(tokens, condition.as_ref()), condition.as_ref(), target)
    }

    // [B, L] -> [B, L, H]
    fn run(&self, tokens: Tensor<2, Int>, condition: Option<&Condition>) -> Tensor<3> {
        let (length, device) = (tokens.dims()[1], tokens.device());
        let angles = RotaryAngles::new(&self.rotary, &Positions::range(0..length, &device));
        let plan = SelfAttentionPlan { angles, visibility: Some(Visibility::causal(length, length, &device)) };
        let x = embed(&self.embedding, tokens); // [B, L, H]
        self.blocks.iter().fold(x, |x, block| block.forward(x, condition, &plan))
    }

    /// Logits of the token after the last of `tokens`. `cache` holds the earlier tokens, and `tokens` are appended to it.
    ///
    /// # Shapes
    /// tokens `[B, S] -> [B, 1, V]`
    ///
    /// # Panics
    /// When the cached rows differ in length and S is not 1.
    pub fn forward_cached(&self, tokens: Tensor<2, Int>, cache: &mut Cache) -> Tensor<3> {
        let condition = self.condition();
        let n_new = tokens.dims()[1];
        let plan = self.cached_plan(&tokens, cache);
        cache.blocks.resize_with(self.blocks.len(), KeyValues::default);
        cache.lengths.iter_mut().for_each(|length| *length += n_new);
        let mut x = embed(&self.embedding, tokens); // [B, S, H]
        for (block, cache) in self.blocks.iter().zip(&mut cache.blocks) {
            x = block.forward_cached(x, condition.as_ref(), &plan, cache);
        }
        self.head.forward(x.narrow(1, n_new - 1, 1), condition.as_ref()) // [B, 1, V]
    }

    // Angles of the new tokens, and which cached and new tokens they see.
    fn cached_plan(&self, tokens: &Tensor<2, Int>, cache: &mut Cache) -> SelfAttentionPlan {
        let ([n_rows, n_new], device) = (tokens.dims(), tokens.device());
        cache.lengths.resize(n_rows, 0);
        let width = cache.width() + n_new;
        let ragged = cache.lengths.iter().any(|&length| length + n_new != width);
        assert!(n_new == 1 || !ragged, "rows of different lengths are continued by one token at a time");
        let positions = if ragged {
            let positions: Vec<Vec<usize>> = cache.lengths.iter().map(|&length| vec![length]).collect();
            Positions::new(&positions, &device)
        } else {
            Positions::range(width - n_new..width, &device)
        };
        let visibility = match (ragged, n_new) {
            (true, _) => Some(without_padding(&cache.lengths, width, &device)),
            // A single new token sees every token.
            (false, 1) => None,
            (false, _) => Some(Visibility::causal(n_new, width, &device)),
        };
        SelfAttentionPlan { angles: RotaryAngles::new(&self.rotary, &positions), visibility }
    }
}

// One new token per row sees itself and the `lengths` tokens before it, not the padding in front: `[B, 1]` of `[B, C]`.
fn without_padding(lengths: &[usize], width: usize, device: &Device) -> Visibility {
    let is_padding = |length: usize| (0..width).map(move |index| i32::from(index + length + 1 < width));
    let keys: Vec<i32> = lengths.iter().flat_map(|&length| is_padding(length)).collect();
    let keys = Tensor::from_data(TensorData::new(keys, [lengths.len(), width]), device); // [B, C]
    Visibility::across(Tensor::zeros([lengths.len(), 1], device), keys)
}
