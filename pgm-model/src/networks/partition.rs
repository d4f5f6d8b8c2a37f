//! The Partition Transformer: encoder, GroupSwap, decoder, head.
//!
//! A model of text is conditioned on nothing. A model of image codes is conditioned on a class for each row, and may have
//! register tokens before the sequence, which give a group without tokens something to attend to.
// B batch, L length, C clean tokens, K positions to decode, H hidden, V vocabulary

use std::ops::Range;

use burn::module::Module;
use burn::nn::Embedding;
use burn::tensor::{Device, Int, Tensor, assert_shape};

use super::embedding::{embed, embedding, register_embedding, registers};
use super::encoded::Encoded;
use crate::attention_plan::{AttentionPlan, CleanKeys, Registers, SelfAttentionPlan, any_order_plans, partition_plans};
use crate::condition::{Condition, TimeEmbedding, class_condition, class_embedding};
use crate::config::PartitionConfig;
use crate::layers::{DecoderBlock, EncoderBlock, GroupSwap, Head, LossTarget};
use crate::rotary::AngleTables;
use crate::sequence::{Class, CleanTokens, PackedRows, Partition, Positions};

/// Predicts each group of a partitioned sequence from the other one.
#[derive(Module, Debug)]
pub struct PartitionTransformer {
    pub(super) embedding: Embedding,
    // One of the two; none in a folded network.
    time: Option<TimeEmbedding>,
    classes: Option<Embedding>,
    // The vectors of the registers, `[R, H]`: group 1's, then group 0's.
    pub(super) registers: Option<Embedding>,
    pub(super) encoder: Vec<EncoderBlock>,
    pub(super) swap: GroupSwap,
    pub(super) decoder: Vec<DecoderBlock>,
    head: Head,
    #[module(skip)]
    pub(super) rotary: AngleTables,
    #[module(skip)]
    pub(super) sinusoids: AngleTables,
}

impl PartitionTransformer {
    /// A new network with the paper's initialisation. Parameters are drawn on first use, from the device's generator.
    pub fn new(config: &PartitionConfig, device: &Device) -> Self {
        let backbone = &config.backbone;
        let image = backbone.image.as_ref();
        let span = backbone.length + image.map_or(0, |image| image.registers);
        Self {
            embedding: embedding(backbone, device),
            time: backbone.image.is_none().then(|| TimeEmbedding::new(backbone.cond_dim, device)),
            classes: image.map(|image| class_embedding(image.n_classes, backbone.hidden_size, 1.0, device)),
            registers: image.and_then(|image| register_embedding(image.registers, backbone.hidden_size, device)),
            encoder: (0..config.encoder_blocks).map(|_| EncoderBlock::new(backbone, device)).collect(),
            swap: GroupSwap::new(config, device),
            decoder: (0..config.decoder_blocks).map(|_| DecoderBlock::new(backbone, device)).collect(),
            head: Head::new(backbone, device),
            rotary: AngleTables::new(backbone.head_dim(), span),
            sinusoids: AngleTables::new(backbone.hidden_size, span),
        }
    }

    /// The same network with dropout also while it is sampled, from the device's generator.
    pub fn with_dropout(self) -> Self {
        let encoder = self.encoder.into_iter().map(EncoderBlock::with_dropout).collect();
        let decoder = self.decoder.into_iter().map(DecoderBlock::with_dropout).collect();
        Self { encoder, decoder, ..self }
    }

    /// The network for inference, with the constant condition folded into the weights. Its logits are the same to rounding.
    /// It can no longer be trained or saved. A class-conditional network is returned unchanged: its condition is not constant.
    pub fn folded(self) -> Self {
        let Some(Condition::Constant(condition)) = self.constant_condition() else { return self };
        Self {
            time: None,
            encoder: self.encoder.into_iter().map(|block| block.folded(&condition)).collect(),
            decoder: self.decoder.into_iter().map(|block| block.folded(&condition)).collect(),
            head: self.head.folded(&condition),
            ..self
        }
    }

    // `None` in a folded network and in a class-conditional one.
    fn constant_condition(&self) -> Option<Condition> {
        self.time.as_ref().map(|time| Condition::Constant(time.forward()))
    }

    // `None` in a folded network.
    pub(super) fn condition(&self, classes: Option<&[Class]>, n_rows: usize) -> Option<Condition> {
        let Some(embedding) = &self.classes else {
            assert!(classes.is_none(), "a network without classes is given none");
            return self.constant_condition();
        };
        Some(class_condition(embedding, classes, n_rows))
    }

    pub(super) fn n_registers(&self) -> Registers {
        Registers(self.registers.as_ref().map_or(0, |registers| registers.weight.lazy_shape().dims::<2>()[0]))
    }

