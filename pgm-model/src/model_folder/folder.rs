//! Saving and loading whole model folders.

#[cfg(feature = "files")]
use std::path::Path;

use burn::tensor::Device;

#[cfg(feature = "files")]
use super::atomic_write::{atomic_write, io_error};
use super::file_names::{CONFIG_FILE, WEIGHTS_FILE};
use super::load::from_source;
#[cfg(feature = "files")]
use super::mapped_file::MappedFile;
#[cfg(feature = "files")]
use super::run_folder::resolve;
#[cfg(feature = "files")]
use super::serialise::to_safetensors;
use super::tensor_source::SafeTensorsSource;
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::networks::Network;

/// Writes `config.json` and `model.safetensors` into `folder`, which is created if it does not exist. The configuration is
/// written last.
///
/// # Errors
/// [`ModelError::Io`] when a file cannot be written, [`ModelError::Device`] when a weight cannot be read from its device.
#[cfg(feature = "files")]
pub fn save(folder: &Path, config: &ModelConfig, network: &Network) -> Result<(), ModelError> {
    std::fs::create_dir_all(folder).map_err(|cause| io_error("write", folder, cause))?;
    atomic_write(&folder.join(WEIGHTS_FILE), &to_safetensors(network)?)?;
    let json = serde_json::to_vec_pretty(config).expect("a configuration always serialises");
    atomic_write(&folder.join(CONFIG_FILE), &json)
}

/// Reads `config.json` and `model.safetensors` from `folder`, which may also be a training run, see [`resolve`]. The weights
/// file is mapped into memory, not copied.
///
/// # Errors
/// [`ModelError::Run`] for a run without such a model. Otherwise names the file that cannot be read, or the tensor that is
/// missing, unknown, or of the wrong shape or dtype.
#[cfg(feature = "files")]
pub fn load(folder: &Path, device: &Device) -> Result<(ModelConfig, Network), ModelError> {
    load_with_progress(folder, device, &|_| ())
}

/// As [`load`]. `progress` is called repeatedly with the share of the weights that is read; its last value is 1.
///
/// # Errors
/// As [`load`].
#[cfg(feature = "files")]
pub fn load_with_progress(
    folder: &Path,
    device: &Device,
    progress: &dyn Fn(f64),
) -> Result<(ModelConfig, Network), ModelError> {
    let folder = &resolve(folder)?;
    let config = load_config(folder)?;
    let file = MappedFile::open(&folder.join(WEIGHTS_FILE))?;
    let source = SafeTensorsSource::of_file(&file)?.with_progress(progress);
    let network = from_source(&source, file.origin(), &config, device)?;
    // The file may hold tensors that the network does not take.
    progress(1.0);
    Ok((config, network))
}

/// Reads and checks `config.json` of a model folder, which may also be a training run, see [`resolve`].
///
/// # Errors
/// [`ModelError::Io`], [`ModelError::Json`], [`ModelError::Config`] or [`ModelError::Run`].
#[cfg(feature = "files")]
pub fn load_config(folder: &Path) -> Result<ModelConfig, ModelError> {
    let path = resolve(folder)?.join(CONFIG_FILE);
    let json = std::fs::read(&path).map_err(|cause| io_error("read", &path, cause))?;
    parse_config(&json, &path.display().to_string())
}

/// Reads a safetensors file into a new network. The file may be ours or a published checkpoint.
///
/// # Errors
/// As [`load`].
#[cfg(feature = "files")]
pub fn load_weights(path: &Path, config: &ModelConfig, device: &Device) -> Result<Network, ModelError> {
    let file = MappedFile::open(path)?;
    from_source(&SafeTensorsSource::of_file(&file)?, file.origin(), config, device)
}

/// As `load_with_progress`, from the bytes of the two files: for applications that embed a model, and for browsers.
///
/// # Errors
/// As [`from_source`], and [`ModelError::Json`] or [`ModelError::Config`] for the configuration.
pub fn load_bytes(
    config: &[u8],
    weights: &[u8],
    device: &Device,
    progress: &dyn Fn(f64),
) -> Result<(ModelConfig, Network), ModelError> {
    let (config, origin) = (parse_config(config, CONFIG_FILE)?, WEIGHTS_FILE);
    let source = SafeTensorsSource::new(weights, origin)?.with_progress(progress);
    let network = from_source(&source, origin, &config, device)?;
    progress(1.0);
    Ok((config, network))
}

fn parse_config(json: &[u8], origin: &str) -> Result<ModelConfig, ModelError> {
    let config: ModelConfig =
        serde_json::from_slice(json).map_err(|cause| ModelError::Json { origin: origin.to_string(), cause })?;
    config.validate()?;
    Ok(config)
}
