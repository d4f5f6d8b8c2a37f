//! Networks as safetensors files.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use safetensors::tensor::{Dtype, TensorView};

use super::published_names::{FREQUENCIES, PREFIX, ParameterPath, TIED, is_buffer, is_linear_weight};
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::networks::Network;
use crate::rotary::frequencies;
use crate::weight_dtype::WeightDtype;

/// Key of the safetensors metadata under which [`to_published`] keeps the configuration.
pub const CONFIG_METADATA: &str = "pgm_config";
/// Key of the safetensors metadata under which [`to_published_with_tokenizer`] keeps `tokenizer_config.json`.
pub const TOKENIZER_METADATA: &str = "pgm_tokenizer_config";

/// The network's weights as a safetensors file: published names, float32, linear weights `[out, in]`.
///
/// # Errors
/// [`ModelError::Device`] when a weight cannot be read from its device.
pub fn to_safetensors(network: &Network) -> Result<Vec<u8>, ModelError> {
    Ok(serialise(&collect(network, |_| true)?, "", Dtype::F32, HashMap::new()))
}

/// As [`to_safetensors`], in the form that the published code loads with `load_state_dict`: names begin with `backbone.`,
/// and the file has the rotary frequencies. The configuration is part of the metadata, under [`CONFIG_METADATA`]. The
/// weights are stored in float32 or rounded to half precision. The rotary frequencies are always float32, because a rounded
/// frequency is an angle that is wrong by a good part of a radian at the end of a long row.
///
/// # Errors
/// As [`to_safetensors`], and [`ModelError::Precision`] for a quantised dtype, which the published form does not have.
pub fn to_published(network: &Network, config: &ModelConfig, weights: WeightDtype) -> Result<Vec<u8>, ModelError> {
    to_published_with_tokenizer(network, config, weights, None)
}

/// As [`to_published`], with the contents of `tokenizer_config.json` in the metadata, under [`TOKENIZER_METADATA`].
///
/// # Errors
/// As [`to_published`].
pub fn to_published_with_tokenizer(
    network: &Network,
    config: &ModelConfig,
    weights: WeightDtype,
    tokenizer_config: Option<&str>,
) -> Result<Vec<u8>, ModelError> {
    let dtype = match weights {
        WeightDtype::F32 => Dtype::F32,
        WeightDtype::F16 => Dtype::F16,
        WeightDtype::BF16 => Dtype::BF16,
        WeightDtype::Q8 | WeightDtype::Q4 => {
            let message = "weights are published in f32, f16 or bf16; a model is quantised when it is loaded";
            return Err(ModelError::Precision(message.into()));
        }
    };
    let mut tensors = collect(network, |_| true)?;
    let prefix = match config {
        // Its own names, without a prefix; the head's weight is stored twice, as its authors' code expects.
        ModelConfig::MaskGit(_) => {
            let tied = tensors.get(TIED.1).cloned().expect("every MaskGIT has an embedding");
            tensors.insert(TIED.0.to_string(), tied);
            ""
        }
        _ => {
            let frequencies = frequencies(config.backbone().head_dim());
            let bytes = frequencies.iter().flat_map(|frequency| frequency.to_le_bytes()).collect();
            tensors.insert(FREQUENCIES.to_string(), (vec![frequencies.len()], bytes));
            PREFIX
        }
    };
    let json = serde_json::to_string(config).expect("a configuration always serialises");
    let mut metadata = HashMap::from([(CONFIG_METADATA.to_string(), json)]);
    if let Some(tokenizer_config) = tokenizer_config {
        metadata.insert(TOKENIZER_METADATA.to_string(), tokenizer_config.to_string());
    }
    Ok(serialise(&tensors, prefix, dtype, metadata))
}

/// Shape and little-endian float32 values of each tensor, by its published name.
pub(crate) type Collected = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn serialise(tensors: &Collected, prefix: &str, dtype: Dtype, mut metadata: HashMap<String, String>) -> Vec<u8> {
    let values = |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect() };
    let stored: Vec<_> = tensors
        .iter()
        .map(|(name, (shape, bytes))| {
            let dtype = if is_buffer(name) { Dtype::F32 } else { dtype };
            let rounded: Cow<[u8]> = match dtype {
                Dtype::F16 => {
                    values(bytes).into_iter().flat_map(|v| burn::tensor::f16::from_f32(v).to_le_bytes()).collect()
                }
                Dtype::BF16 => {
                    values(bytes).into_iter().flat_map(|v| burn::tensor::bf16::from_f32(v).to_le_bytes()).collect()
                }
                _ => Cow::Borrowed(bytes),
            };
            (format!("{prefix}{name}"), dtype, shape.clone(), rounded)
        })
        .collect();
    let views = stored.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).expect("shape and bytes have the same size");
        (name, view)
    });
    metadata.insert("format".to_string(), "pt".to_string());
    safetensors::serialize(views, Some(metadata)).expect("views with distinct names always serialise")
}

/// The parameters whose published names `is_wanted` accepts, as they are stored; the others are not read. So of a new network
/// only those are drawn.
pub(crate) fn collect(network: &Network, is_wanted: impl Fn(&str) -> bool) -> Result<Collected, ModelError> {
    struct Collect<F> {
        path: ParameterPath,
        is_wanted: F,
        tensors: Collected,
        failed: Option<ModelError>,
    }
    impl<F: Fn(&str) -> bool> ModuleVisitor for Collect<F> {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.enter(name);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = self.path.published();
            if !(self.is_wanted)(&name) {
                return;
            }
            let value = if is_linear_weight(&name, D) { param.val().swap_dims(0, 1) } else { param.val() };
            let shape = value.dims().to_vec();
            match value.try_into_vec_as::<f32>() {
                Ok(values) => {
                    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                    self.tensors.insert(name, (shape, bytes));
                }
                Err(error) => {
                    self.failed.get_or_insert(ModelError::Device { name, problem: error.to_string() });
                }
            }
        }
    }
    let mut collect = Collect { path: ParameterPath::default(), is_wanted, tensors: Collected::new(), failed: None };
    network.visit(&mut collect);
    match collect.failed {
        Some(error) => Err(error),
        None => Ok(collect.tensors),
    }
}
