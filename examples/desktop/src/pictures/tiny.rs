//! A model of pictures with random weights, for the self-test and the tests. Its tokens are the pixels.

use std::path::Path;

use burn::tensor::Device;
use pgm_infer::device::DeviceName;
use pgm_model::{
    BackboneConfig, ImageConfig, ModelConfig, Network, PartitionConfig, Projection, Queries, model_folder,
};

/// Columns and rows of its pictures.
pub const WIDTH: usize = 12;
/// See [`WIDTH`].
pub const HEIGHT: usize = 16;
const LEVELS: usize = 4;

/// Its configuration, with these classes.
pub fn config(class_names: &[&str]) -> ModelConfig {
    let names = class_names.iter().map(ToString::to_string).collect();
    let image = ImageConfig { class_names: names, ..ImageConfig::new(class_names.len(), [HEIGHT, WIDTH]) };
    ModelConfig::Partition(PartitionConfig {
        backbone: BackboneConfig::for_codes(LEVELS, 32, 2, image),
        encoder_blocks: 1,
        decoder_blocks: 1,
        queries: Queries::LearnFreqs,
        projection: Projection::Linear,
        sets: Default::default(),
    })
}

/// Writes a model folder.
///
/// # Errors
/// One sentence when there is no device, or when the folder cannot be written.
pub fn write(folder: &Path, class_names: &[&str]) -> Result<(), String> {
    let (config, device) = (config(class_names), device()?);
    model_folder::save(folder, &config, &network(&config, &device)).map_err(|error| error.to_string())
}

fn device() -> Result<Device, String> {
    "auto".parse::<DeviceName>()?.open().map(|(device, _)| device)
}

fn network(config: &ModelConfig, device: &Device) -> Network {
    Network::new(config, device).with_noise(0.6, 3)
}

/// The model, open.
#[cfg(test)]
pub fn tiny<const N: usize>(class_names: [&str; N]) -> pgm_infer::ImageModel {
    let config = config(&class_names);
    let device = device().unwrap();
    let network = network(&config, &device);
    pgm_infer::ImageModel::new(config, network, pgm_infer::GenerationConfig::default(), None, &device).unwrap()
}

/// Writes two codecs, `codec` and `other`, and `model`, which draws the codes of the first: 6 x 4 cells of 2 x 2 pixels.
///
/// # Errors
/// As [`write`].
#[cfg(test)]
pub fn write_coded(folder: &Path) -> Result<(), String> {
    use pgm_model::codec::{Autoencoder, AutoencoderConfig, Codec, CodecConfig, CodecNetwork, QuantizerConfig};
    let (device, error) = (device()?, |error: pgm_model::ModelError| error.to_string());
    let quantizer = QuantizerConfig::Fsq { levels: vec![5, 5, 5, 3] };
    let config = AutoencoderConfig { height: 8, width: 12, channels: 1, widths: vec![4], blocks: 1, quantizer };
    let codec = || {
        let network = CodecNetwork::Autoencoder(Autoencoder::new(&config, &device));
        Codec::new(CodecConfig::Autoencoder(config.clone()), network)
    };
    let (ours, other) = (codec().map_err(error)?, codec().map_err(error)?);
    ours.save(&folder.join("codec")).map_err(error)?;
    other.save(&folder.join("other")).map_err(error)?;
    let image = ImageConfig { codec: Some(ours.hash().to_string()), ..ImageConfig::new(3, ours.config().grid()) };
    let ModelConfig::Partition(partition) = self::config(&["a"]) else { return Err("a partition model".into()) };
    let backbone = BackboneConfig::for_codes(ours.config().n_codes(), 32, 2, image);
    let config = ModelConfig::Partition(PartitionConfig { backbone, ..partition });
    model_folder::save(&folder.join("model"), &config, &network(&config, &device)).map_err(error)
}