    /// Training: logits at every position, each predicted from the other group alone.
    ///
    /// # Shapes
    /// tokens and groups `[B, L] -> [B, L, V]`
    ///
    /// # Panics
    /// When classes are given to a network without classes, are not one for each row, or are not known to it; so do all
    /// methods that take a [`Partition`], [`CleanTokens`] or [`PackedRows`].
    pub fn forward_partition(&self, tokens: Tensor<2, Int>, partition: &Partition) -> Tensor<3> {
        let condition = self.condition(partition.classes(), tokens.dims()[0]);
        let hidden = self.run_partition(tokens, partition, condition.as_ref());
        self.head.forward(hidden, condition.as_ref())
    }

    /// The weighted loss of the logits of [`forward_partition`](Self::forward_partition).
    ///
    /// # Shapes
    /// tokens and groups `[B, L] -> [1]`
    pub fn loss_partition(&self, tokens: Tensor<2, Int>, partition: &Partition, target: &LossTarget) -> Tensor<1> {
        let condition = self.condition(partition.classes(), tokens.dims()[0]);
        let hidden = self.run_partition(tokens, partition, condition.as_ref());
        self.head.loss(hidden, condition.as_ref(), target)
    }

    /// As [`forward_partition`](Self::forward_partition), before the head.
    ///
    /// # Shapes
    /// tokens and groups `[B, L] -> [B, L, H]`
    pub fn hidden_partition(&self, tokens: Tensor<2, Int>, partition: &Partition) -> Tensor<3> {
        let condition = self.condition(partition.classes(), tokens.dims()[0]);
        let hidden = self.run_partition(tokens, partition, condition.as_ref());
        self.before_logits(hidden, condition.as_ref())
    }

    /// As [`hidden_partition`](Self::hidden_partition) of a sequence whose tokens come in ordered sets: each token is predicted
    /// from the tokens of earlier sets alone, all in one pass. Those of set 0 are predicted from nothing.
    ///
    /// # Shapes
    /// tokens and places of their sets, below [`MAX_SETS`](crate::visibility::MAX_SETS) - 1, `[B, L] -> [B, L, H]`
    ///
    /// # Panics
    /// When the GroupSwap's queries hold an aggregate, which would be another one for each set.
    pub fn hidden_any_order(
        &self,
        tokens: Tensor<2, Int>,
        sets: &Tensor<2, Int>,
        classes: Option<&[Class]>,
    ) -> Tensor<3> {
        let [n_rows, length] = tokens.dims();
        assert_shape!(sets, [n_rows, length]);
        assert!(!self.swap.reads_encoder_output(), "queries without an aggregate");
        let condition = self.condition(classes, n_rows);
        let plans = any_order_plans(sets, self.n_registers(), &self.rotary);
        let x = self.behind_registers(tokens, self.n_registers().of_clean());
        let hidden = self.run_whole(x, &plans, condition.as_ref());
        self.before_logits(hidden, condition.as_ref())
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
        self.logits(self.decode_hidden_packed(&self.encode_packed(rows), rows))
    }

    /// Runs the encoder over the clean tokens.
    ///
    /// # Shapes
    /// clean tokens `[B, C]`
    pub fn encode(&self, clean: &CleanTokens) -> Encoded {
        let n_rows = clean.tokens().dims()[0];
        let keys = CleanKeys::new(clean, self.n_registers(), &self.rotary);
        let tokens = embed(&self.embedding, clean.tokens().clone()); // [B, C, H]
        let x = match &self.registers {
            Some(all) => Tensor::cat(vec![registers(all, self.n_registers().of_clean(), n_rows), tokens], 1),
            None => tokens,
        };
        let condition = self.condition(clean.classes(), n_rows);
        self.encode_keys(x, keys, condition.clone(), condition)
    }

    /// As [`encode`](Self::encode) for packed rows.
    ///
    /// # Shapes
    /// clean tokens `[1, C]`
    pub fn encode_packed(&self, rows: &PackedRows) -> Encoded {
        let tokens = embed(&self.embedding, rows.tokens().clone()); // [1, C, H]
        let (x, keys) = match &self.registers {
            Some(all) => {
                let (keys, index) = CleanKeys::packed_behind(rows, self.n_registers(), &self.rotary);
                let front = registers(all, self.n_registers().of_clean(), 1);
                (Tensor::cat(vec![front, tokens], 1).select(1, index), keys)
            }
            None => (tokens, CleanKeys::packed(rows, &self.rotary)),
        };
        let condition = self.condition(rows.classes(), rows.queries().lengths.len());
        let of_keys = condition.as_ref().zip(keys.labels()).map(|(condition, labels)| condition.packed(labels));
        self.encode_keys(x, keys, of_keys, condition)
    }

