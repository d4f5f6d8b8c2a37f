//! The autoregressive baseline: the same blocks, each position seeing itself and what comes before it.
//!
//! The logits at position i predict the token at position i + 1.
//!
//! Shapes: B batch, L length, S new tokens, H hidden, V vocabulary.

use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::block::{EncoderBlock, KeyValues};
use crate::conditioning::TimeEmbedding;
use crate::config::AutoregressiveConfig;
use crate::head::{Head, LossTarget};
use crate::partition::{embed, embedding};
use crate::plan::Positions;
use crate::rotary::{AngleTables, RotaryAngles};
use crate::visibility::Visibility;

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

/// What sequences have left behind in every block, so that a further token costs one token.
///
/// Rows may hold different numbers of tokens: they end at the same place, and what fills the shorter ones up in front is
/// never seen.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    // Empty as long as no row holds a token.
    blocks: Vec<KeyValues>,
    lengths: Vec<usize>,
}

impl Cache {
    /// Of rows that hold nothing yet.
    pub fn new(n_rows: usize) -> Self {
        Self { blocks: Vec::new(), lengths: vec![0; n_rows] }
    }

    /// Tokens that each row holds.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    fn width(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    /// Some rows of it, in this order; one may be taken more than once.
    #[must_use]
    pub fn rows(&self, rows: &[usize]) -> Self {
        let some = Self { blocks: Vec::new(), lengths: rows.iter().map(|&row| self.lengths[row]).collect() };
        let width = some.width();
        if width == 0 {
            return some;
        }
        let blocks = self.blocks.iter().map(|block| block.rows(rows, width)).collect();
        Self { blocks, ..some }
    }

    /// The rows of several, one behind the other.
    #[must_use]
    pub fn joined(parts: &[Self]) -> Self {
        let all = Self { blocks: Vec::new(), lengths: parts.iter().flat_map(|part| part.lengths.clone()).collect() };
        let width = all.width();
        let parts: Vec<&Self> = parts.iter().filter(|part| !part.lengths.is_empty()).collect();
        let n_blocks = parts.iter().map(|part| part.blocks.len()).max().unwrap_or(0);
        let of_block = |index: usize| {
            let parts = parts.iter().map(|part| (part.blocks.get(index), part.lengths.len()));
            KeyValues::joined(&parts.collect::<Vec<_>>(), width)
        };
        Self { blocks: (0..n_blocks).map(of_block).collect(), ..all }
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
        self.logits(self.hidden(tokens))
    }

    /// As [`forward`](Self::forward), before the head.
    ///
    /// # Shapes
    /// tokens `[B, L] -> [B, L, H]`
    pub fn hidden(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        self.encode(tokens, self.condition().as_ref())
    }

    /// The head alone.
    ///
    /// # Shapes
    /// `[B, L, H] -> [B, L, V]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.head.forward(hidden, self.condition().as_ref())
    }

    /// The weighted loss of [`forward`](Self::forward)'s logits, `[1]`: the goal's targets are the tokens after those given.
    ///
    /// # Shapes
    /// tokens `[B, L]`
    pub fn loss(&self, tokens: Tensor<2, Int>, goal: &LossTarget) -> Tensor<1> {
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
    /// tokens `[B, S] -> [B, 1, V]`; S is 1 where the rows of the cache differ in length
    ///
    /// # Panics
    /// For other shapes, which is a programmer's error.
    pub fn forward_cached(&self, tokens: Tensor<2, Int>, cache: &mut Cache) -> Tensor<3> {
        let condition = self.condition();
        let ([n_rows, n_new], device) = (tokens.dims(), tokens.device());
        cache.lengths.resize(n_rows, 0);
        let width = cache.width() + n_new;
        let ragged = cache.lengths.iter().any(|&length| length + n_new != width);
        assert!(n_new == 1 || !ragged, "rows of different lengths go on by one token at a time");
        let positions = if ragged {
            let positions: Vec<Vec<usize>> = cache.lengths.iter().map(|&length| vec![length]).collect();
            Positions::new(&positions, &device)
        } else {
            Positions::range(width - n_new..width, &device)
        };
        let visibility = match (ragged, n_new) {
            (true, _) => Some(behind_fillers(&cache.lengths, width, &device)),
            // A single new token sees everything.
            (false, 1) => None,
            (false, _) => Some(Visibility::causal(n_new, width, &device)),
        };
        let angles = RotaryAngles::new(&self.rotary, &positions);
        cache.blocks.resize_with(self.blocks.len(), KeyValues::default);
        cache.lengths.iter_mut().for_each(|length| *length += n_new);
        let mut x = embed(&self.embedding, tokens); // [B, S, H]
        for (block, cache) in self.blocks.iter().zip(&mut cache.blocks) {
            x = block.forward_cached(x, condition.as_ref(), &angles, visibility.as_ref(), cache);
        }
        self.head.forward(x.narrow(1, n_new - 1, 1), condition.as_ref())
    }
}

// One more token in each row sees itself and the `lengths` before it of `width` in all.
fn behind_fillers(lengths: &[usize], width: usize, device: &Device) -> Visibility {
    let is_filler = |length: usize| (0..width).map(move |slot| i32::from(slot + length + 1 < width));
    let keys: Vec<i32> = lengths.iter().flat_map(|&length| is_filler(length)).collect();
    let keys = Tensor::from_data(TensorData::new(keys, [lengths.len(), width]), device);
    Visibility::across(Tensor::zeros([lengths.len(), 1], device), keys)
}
