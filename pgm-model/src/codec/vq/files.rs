//! Reading and writing codecs: LlamaGen's `.pt`, and codec folders.

use std::borrow::Cow;
use std::collections::BTreeMap;
#[cfg(feature = "files")]
use std::path::Path;

use burn::tensor::Device;

use super::config::{VqCodecConfig, VqKind};
use super::network::VqCodec;
use crate::codec::weights;
use crate::error::ModelError;
use crate::import::torch_file::TorchFile;
use crate::import::{Tensors, read_torch_state};
#[cfg(feature = "files")]
use crate::model_folder::{CONFIG_FILE, MappedFile, WEIGHTS_FILE, write_file};
use crate::model_folder::{SafeTensorsSource, StoredTensor, TensorSource, refuse_substitute};

/// Keys under which LlamaGen's files keep the weights, in the order of its own scripts.
const STATE_KEYS: [&str; 3] = ["ema", "model", "state_dict"];

/// A buffer in LlamaGen's files that counts codes in training.
const USED_CODES: &str = "quantize.codebook_used";

/// Reads a codec from a codec folder, or from a `.pt` in LlamaGen's form.
///
/// # Errors
/// Names the file that cannot be read, the tensor that is missing, unexpected or of the wrong shape, or the folder whose
/// weights are not those that its configuration was written for.
#[cfg(feature = "files")]
pub fn open(path: &Path, device: &Device) -> Result<(VqCodecConfig, VqCodec), ModelError> {
    if !path.is_dir() {
        let file = MappedFile::open(path)?;
        return read_torch(file.bytes(), file.origin(), device);
    }
    let config_path = path.join(CONFIG_FILE);
    let json = std::fs::read(&config_path).map_err(|cause| ModelError::Io {
        action: "read",
        path: config_path.clone(),
        cause,
    })?;
    let weights = MappedFile::open(&path.join(WEIGHTS_FILE))?;
    read_folder(&json, &config_path.display().to_string(), weights.bytes(), weights.origin(), device)
}

/// As [`open`], from the bytes of a folder's `config.json` and `model.safetensors`.
///
/// # Errors
/// As [`open`].
pub fn read_folder_bytes(
    config: &[u8],
    weights: &[u8],
    device: &Device,
) -> Result<(VqCodecConfig, VqCodec), ModelError> {
    read_folder(config, "the configuration", weights, "the weights", device)
}

fn read_folder(
    json: &[u8],
    json_origin: &str,
    weights: &[u8],
    origin: &str,
    device: &Device,
) -> Result<(VqCodecConfig, VqCodec), ModelError> {
    let config: VqCodecConfig =
        serde_json::from_slice(json).map_err(|cause| ModelError::Json { origin: json_origin.to_string(), cause })?;
    config.validate()?;
    let codec = filled(&SafeTensorsSource::new(weights, origin)?, origin, &config, device)?;
    if let Some(expected) = &config.hash {
        let found = codec.hash()?;
        if found != *expected {
            let problem = format!(
                "its weights have the hash {found}, but config.json was written for {expected}; copy both files of the \
                 codec again"
            );
            return Err(ModelError::Import { origin: origin.to_string(), problem });
        }
    }
    Ok((config, codec))
}

/// Reads a codec from the bytes of a `.pt` in LlamaGen's form. Sizes come from the tensors. Errors name the file as `origin`.
///
/// # Errors
/// [`ModelError::Torch`] or [`ModelError::Import`] for a file of another kind, and the errors of [`open`] for its tensors.
pub fn read_torch(bytes: &[u8], origin: &str, device: &Device) -> Result<(VqCodecConfig, VqCodec), ModelError> {
    refuse_substitute(bytes, origin)?;
    let file = TorchFile::parse(bytes).map_err(|cause| ModelError::Torch { origin: origin.to_string(), cause })?;
    let tensors: Tensors = read_torch_state(&file, origin, &STATE_KEYS)?.into_iter().collect();
    let config = sizes(&tensors, origin)?;
    config.validate()?;
    let source = WithoutCounts(&tensors);
    let mut config = VqCodecConfig { codec_type: VqKind::LlamaGen, ..config };
    let codec = filled(&source, origin, &config, device)?;
    config.hash = Some(codec.hash()?);
    Ok((config, codec))
}

/// Writes a codec folder, which is created if it does not exist: `model.safetensors`, then `config.json` with the hash.
///
/// # Errors
/// [`ModelError::Io`] when a file cannot be written, [`ModelError::Device`] when a weight cannot be read from its device.
#[cfg(feature = "files")]
pub fn save(folder: &Path, config: &VqCodecConfig, codec: &VqCodec) -> Result<(), ModelError> {
    std::fs::create_dir_all(folder).map_err(|cause| ModelError::Io {
        action: "write",
        path: folder.to_path_buf(),
        cause,
    })?;
    write_file(&folder.join(WEIGHTS_FILE), &weights::to_safetensors(&weights::collect(codec)?))?;
    let config = VqCodecConfig { hash: Some(codec.hash()?), ..config.clone() };
    let json = serde_json::to_vec_pretty(&config).expect("a configuration always serialises");
    write_file(&folder.join(CONFIG_FILE), &json)
}

fn filled(
    source: &dyn TensorSource,
    origin: &str,
    config: &VqCodecConfig,
    device: &Device,
) -> Result<VqCodec, ModelError> {
    weights::fill(VqCodec::new(config, device), source, origin, device)
}

/// The tensors of a file without its count of used codes.
struct WithoutCounts<'a>(&'a Tensors<'a>);

impl TensorSource for WithoutCounts<'_> {
    fn names(&self) -> Vec<&str> {
        self.0.names().into_iter().filter(|name| *name != USED_CODES).collect()
    }

    fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.0.tensor(name)
    }
}

// The sizes that the shapes imply.
fn sizes(tensors: &Tensors, origin: &str) -> Result<VqCodecConfig, ModelError> {
    let shapes: BTreeMap<&str, &[usize]> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape())).collect();
    let size = |name: Cow<str>, axis: usize| -> Result<usize, ModelError> {
        let missing = || ModelError::MissingTensor { origin: origin.to_string(), count: 1, first: name.to_string() };
        let shape = shapes.get(&*name).ok_or_else(missing)?;
        shape.get(axis).copied().ok_or_else(|| {
            let (origin, name) = (origin.to_string(), name.to_string());
            ModelError::Shape { origin, name, expected: vec![0; axis + 1], found: shape.to_vec() }
        })
    };
    let count =
        |name: &dyn Fn(usize) -> String| (0..).take_while(|&index| shapes.contains_key(name(index).as_str())).count();
    let n_levels = count(&|level| format!("encoder.conv_blocks.{level}.res.0.conv1.weight"));
    let base_width = size("encoder.conv_in.weight".into(), 0)?.max(1);
    let width = |level: usize| size(format!("encoder.conv_blocks.{level}.res.0.conv1.weight").into(), 0);
    let multipliers = (0..n_levels).map(|level| Ok(width(level)? / base_width)).collect::<Result<_, ModelError>>()?;
    Ok(VqCodecConfig {
        codec_type: VqKind::LlamaGen,
        channels: size("encoder.conv_in.weight".into(), 1)?,
        base_width,
        multipliers,
        n_blocks: count(&|block| format!("encoder.conv_blocks.0.res.{block}.conv1.weight")),
        z_width: size("encoder.conv_out.weight".into(), 0)?,
        n_codes: size("quantize.embedding.weight".into(), 0)?,
        code_width: size("quantize.embedding.weight".into(), 1)?,
        hash: None,
    })
}
