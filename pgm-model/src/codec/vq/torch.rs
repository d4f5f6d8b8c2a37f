//! LlamaGen's `.pt`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::tensor::Device;

use super::config::VqCodecConfig;
use super::network::VqCodec;
use crate::codec::weights;
use crate::error::ModelError;
use crate::import::torch_file::TorchFile;
use crate::import::{Tensors, read_torch_state};
use crate::model_folder::{StoredTensor, TensorSource, refuse_substitute};

/// Keys under which LlamaGen's files keep the weights, in the order of its own scripts.
const STATE_KEYS: [&str; 3] = ["ema", "model", "state_dict"];

/// A buffer in LlamaGen's files that counts codes in training.
const USED_CODES: &str = "quantize.codebook_used";

/// Reads a codec from the bytes of a `.pt` in LlamaGen's form. Sizes come from the tensors. Errors name the file as `origin`.
///
/// # Errors
/// [`ModelError::Torch`] or [`ModelError::Import`] for a file of another kind, [`ModelError::MissingTensor`],
/// [`ModelError::UnknownTensor`], [`ModelError::Shape`], [`ModelError::DType`] or [`ModelError::NotFinite`] for its tensors.
pub(crate) fn read_torch(bytes: &[u8], origin: &str, device: &Device) -> Result<(VqCodecConfig, VqCodec), ModelError> {
    refuse_substitute(bytes, origin)?;
    let file = TorchFile::parse(bytes).map_err(|cause| ModelError::Torch { origin: origin.to_string(), cause })?;
    let tensors: Tensors = read_torch_state(&file, origin, &STATE_KEYS)?.into_iter().collect();
    let config = sizes(&tensors, origin)?;
    config.validate()?;
    let codec = weights::fill(VqCodec::new(&config, device), &WithoutCounts(&tensors), origin, device)?;
    Ok((config, codec))
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
        channels: size("encoder.conv_in.weight".into(), 1)?,
        base_width,
        multipliers,
        n_blocks: count(&|block| format!("encoder.conv_blocks.0.res.{block}.conv1.weight")),
        z_width: size("encoder.conv_out.weight".into(), 0)?,
        n_codes: size("quantize.embedding.weight".into(), 0)?,
        code_width: size("quantize.embedding.weight".into(), 1)?,
    })
}
