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
use crate::plan::{AttentionPlan, CleanKeys, CleanTokens, PackedRows, Partition, Positions};
use crate::rotary::{AngleTables, RotaryAngles};
use crate::visibility::Visibility;

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
        let condition = self.condition();
        let hidden = self.run_partition(tokens, partition, condition.as_ref());
        self.head.forward(hidden, condition.as_ref())
    }

    /// The weighted loss of [`forward_partition`](Self::forward_partition)'s logits, `[1]`.
    ///
    /// # Shapes
    /// tokens and groups `[B, L]`
    pub fn loss_partition(&self, tokens: Tensor<2, Int>, partition: &Partition, target: &LossTarget) -> Tensor<1> {
        let condition = self.condition();
        let hidden = self.run_partition(tokens, partition, condition.as_ref());
        self.head.loss(hidden, condition.as_ref(), target)
    }

    /// As [`forward_partition`](Self::forward_partition), before the head.
    ///
    /// # Shapes
    /// tokens `[B, L]` and groups `[B, L] -> [B, L, H]`
    pub fn hidden_partition(&self, tokens: Tensor<2, Int>, partition: &Partition) -> Tensor<3> {
        self.run_partition(tokens, partition, self.condition().as_ref())
    }

    /// Sampling: logits at `positions` only, computed from the clean tokens only.
    ///
    /// # Shapes
    /// clean tokens `[B, C]`, positions `[B, K] -> [B, K, V]`
    pub fn forward_clean(&self, clean: &CleanTokens, positions: &Positions) -> Tensor<3> {
        self.decode(&self.encode(clean), positions)
    }

    /// As [`forward_clean`](Self::forward_clean) for packed rows: the logits of all their positions, row after row.
    ///
    /// # Shapes
    /// clean tokens `[1, C]`, positions `[1, K] -> [1, K, V]`
    pub fn forward_packed(&self, rows: &PackedRows) -> Tensor<3> {
        let encoded = self.encode_packed(rows);
        self.head.forward(self.decode_hidden_packed(&encoded, rows), encoded.condition.as_ref())
    }

    /// What decoding needs of the clean tokens.
    pub fn encode(&self, clean: &CleanTokens) -> Encoded {
        self.encode_keys(clean.tokens().clone(), CleanKeys::new(clean, &self.rotary))
    }

    /// As [`encode`](Self::encode) for packed rows.
    pub fn encode_packed(&self, rows: &PackedRows) -> Encoded {
        self.encode_keys(rows.tokens().clone(), CleanKeys::packed(rows, &self.rotary))
    }

    /// Logits at `positions`, computed from encoded clean tokens; any number of calls may share one [`Encoded`].
    ///
    /// # Shapes
    /// positions `[B, K] -> [B, K, V]`
    pub fn decode(&self, encoded: &Encoded, positions: &Positions) -> Tensor<3> {
        self.head.forward(self.decode_hidden(encoded, positions), encoded.condition.as_ref())
    }

    /// As [`decode`](Self::decode), before the head.
    ///
    /// # Shapes
    /// positions `[B, K] -> [B, K, H]`
    pub fn decode_hidden(&self, encoded: &Encoded, positions: &Positions) -> Tensor<3> {
        self.run_decoder(encoded, &encoded.keys.plan(positions, &self.rotary))
    }

    /// As [`decode_hidden`](Self::decode_hidden) for the packed rows that were encoded.
    ///
    /// # Shapes
    /// positions `[1, K] -> [1, K, H]`
    pub fn decode_hidden_packed(&self, encoded: &Encoded, rows: &PackedRows) -> Tensor<3> {
        self.run_decoder(encoded, &encoded.keys.packed_plan(rows, &self.rotary))
    }

    /// The head alone.
    ///
    /// # Shapes
    /// `[B, K, H] -> [B, K, V]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        self.head.forward(hidden, self.condition().as_ref())
    }

    fn encode_keys(&self, tokens: Tensor<2, Int>, keys: CleanKeys) -> Encoded {
        let condition = self.condition();
        let output = self.run_encoder(tokens, &keys.angles, keys.within().as_ref(), condition.as_ref());
        Encoded {
            swap: self.swap.keys_values(&output),
            blocks: self.decoder.iter().map(|block| block.keys_values(&output)).collect(),
            output,
            keys,
            condition,
        }
    }

    // [B, L] -> [B, L, H]
    fn run_partition(&self, tokens: Tensor<2, Int>, partition: &Partition, condition: Option<&Tensor<2>>) -> Tensor<3> {
        let [n_rows, length] = tokens.dims();
        assert_shape!(partition.groups(), [n_rows, length]);
        let plan = AttentionPlan::partition(partition, &self.rotary);
        let within = Visibility::within(partition.groups().clone());
        let encoded = self.run_encoder(tokens, &plan.keys, Some(&within), condition);
        let swapped = self.swap.forward(&encoded, self.swap.keys_values(&encoded), &plan, &self.sinusoids);
        // One block's keys and values at a time: a training step never holds those of all.
        let decode = |x, block: &DecoderBlock| block.forward(x, block.keys_values(&encoded), condition, &plan);
        self.decoder.iter().fold(swapped, decode)
    }

    // [B, C] -> [B, C, H]
    fn run_encoder(
        &self,
        tokens: Tensor<2, Int>,
        angles: &RotaryAngles,
        within: Option<&Visibility>,
        condition: Option<&Tensor<2>>,
    ) -> Tensor<3> {
        let x = embed(&self.embedding, tokens);
        self.encoder.iter().fold(x, |x, block| block.forward(x, condition, angles, within))
    }

    // -> [B, K, H]
    fn run_decoder(&self, encoded: &Encoded, plan: &AttentionPlan) -> Tensor<3> {
        let swapped = self.swap.forward(&encoded.output, encoded.swap.clone(), plan, &self.sinusoids);
        let blocks = self.decoder.iter().zip(&encoded.blocks);
        blocks.fold(swapped, |x, (block, kv)| block.forward(x, kv.clone(), encoded.condition.as_ref(), plan))
    }
}

/// Clean tokens as the decoder sees them: the encoder output, and the keys and values that each layer makes of it.
#[derive(Clone, Debug)]
pub struct Encoded {
    // [B, C, H]
    output: Tensor<3>,
    // Keys and values of the GroupSwap and of each decoder block, [B, C, 2 H] each.
    swap: Tensor<3>,
    blocks: Vec<Tensor<3>>,
    keys: CleanKeys,
    // Absent in a folded network, [1, c].
    condition: Option<Tensor<2>>,
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
