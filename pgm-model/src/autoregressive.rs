//! The autoregressive baseline: the same blocks, each position seeing itself and what comes before it.
//!
//! The logits at position i predict the token at position i + 1.
//!
//! Shapes: B batch, L length, S new tokens, H hidden, V vocabulary.

use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{Device, Int, Tensor};

use crate::attention::Visibility;
use crate::block::{EncoderBlock, KeyValues};
use crate::conditioning::TimeEmbedding;
use crate::config::AutoregressiveConfig;
use crate::head::{Goal, Head};
use crate::partition::{embed, embedding};
use crate::plan::Positions;
use crate::rotary::{AngleTables, RotaryAngles};

/// Predicts each token from those before it.
#[derive(Module, Debug)]
pub struct AutoregressiveTransformer {
    embedding: Embedding,
    time: Option<TimeEmbedding>,
    blocks: Vec<EncoderBlock>,
    head: Head,
    #[module(skip)]
    rotary: AngleTables,
}

/// What a sequence has left behind in every block, so that a further token costs one token.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    blocks: Vec<KeyValues>,
    n_tokens: usize,
}

impl Cache {
    /// Tokens of each row that it holds.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }
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

    /// Logits of the token after each position.
    ///
    /// # Shapes
    /// tokens `[B, L] -> [B, L, V]`
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let condition = self.condition();
        self.head.forward(self.encode(tokens, condition.as_ref()), condition.as_ref())
    }

    /// The weighted loss of [`forward`](Self::forward)'s logits, `[1]`: the goal's targets are the tokens after those given.
    ///
    /// # Shapes
    /// tokens `[B, L]`
    pub fn loss(&self, tokens: Tensor<2, Int>, goal: &Goal) -> Tensor<1> {
        let condition = self.condition();
        self.head.loss(self.encode(tokens, condition.as_ref()), condition.as_ref(), goal)
    }

    // [B, L] -> [B, L, H]
    fn encode(&self, tokens: Tensor<2, Int>, condition: Option<&Tensor<2>>) -> Tensor<3> {
        let (length, device) = (tokens.dims()[1], tokens.device());
        let angles = RotaryAngles::new(&self.rotary, &Positions::range(0..length, &device));
        let visibility = Visibility::causal(length, length, &device);
        let x = embed(&self.embedding, tokens); // [B, L, H]
        self.blocks.iter().fold(x, |x, block| block.forward(x, condition, &angles, Some(&visibility)))
    }

    /// Logits of the token after the last of `tokens`, which follow those in `cache` and are added to it.
    ///
    /// # Shapes
    /// tokens `[B, S] -> [B, 1, V]`
    pub fn forward_cached(&self, tokens: Tensor<2, Int>, cache: &mut Cache) -> Tensor<3> {
        let condition = self.condition();
        let (n_new, device) = (tokens.dims()[1], tokens.device());
        let n_tokens = cache.n_tokens + n_new;
        let angles = RotaryAngles::new(&self.rotary, &Positions::range(cache.n_tokens..n_tokens, &device));
        // A single new token sees everything.
        let visibility = (n_new > 1).then(|| Visibility::causal(n_new, n_tokens, &device));
        cache.blocks.resize_with(self.blocks.len(), KeyValues::default);
        cache.n_tokens = n_tokens;
        let mut x = embed(&self.embedding, tokens); // [B, S, H]
        for (block, cache) in self.blocks.iter().zip(&mut cache.blocks) {
            x = block.forward_cached(x, condition.as_ref(), &angles, visibility.as_ref(), cache);
        }
        self.head.forward(x.narrow(1, n_new - 1, 1), condition.as_ref())
    }
}
