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

/// Writes a model of 300 codes, which are more than the levels of a pixel.
///
/// # Errors
/// As [`write`].
#[cfg(test)]
pub fn write_coded(folder: &Path) -> Result<(), String> {
    let image = ImageConfig { codec: Some("5f2a".into()), ..ImageConfig::new(3, [4, 4]) };
    let ModelConfig::Partition(partition) = config(&["a"]) else { return Err("a partition model".into()) };
    let config =
        ModelConfig::Partition(PartitionConfig { backbone: BackboneConfig::for_codes(300, 32, 2, image), ..partition });
    let network = network(&config, &device()?);
    model_folder::save(folder, &config, &network).map_err(|error| error.to_string())
}
