//! The tensors of a partition model, found among those of a masked model by their published names.
// H hidden

use std::borrow::Cow;

use safetensors::Dtype;

use super::swap::GROUP_SWAP;
use crate::config::ModelConfig;
use crate::model_folder::{Collected, StoredTensor, TensorSource};

/// The tensors of a partition model.
pub(super) struct ConvertedTensors {
    masked: Collected,
    // The masked model with its condition folded in: `norm1` has the scale of the condition.
    folded: Collected,
    swap: Collected,
    encoder_blocks: usize,
    width: usize,
}

impl ConvertedTensors {
    /// From the tensors of a masked model, the same with its condition folded in, and those of the GroupSwap.
    pub(super) fn new(config: &ModelConfig, [masked, folded, swap]: [Collected; 3]) -> Self {
        let encoder_blocks = match config {
            ModelConfig::Partition(config) => config.encoder_blocks,
            _ => 0,
        };
        Self { masked, folded, swap, encoder_blocks, width: config.backbone().hidden_size }
    }

    // The tensor of a decoder block; `name` is that in the block.
    fn of_decoder(&self, block: usize, name: &str) -> Option<StoredTensor<'_>> {
        let block = format!("blocks.{}", self.encoder_blocks + block);
        let norm = format!("{block}.norm1.weight");
        let qkv = || self.masked.get(&format!("{block}.attn_qkv.weight"));
        match name {
            "q_norm1.weight" => self.masked.get(&norm).map(stored),
            "kv_norm1.weight" => self.folded.get(&norm).map(stored),
            "attn_q.weight" => qkv().map(|qkv| self.thirds(qkv, 0, 1)),
            "attn_kv.weight" => qkv().map(|qkv| self.thirds(qkv, 1, 2)),
            _ => self.masked.get(&format!("{block}.{name}")).map(stored),
        }
    }

    // `n` of the three [H, H] that are stored one below the other as [3 H, H].
    fn thirds<'a>(&self, (shape, bytes): &'a (Vec<usize>, Vec<u8>), first: usize, n: usize) -> StoredTensor<'a> {
        let third = bytes.len() / 3;
        let shape = vec![n * self.width, *shape.last().unwrap_or(&self.width)];
        let bytes = Cow::Borrowed(&bytes[first * third..(first + n) * third]);
        StoredTensor { dtype: Dtype::F32, shape, bytes }
    }
}

fn stored((shape, bytes): &(Vec<usize>, Vec<u8>)) -> StoredTensor<'_> {
    StoredTensor { dtype: Dtype::F32, shape: shape.clone(), bytes: Cow::Borrowed(bytes) }
}

impl TensorSource for ConvertedTensors {
    // Tensors are made on demand. Their origin is a whole model, so none is left over.
    fn names(&self) -> Vec<&str> {
        Vec::new()
    }

    fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        if name.starts_with(GROUP_SWAP) {
            return self.swap.get(name).map(stored);
        }
        if let Some(rest) = name.strip_prefix("decoder.layers.") {
            let (block, name) = rest.split_once('.')?;
            return self.of_decoder(block.parse().ok()?, name);
        }
        match name.strip_prefix("encoder.blocks.") {
            Some(rest) => self.masked.get(&format!("blocks.{rest}")).map(stored),
            None => self.masked.get(name).map(stored),
        }
    }
}
