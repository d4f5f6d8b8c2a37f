//! The tensors of a partition model, found among those of a masked model by their published names.
// H hidden

use std::borrow::Cow;

use safetensors::Dtype;

use crate::config::ModelConfig;
use crate::model_folder::{Collected, StoredTensor, TensorSource};

/// What the names of the GroupSwap's tensors begin with.
pub(super) const GROUP_SWAP: &str = "decoder.group_swap.";

/// The tensors of a partition model.
pub(super) struct ConvertedTensors {
    masked: Collected,
    // Weights of the masked model's `norm1` with the scale of the condition.
    scaled_norms: Collected,
    swap: Collected,
    encoder_blocks: usize,
    width: usize,
}

impl ConvertedTensors {
    /// From the tensors of a masked model, its norms with the condition's scale, and those of a new GroupSwap.
    pub(super) fn new(config: &ModelConfig, [masked, scaled_norms, swap]: [Collected; 3]) -> Self {
        let encoder_blocks = match config {
            ModelConfig::Partition(config) => config.encoder_blocks,
            _ => 0,
        };
        Self { masked, scaled_norms, swap, encoder_blocks, width: config.backbone().hidden_size }
    }

    /// The weight of the GroupSwap's last layer times `scale`, and `bias`, `[H]`, as its bias.
    pub(super) fn with_swap_output(mut self, scale: f32, bias: &[f32]) -> Self {
        let name = |part: &str| format!("{GROUP_SWAP}output_linear.{part}");
        if let Some((_, bytes)) = self.swap.get_mut(&name("weight")) {
            let numbers = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes) * scale);
            *bytes = numbers.flat_map(f32::to_le_bytes).collect();
        }
        let bytes = bias.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.swap.insert(name("bias"), (vec![bias.len()], bytes));
        self
    }

    // The tensor of a decoder block; `name` is that in the block.
    fn of_decoder(&self, block: usize, name: &str) -> Option<StoredTensor<'_>> {
        let block = format!("blocks.{}", self.encoder_blocks + block);
        let norm = format!("{block}.norm1.weight");
        let qkv = || self.masked.get(&format!("{block}.attn_qkv.weight"));
        match name {
            "q_norm1.weight" => self.masked.get(&norm).map(stored),
            "kv_norm1.weight" => self.scaled_norms.get(&norm).map(stored),
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
