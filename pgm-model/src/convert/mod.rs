//! A masked model as a partition model of the same size: its layers, in other places.
//!
//! A block of a masked model is an encoder block. The first blocks become the encoder, the others the decoder:
//!
//! | partition model | masked model |
//! |---|---|
//! | embedding, time embedding, head | the same |
//! | encoder block i | block i |
//! | decoder block j: `q_norm1`, `norm2`, `out`, feed-forward layer, modulation | those of block `encoder_blocks + j`; `q_norm1` is its `norm1` |
//! | decoder block j: `q`, `kv` | the thirds of its `qkv` |
//! | decoder block j: `kv_norm1` | its `norm1` with the scale of the condition: keys and values of a decoder block read none |
//! | GroupSwap | new |
//!
//! A decoder block has no place for the shift of the condition that the keys and values of a masked block read; it is lost.
//! On a row without masks, the encoder gives what the first blocks of the masked model give. The rest has to be learned:
//! the visible tokens of a masked model also attend to masks, and masks to each other.
//!
//! The decoder's residual stream begins with the output of the GroupSwap. It starts as the attention of the last encoder block
//! from a mask token to the visible ones ([`SwapStart`]): its query is that of the mean mask token, its keys, values and output
//! are the block's, and the mean of its output is the mean state of mask tokens between the two parts. Without states of visible
//! tokens, the mean state is its bias and its other weights are new, those of the output a tenth of the usual: positions begin
//! much alike, as masks do, and still differ.
// H hidden

mod swap;
mod tensors;

use burn::tensor::Device;

use crate::config::{MaskedConfig, ModelConfig, PartitionConfig, Projection, Queries, Sets};
use crate::error::ModelError;
use crate::model_folder::{collect, from_source};
use crate::networks::{MaskedTransformer, Network, PartitionTransformer};
use swap::{Attention, GROUP_SWAP, start_as_attention, start_small};
pub use swap::{SMALL, SwapStart, VisibleStates};
use tensors::ConvertedTensors;

/// The sizes of the partition model that a masked model becomes: its blocks are divided, all else stays.
///
/// # Errors
/// [`ModelError::Config`] when the blocks are not as many as the masked model's, or there is no encoder or no decoder.
pub fn partition_config(
    masked: &MaskedConfig,
    [encoder_blocks, decoder_blocks]: [usize; 2],
    queries: Queries,
    projection: Projection,
) -> Result<PartitionConfig, ModelError> {
    let backbone = masked.backbone.clone();
    let config = PartitionConfig { backbone, encoder_blocks, decoder_blocks, queries, projection, sets: Sets::One };
    ModelConfig::Partition(config.clone()).validate()?;
    check_blocks(&config, masked.n_blocks)?;
    Ok(config)
}

fn check_blocks(config: &PartitionConfig, n_blocks: usize) -> Result<(), ModelError> {
    let found = config.encoder_blocks + config.decoder_blocks;
    if found == n_blocks {
        return Ok(());
    }
    Err(ModelError::Config {
        key: "encoder_blocks + decoder_blocks",
        value: found.to_string(),
        problem: format!("must be {n_blocks}, the blocks of the masked model"),
    })
}

/// The partition model of a masked one. What is new in the GroupSwap is drawn from the device's generator.
///
/// # Errors
/// [`ModelError::Config`] for sizes that no model can have and when the blocks are not as many as the masked model's,
/// [`ModelError::Shape`] when another size
/// differs, [`ModelError::Device`] when a weight cannot be read from its device.
pub fn partition_from_masked(
    masked: MaskedTransformer,
    config: &PartitionConfig,
    start: &SwapStart,
    device: &Device,
) -> Result<PartitionTransformer, ModelError> {
    let checked = ModelConfig::Partition(config.clone());
    checked.validate()?;
    check_blocks(config, masked.n_blocks())?;
    let last = config.encoder_blocks - 1;
    let of_last = format!("blocks.{last}.");
    let is_wanted = |name: &str| name.ends_with(".norm1.weight") || name.starts_with(&of_last);
    let folded = collect(&Network::Masked(masked.clone().folded()), is_wanted)?;
    let masked = collect(&Network::Masked(masked), |_| true)?;
    let config = checked;
    let mut swap = collect(&Network::new(&config, device), |name| name.starts_with(GROUP_SWAP))?;
    match start.visible.as_ref().zip(Attention::of_block(&folded, last)) {
        Some((visible, block)) => start_as_attention(&mut swap, &block, &start.masks, visible),
        None => start_small(&mut swap, &start.masks),
    }
    let tensors = ConvertedTensors::new(&config, [masked, folded, swap]);
    match from_source(&tensors, "the masked model", &config, device)? {
        Network::Partition(network) => Ok(network),
        _ => unreachable!("the configuration is a partition model's"),
    }
}

#[cfg(test)]
mod tests;