    /// Logits at `positions`, computed from encoded clean tokens. Any number of calls may share one [`Encoded`].
    ///
    /// # Shapes
    /// positions `[B, K] -> [B, K, V]`
    ///
    /// # Panics
    /// When `encoded` has another number of rows, or is of packed rows.
    pub fn decode(&self, encoded: &Encoded, positions: &Positions) -> Tensor<3> {
        self.logits(self.decode_hidden(encoded, positions))
    }

    /// As [`decode`](Self::decode), before the head.
    ///
    /// # Shapes
    /// positions `[B, K] -> [B, K, H]`
    ///
    /// # Panics
    /// As [`decode`](Self::decode).
    pub fn decode_hidden(&self, encoded: &Encoded, positions: &Positions) -> Tensor<3> {
        self.run_decoder(encoded, encoded.condition.as_ref(), &encoded.keys.plan(positions, &self.rotary))
    }

    /// As [`decode_hidden`](Self::decode_hidden), at the positions to decode of packed rows.
    ///
    /// # Shapes
    /// positions `[1, K] -> [1, K, H]`
    ///
    /// # Panics
    /// When `encoded` is not of `rows`.
    pub fn decode_hidden_packed(&self, encoded: &Encoded, rows: &PackedRows) -> Tensor<3> {
        let condition = encoded.condition.as_ref().map(|condition| condition.packed(&rows.queries().labels));
        self.run_decoder(encoded, condition.as_ref(), &encoded.keys.packed_plan(rows, &self.rotary))
    }

    /// The head alone, of hidden states.
    ///
    /// In a class-conditional network hidden states are those after the head's norm, which reads each row's condition. So
    /// the logits of some positions can be computed without knowing their rows.
    ///
    /// # Shapes
    /// `[B, K, H] -> [B, K, V]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        match self.classes {
            Some(_) => self.head.linear(hidden),
            None => self.head.forward(hidden, self.constant_condition().as_ref()),
        }
    }

    // The hidden states that `logits` takes.
    pub(super) fn before_logits(&self, x: Tensor<3>, condition: Option<&Condition>) -> Tensor<3> {
        match self.classes {
            Some(_) => self.head.modulated_norm(x, condition),
            None => x,
        }
    }

    // `of_keys` is the condition of the keys, `condition` that of the rows. x [B, C, H]
    fn encode_keys(
        &self,
        x: Tensor<3>,
        keys: CleanKeys,
        of_keys: Option<Condition>,
        condition: Option<Condition>,
    ) -> Encoded {
        let output = self.run_encoder(x, &keys.within(), of_keys.as_ref()); // [B, C, H]
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
        let plans = partition_plans(partition, self.n_registers(), &self.rotary);
        self.run_whole(self.behind_registers(tokens, 0..self.n_registers().0), &plans, condition)
    }

    // The vectors of some registers, then those of the tokens: [B, L] -> [B, R + L, H].
    fn behind_registers(&self, tokens: Tensor<2, Int>, range: Range<usize>) -> Tensor<3> {
        let n_rows = tokens.dims()[0];
        let tokens = embed(&self.embedding, tokens); // [B, L, H]
        match &self.registers {
            Some(all) => Tensor::cat(vec![registers(all, range, n_rows), tokens], 1),
            None => tokens,
        }
    }

    // [B, R + L, H] -> [B, L, H]
    fn run_whole(
        &self,
        x: Tensor<3>,
        (within, across): &(SelfAttentionPlan, AttentionPlan),
        condition: Option<&Condition>,
    ) -> Tensor<3> {
        let encoded = self.run_encoder(x, within, condition); // [B, R + L, H]
        let swapped = self.swap.forward(&encoded, self.swap.keys_values(&encoded), across, &self.sinusoids);
        // Keys and values of one block at a time: a training step never holds those of all blocks.
        let decode = |x, block: &DecoderBlock| block.forward(x, block.keys_values(&encoded), condition, across);
        self.decoder.iter().fold(swapped, decode)
    }

    // [B, C, H] -> [B, C, H]
    fn run_encoder(&self, x: Tensor<3>, plan: &SelfAttentionPlan, condition: Option<&Condition>) -> Tensor<3> {
        self.encoder.iter().fold(x, |x, block| block.forward(x, condition, plan))
    }

    // -> [B, K, H]
    fn run_decoder(&self, encoded: &Encoded, condition: Option<&Condition>, plan: &AttentionPlan) -> Tensor<3> {
        let swapped = self.swap.forward(&encoded.output, encoded.swap.clone(), plan, &self.sinusoids);
        let blocks = self.decoder.iter().zip(&encoded.blocks);
        let hidden = blocks.fold(swapped, |x, (block, kv)| block.forward(x, kv.clone(), condition, plan));
        self.before_logits(hidden, condition)
    }
}
