//! The weights of a codec under PyTorch's names, to bytes and back.

use std::collections::{BTreeMap, HashMap};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, TensorView};

use crate::error::ModelError;
use crate::model_folder::TensorSource;

/// Shape and float32 values of each tensor, by its name.
pub(super) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// The path from the root to the parameter that is visited.
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    // As PyTorch names it: without enum variants, a norm's gamma and beta as weight and bias.
    fn name(&self) -> String {
        let parts = self.0.iter().map(String::as_str).filter(|part| !part.starts_with(char::is_uppercase));
        let parts = parts.map(|part| match part {
            "gamma" => "weight",
            "beta" => "bias",
            part => part,
        });
        parts.collect::<Vec<_>>().join(".")
    }
}

/// All weights of a module.
///
/// # Errors
/// [`ModelError::Device`] when a weight cannot be read from its device.
pub(super) fn collect(module: &impl Module) -> Result<Tensors, ModelError> {
    #[derive(Default)]
    struct Collect {
        path: Path,
        tensors: Tensors,
        failed: Option<ModelError>,
    }
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.0.push(name.to_string());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let (name, value) = (self.path.name(), param.val());
            let shape = value.dims().to_vec();
            match value.try_into_vec_as::<f32>() {
                Ok(values) => drop(self.tensors.insert(name, (shape, values))),
                Err(error) => {
                    self.failed.get_or_insert(ModelError::Device { name, problem: error.to_string() });
                }
            }
        }
    }
    let mut collect = Collect::default();
    module.visit(&mut collect);
    collect.failed.map_or(Ok(collect.tensors), Err)
}

/// A safetensors file.
#[cfg_attr(not(feature = "files"), allow(dead_code))] // only a folder is written
pub(super) fn to_safetensors(tensors: &Tensors) -> Vec<u8> {
    let stored: Vec<(&str, &[usize], Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            (name.as_str(), shape.as_slice(), bytes)
        })
        .collect();
    let views = stored.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes).expect("shape and bytes have the same size");
        (*name, view)
    });
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize(views, Some(metadata)).expect("views with distinct names always serialise")
}

/// A module with the weights of a source; errors name the source as `origin`.
///
/// # Errors
/// [`ModelError::MissingTensor`], [`ModelError::UnknownTensor`], [`ModelError::Shape`], [`ModelError::DType`] or
/// [`ModelError::NotFinite`].
pub(super) fn fill<M: Module>(
    module: M,
    source: &dyn TensorSource,
    origin: &str,
    device: &Device,
) -> Result<M, ModelError> {
    let mut fill =
        Fill { path: Path::default(), source, origin, device, used: Vec::new(), missing: Vec::new(), failed: None };
    let module = module.map(&mut fill);
    if let Some(error) = fill.failed {
        return Err(error);
    }
    let origin = origin.to_string();
    if let Some(first) = fill.missing.first() {
        return Err(ModelError::MissingTensor { origin, count: fill.missing.len(), first: first.clone() });
    }
    let mut unknown: Vec<&str> = source.names();
    unknown.retain(|name| !fill.used.iter().any(|used| used == name));
    unknown.sort_unstable();
    match unknown.first() {
        Some(first) => Err(ModelError::UnknownTensor { origin, count: unknown.len(), first: (*first).to_string() }),
        None => Ok(module),
    }
}

struct Fill<'a> {
    path: Path,
    source: &'a dyn TensorSource,
    origin: &'a str,
    device: &'a Device,
    used: Vec<String>,
    missing: Vec<String>,
    failed: Option<ModelError>,
}

impl Fill<'_> {
    // `None` when the source has no such tensor.
    fn read<const D: usize>(&mut self, name: String, shape: [usize; D]) -> Result<Option<Tensor<D>>, ModelError> {
        let Some(stored) = self.source.tensor(&name) else {
            self.missing.push(name);
            return Ok(None);
        };
        let origin = || self.origin.to_string();
        if stored.shape != shape {
            return Err(ModelError::Shape { origin: origin(), name, expected: shape.to_vec(), found: stored.shape });
        }
        let values = stored.floats(self.origin, &name)?;
        let mut not_finite = values.iter().filter(|value| !value.is_finite());
        if let Some(&first) = not_finite.next() {
            let count = 1 + not_finite.count();
            return Err(ModelError::NotFinite { origin: origin(), name, count, first });
        }
        self.source.release(&stored.bytes);
        self.used.push(name);
        Ok(Some(Tensor::from_data(TensorData::new(values, shape), self.device)))
    }
}

impl ModuleMapper for Fill<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.0.push(name.to_string());
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.0.pop();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.failed.is_some() {
            return param;
        }
        match self.read(self.path.name(), param.lazy_shape().dims()) {
            Ok(Some(value)) => Param::initialized(param.id, value).set_require_grad(true),
            Ok(None) => param,
            Err(error) => {
                self.failed = Some(error);
                param
            }
        }
    }
}
