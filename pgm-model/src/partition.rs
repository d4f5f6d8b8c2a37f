//! The Partition Transformer: encoder, GroupSwap, decoder, head.
//!
//! Shapes: B batch, L length, C clean tokens, K positions to decode, H hidden, V vocabulary.

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{Device, FloatDType, Int, Tensor, assert_shape};

use crate::block::{DecoderBlock, EncoderBlock};
use crate::conditioning::TimeEmbedding;
use crate::config::{BackboneConfig, PartitionConfig};
use crate::group_swap::GroupSwap;
use crate::head::{Head, LossTarget};
use crate::ops::is_half;
use crate::plan::{AttentionPlan, CleanTokens, PackedRows, Partition, Positions};
use crate::rotary::AngleTables;

/// Predicts each group of a partitioned sequence from the other one.
#[derive(Module, Debug)]
pub struct PartitionTransformer {
    embedding: Embedding,
    time: Option<TimeEmbedding>,
    encoder: Vec<EncoderBlock>,
    swap: GroupSwap,
    decoder: Vec<DecoderBlock>,
    head: Head,
    #[module(skip)]
    rotary: AngleTables,
    #[module(skip)]
    sinusoids: AngleTables,
}

impl PartitionTransformer {
    /// A new network with the paper's initialisation. Parameters are drawn on first use, from the device's generator.
    pub fn new(config: &PartitionConfig, device: &Device) -> Self {
        let backbone = &config.backbone;
        Self {
            embedding: embedding(backbone, device),
            time: Some(TimeEmbedding::new(backbone.cond_dim, device)),
            encoder: (0..config.encoder_blocks).map(|_| EncoderBlock::new(backbone, device)).collect(),
            swap: GroupSwap::new(config, device),
            decoder: (0..config.decoder_blocks).map(|_| DecoderBlock::new(backbone, device)).collect(),
            head: Head::new(backbone, device),
            rotary: AngleTables::new(backbone.head_dim(), backbone.length),
            sinusoids: AngleTables::new(backbone.hidden_size, backbone.length),
        }
    }

    /// The network for inference: what the condition does is folded into the weights, for the same logits to rounding.
    /// It can neither be trained nor stored any more.
    pub fn folded(self) -> Self {
        let Some(condition) = self.condition() else { return self };
        Self {
            time: None,
            encoder: self.encoder.into_iter().map(|block| block.folded(&condition)).collect(),
            decoder: self.decoder.into_iter().map(|block| block.folded(&condition)).collect(),
            head: self.head.folded(&condition),
            ..self
        }
    }

    // The condition of all rows, `[1, c]`; absent in a folded network.
    fn condition(&self) -> Option<Tensor<2>> {
        self.time.as_ref().map(TimeEmbedding::forward)
    }

    /// Training: logits at every position, each predicted from the other group alone.
    ///
    /// # Shapes
    /// tokens `[B, L]` and groups `[B, L] -> [B, L, V]`
    pub fn forward_partition(&self, tokens: Tensor<2, Int>, partition: &Partition) -> Tensor<3> {
        let [n_rows, length] = tokens.dims();
        assert_shape!(partition.groups(), [n_rows, length]);
        let plan = AttentionPlan::partition(partition, &self.rotary);
        self.run(tokens, &plan)
    }

    /// The weighted loss of [`forward_partition`](Self::forward_partition)'s logits, `[1]`.
    ///
    /// # Shapes
    /// tokens and groups `[B, L]`
    pub fn loss_partition(&self, tokens: Tensor<2, Int>, partition: &Partition, goal: &LossTarget) -> Tensor<1> {
        let condition = self.condition();
        let decoded = self.decode(tokens, &AttentionPlan::partition(partition, &self.rotary), condition.as_ref());
        self.head.loss(decoded, condition.as_ref(), goal)
    }

    /// Sampling: logits at `positions` only, computed from the clean tokens only.
    ///
    /// # Shapes
    /// clean tokens `[B, C]`, positions `[B, K] -> [B, K, V]`
    pub fn forward_clean(&self, clean: &CleanTokens, positions: &Positions) -> Tensor<3> {
        let plan = AttentionPlan::clean(clean, positions, &self.rotary);
        self.run(clean.tokens().clone(), &plan)
    }

    /// As [`forward_clean`](Self::forward_clean), for rows that are joined: the logits of all their positions, `[1, K, V]`,
    /// row after row.
    pub fn forward_packed(&self, rows: &PackedRows) -> Tensor<3> {
        self.run(rows.tokens().clone(), &AttentionPlan::joined(rows, &self.rotary))
    }

    fn run(&self, tokens: Tensor<2, Int>, plan: &AttentionPlan) -> Tensor<3> {
        let condition = self.condition();
        self.head.forward(self.decode(tokens, plan, condition.as_ref()), condition.as_ref())
    }

    // [B, C] -> [B, K, H]
    fn decode(&self, tokens: Tensor<2, Int>, plan: &AttentionPlan, condition: Option<&Tensor<2>>) -> Tensor<3> {
        let mut encoded = embed(&self.embedding, tokens); // [B, C, H]
        for block in &self.encoder {
            encoded = block.forward(encoded, condition, &plan.keys, plan.within.as_ref());
        }
        let swapped = self.swap.forward(&encoded, plan, &self.sinusoids); // [B, K, H]
        self.decoder.iter().fold(swapped, |decoded, block| block.forward(decoded, &encoded, condition, plan))
    }
}

/// The vectors of tokens in float32, whatever the table holds: `[B, S] -> [B, S, H]`.
pub(crate) fn embed(embedding: &Embedding, tokens: Tensor<2, Int>) -> Tensor<3> {
    let vectors = embedding.forward(tokens);
    if is_half(vectors.dtype()) { vectors.cast(FloatDType::F32) } else { vectors }
}

/// An embedding drawn from U(-1/sqrt(H), 1/sqrt(H)).
pub(crate) fn embedding(config: &BackboneConfig, device: &Device) -> Embedding {
    let bound = 1.0 / (config.hidden_size as f64).sqrt();
    EmbeddingConfig::new(config.vocab_size, config.hidden_size)
        .with_initializer(Initializer::Uniform { min: -bound, max: bound })
        .init(device)
}
