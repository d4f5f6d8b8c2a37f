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
//! After a row without masks, the encoder gives what the first blocks of the masked model give. The rest has to be learned:
//! the visible tokens of a masked model also attend to masks, and masks to each other.
//!
//! The decoder's residual stream begins with the output of the GroupSwap. Its bias is a given vector, the mean state of mask
//! tokens between the two parts, and its weight a tenth of the usual: positions begin much alike, as masks do, and still differ.
// H hidden

mod tensors;

use burn::tensor::Device;

use crate::config::{MaskedConfig, ModelConfig, PartitionConfig, Projection, Queries};
use crate::error::ModelError;
use crate::model_folder::{collect, from_source};
use crate::networks::{MaskedTransformer, Network, PartitionTransformer};
use tensors::{ConvertedTensors, GROUP_SWAP};

/// The weight of the GroupSwap's last layer, in multiples of what a new network has.
pub const SWAP_SCALE: f32 = 0.1;

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
    let config = PartitionConfig { backbone, encoder_blocks, decoder_blocks, queries, projection };
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

/// The partition model of a masked one. The GroupSwap is drawn from the device's generator; the bias of its output is
/// `mask_state`, `[H]`.
///
/// # Errors
/// [`ModelError::Config`] when the blocks are not as many as the masked model's, [`ModelError::Shape`] when another size
/// differs, [`ModelError::Device`] when a weight cannot be read from its device.
pub fn partition_from_masked(
    masked: MaskedTransformer,
    config: &PartitionConfig,
    mask_state: &[f32],
    device: &Device,
) -> Result<PartitionTransformer, ModelError> {
    check_blocks(config, masked.n_blocks())?;
    // A folded norm has the scale of the condition in its weight.
    let folded = Network::Masked(masked.clone().folded());
    let scaled_norms = collect(&folded, |name| name.ends_with(".norm1.weight"))?;
    let masked = collect(&Network::Masked(masked), |_| true)?;
    let config = ModelConfig::Partition(config.clone());
    let swap = collect(&Network::new(&config, device), |name| name.starts_with(GROUP_SWAP))?;
    let tensors = ConvertedTensors::new(&config, [masked, scaled_norms, swap]).with_swap_output(SWAP_SCALE, mask_state);
    match from_source(&tensors, "the masked model", &config, device)? {
        Network::Partition(network) => Ok(network),
        _ => unreachable!("the configuration is a partition model's"),
    }
}

#[cfg(test)]
mod tests;
