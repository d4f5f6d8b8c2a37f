//! The Partition Transformer: encoder, GroupSwap, decoder, head.
// B batch, L length, C clean tokens, K positions to decode, H hidden, V vocabulary

use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{Device, Int, Tensor, assert_shape};

use super::embedding::{embed, embedding};
use super::encoded::Encoded;
use crate::attention_plan::{AttentionPlan, CleanKeys, SelfAttentionPlan, partition_plans};
use crate::condition::{Condition, TimeEmbedding};
use crate::config::PartitionConfig;
use crate::layers::{DecoderBlock, EncoderBlock, GroupSwap, Head, LossTarget};
use crate::rotary::AngleTables;
use crate::sequence::{CleanTokens, PackedRows, Partition, Positions};

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

    /// The network for inference, with the constant condition folded into the weights. Its logits are the same to rounding.
    /// It can no longer be trained or saved.
    pub fn folded(self) -> Self {
        // Only a condition that all rows share can be folded.
        let Some(Condition::Constant(condition)) = self.condition() else { return self };
        Self {
            time: None,
            encoder: self.encoder.into_iter().map(|block| block.folded(&condition)).collect(),
            decoder: self.decoder.into_iter().map(|block| block.folded(&condition)).collect(),
            head: self.head.folded(&condition),
            ..self
        }
    }

    // `None` in a folded network.
    fn condition(&self) -> Option<Condition> {
        self.time.as_ref().map(|time| Condition::Constant(time.forward()))
    }

    /// Training: logits at every position, each predicted from the other group alone.
    ///
    /// # Shapes
    /// tokens and groups `[B, L] -> [B, L, V]`
    pub fn forward_partition(&self, tokens: Tensor<2, Int>, partition: &Partition) -> Tensor<3> {
        let condition = self.condition();
        let hidden = self.run_partition(tokens, partition, condition.as_ref());
        self.head.forward(hidden, condition.as_ref())
    }

    /// The weighted loss of the logits of [`forward_partition`](Self::forward_partition).
    ///
    /// # Shapes
    /// tokens and groups `[B, L] -> [1]`
    pub fn loss_partition(&self, tokens: Tensor<2, Int>, partition: &Partition, target: &LossTarget) -> Tensor<1> {
        let condition = self.condition();
        let hidden = self.run_partition(tokens, partition, condition.as_ref());
        self.head.loss(hidden, condition.as_ref(), target)
    }

    /// As [`forward_partition`](Self::forward_partition), before the head.
    ///
    /// # Shapes
    /// tokens and groups `[B, L] -> [B, L, H]`
    pub fn hidden_partition(&self, tokens: Tensor<2, Int>, partition: &Partition) -> Tensor<3> {
        self.run_partition(tokens, partition, self.condition().as_ref())
    }

    /// Sampling: logits at `positions` only, computed from the clean tokens only. It is [`encode`](Self::encode), then
    /// [`decode`](Self::decode).
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

    /// Runs the encoder over the clean tokens.
    ///
    /// # Shapes
    /// clean tokens `[B, C]`
    pub fn encode(&self, clean: &CleanTokens) -> Encoded {
        self.encode_keys(clean.tokens().clone(), CleanKeys::new(clean, &self.rotary))
    }

    /// As [`encode`](Self::encode) for packed rows.
    ///
    /// # Shapes
    /// clean tokens `[1, C]`
    pub fn encode_packed(&self, rows: &PackedRows) -> Encoded {
        self.encode_keys(rows.tokens().clone(), CleanKeys::packed(rows, &self.rotary))
    }

    /// Logits at `positions`, computed from encoded clean tokens. Any number of calls may share one [`Encoded`].
    ///
    /// # Shapes
    /// positions `[B, K] -> [B, K, V]`
    ///
    /// # Panics
    /// When `encoded` has another number of rows, or is of packed rows.
    pub fn decode(&self, encoded: &Encoded, positions: &Positions) -> Tensor<3> {
        self.head.forward(self.decode_hidden(encoded, positions), encoded.condition.as_ref())
    }

    /// As [`decode`](Self::decode), before the head.
    ///
    /// # Shapes
    /// positions `[B, K] -> [B, K, H]`
    ///
    /// # Panics
    /// As [`decode`](Self::decode).
    pub fn decode_hidden(&self, encoded: &Encoded, positions: &Positions) -> Tensor<3> {
        self.run_decoder(encoded, &encoded.keys.plan(positions, &self.rotary))
    }

    /// As [`decode_hidden`](Self::decode_hidden), at the positions to decode of packed rows.
    ///
    /// # Shapes
    /// positions `[1, K] -> [1, K, H]`
    ///
    /// # Panics
    /// When `encoded` is not of `rows`.
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
        let output = self.run_encoder(tokens, &keys.within(), condition.as_ref()); // [B, C, H]
        Encoded {
            swap: self.swap.keys_values(&output), // [B, C, 2 H]
            blocks: self.decoder.iter().map(|block| block.keys_values(&output)).collect(), // [B, C, 2 H] each
            output,
            keys,
            condition,
        }
    }

    // [B, L] -> [B, L, H]
    fn run_partition(&self, tokens: Tensor<2, Int>, partition: &Partition, condition: Option<&Condition>) -> Tensor<3> {
        let [n_rows, length] = tokens.dims();
        assert_shape!(partition.groups(), [n_rows, length]);
        let (within, across) = partition_plans(partition, &self.rotary);
        let encoded = self.run_encoder(tokens, &within, condition);
        let swapped = self.swap.forward(&encoded, self.swap.keys_values(&encoded), &across, &self.sinusoids);
        // Keys and values of one block at a time: a training step never holds those of all blocks.
        let decode = |x, block: &DecoderBlock| block.forward(x, block.keys_values(&encoded), condition, &across);
        self.decoder.iter().fold(swapped, decode)
    }

    // [B, C] -> [B, C, H]
    fn run_encoder(
        &self,
        tokens: Tensor<2, Int>,
        plan: &SelfAttentionPlan,
        condition: Option<&Condition>,
    ) -> Tensor<3> {
        let x = embed(&self.embedding, tokens); // [B, C, H]
        self.encoder.iter().fold(x, |x, block| block.forward(x, condition, plan))
    }

    // -> [B, K, H]
    fn run_decoder(&self, encoded: &Encoded, plan: &AttentionPlan) -> Tensor<3> {
        let swapped = self.swap.forward(&encoded.output, encoded.swap.clone(), plan, &self.sinusoids);
        let blocks = self.decoder.iter().zip(&encoded.blocks);
        blocks.fold(swapped, |x, (block, kv)| block.forward(x, kv.clone(), encoded.condition.as_ref(), plan))
    }
}
