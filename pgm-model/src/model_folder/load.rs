//! Filling a new network with weights.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::published_names::{ParameterPath, TIED, is_buffer, is_linear_weight, known_names};
use super::tensor_source::{SafeTensorsSource, TensorSource};
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::networks::Network;

/// A network with the weights of a safetensors file; errors name the file as `origin`.
///
/// # Errors
/// [`ModelError::Weights`] when the bytes are no safetensors file, and as [`from_source`].
pub fn from_safetensors(
    bytes: &[u8],
    origin: &str,
    config: &ModelConfig,
    device: &Device,
) -> Result<Network, ModelError> {
    from_source(&SafeTensorsSource::new(bytes, origin)?, origin, config, device)
}

/// A network with the weights of any source; errors name the source as `origin`.
///
/// # Errors
/// [`ModelError::MissingTensor`], [`ModelError::UnknownTensor`], [`ModelError::Shape`] or [`ModelError::DType`].
pub fn from_source(
    source: &dyn TensorSource,
    origin: &str,
    config: &ModelConfig,
    device: &Device,
) -> Result<Network, ModelError> {
    fill(source, origin, config, device, false)
}

/// As [`from_source`], and refuses weights that are NaN or infinite.
///
/// # Errors
/// As [`from_source`], and [`ModelError::NotFinite`].
pub(crate) fn from_finite_source(
    source: &dyn TensorSource,
    origin: &str,
    config: &ModelConfig,
    device: &Device,
) -> Result<Network, ModelError> {
    fill(source, origin, config, device, true)
}

fn fill(
    source: &dyn TensorSource,
    origin: &str,
    config: &ModelConfig,
    device: &Device,
    must_be_finite: bool,
) -> Result<Network, ModelError> {
    let mut fill = Fill {
        path: ParameterPath::default(),
        source,
        origin,
        device,
        must_be_finite,
        n_used: 0,
        missing: Vec::new(),
        failed: None,
    };
    let network = Network::new(config, device).map(&mut fill);
    if let Some(error) = fill.failed {
        return Err(error);
    }
    let origin = origin.to_string();
    if let Some(first) = fill.missing.first() {
        return Err(ModelError::MissingTensor { origin, count: fill.missing.len(), first: first.clone() });
    }
    // Published files have the rotary frequencies, too. They follow from the sizes.
    let names: Vec<&str> = source.names().into_iter().filter(|name| !is_buffer(name)).collect();
    if fill.n_used < names.len() {
        let mut known = BTreeSet::from_iter(known_names(&network));
        if known.contains(TIED.1) && names.contains(&TIED.0) {
            refuse_untied(source, &origin)?;
            known.insert(TIED.0.to_string());
        }
        let mut unknown: Vec<&str> = names.into_iter().filter(|name| !known.contains(*name)).collect();
        unknown.sort_unstable();
        if let Some(first) = unknown.first() {
            return Err(ModelError::UnknownTensor { origin, count: unknown.len(), first: (*first).to_string() });
        }
    }
    Ok(network)
}

// A head of its own would be lost in a network whose head is the embedding.
fn refuse_untied(source: &dyn TensorSource, origin: &str) -> Result<(), ModelError> {
    let [head, embedding] = [TIED.0, TIED.1].map(|name| source.tensor(name));
    match (head, embedding) {
        (Some(head), Some(embedding)) if head.bytes == embedding.bytes => Ok(()),
        _ => {
            let problem = format!(
                "{} differs from {}, but MaskGIT's head shares its weight with the embedding; the file is of another network",
                TIED.0, TIED.1
            );
            Err(ModelError::Import { origin: origin.to_string(), problem })
        }
    }
}

// Gives each parameter the tensor of its published name.
struct Fill<'a> {
    path: ParameterPath,
    source: &'a dyn TensorSource,
    origin: &'a str,
    device: &'a Device,
    must_be_finite: bool,
    n_used: usize,
    missing: Vec<String>,
    failed: Option<ModelError>,
}

impl Fill<'_> {
    // `None` when the source has no such tensor.
    fn read<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Option<Tensor<D>>, ModelError> {
        let Some(stored) = self.source.tensor(name) else {
            self.missing.push(name.to_string());
            return Ok(None);
        };
        self.n_used += 1;
        let is_transposed = is_linear_weight(name, D);
        let mut expected = shape.to_vec();
        if is_transposed {
            expected.reverse();
        }
        if stored.shape != expected {
            let (origin, name) = (self.origin.to_string(), name.to_string());
            return Err(ModelError::Shape { origin, name, expected, found: stored.shape });
        }
        let transposed = is_transposed.then(|| [expected[0], expected[1]]);
        let values = stored.read(transposed, &|bytes| self.source.release(bytes), self.origin, name)?;
        if self.must_be_finite
            && let Some(first) = values.iter().find(|value| !value.is_finite())
        {
            let count = values.iter().filter(|value| !value.is_finite()).count();
            let (origin, name) = (self.origin.to_string(), name.to_string());
            return Err(ModelError::NotFinite { origin, name, count, first: *first });
        }
        Ok(Some(Tensor::from_data(TensorData::new(values, shape), self.device)))
    }
}

impl ModuleMapper for Fill<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.enter(name);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failed.is_some() {
            return param;
        }
        let name = self.path.published();
        match self.read(&name, param.lazy_shape().dims()) {
            Ok(Some(value)) => Param::initialized(param.id, value).set_require_grad(true),
            Ok(None) => param,
            Err(error) => {
                self.failed = Some(error);
                param
            }
        }
    }
}
