//! Tensors by name, from a file of `torch.save` or a safetensors file.

use std::collections::BTreeMap;

use pgm_model::ModelError;
use pgm_model::import::torch_file::{Element, StridedTensor, TorchFile, Value};
use pgm_model::model_folder::{StoredTensor, refuse_substitute};
use safetensors::{Dtype, SafeTensors};

use crate::TrainError;

/// The tensors of a file that have not been taken yet.
pub(super) struct NamedWeights<'a> {
    origin: String,
    tensors: BTreeMap<String, StoredTensor<'a>>,
    // Instead of a file: the names and shapes that were asked for.
    asked: Option<Vec<(String, Vec<usize>)>>,
}

impl<'a> NamedWeights<'a> {
    /// # Errors
    /// When the bytes are neither a file of `torch.save` whose root is a dictionary of tensors, nor a safetensors file.
    pub fn read(bytes: &'a [u8], origin: &str) -> Result<Self, TrainError> {
        refuse_substitute(bytes, origin)?;
        let tensors =
            if TorchFile::has_signature(bytes) { of_torch(bytes, origin)? } else { of_safetensors(bytes, origin)? };
        Ok(Self { origin: origin.to_string(), tensors, asked: None })
    }

    /// Has every tensor, with zeros, and keeps a list of those that are taken.
    pub fn list() -> Self {
        Self { origin: "zeros".to_string(), tensors: BTreeMap::new(), asked: Some(Vec::new()) }
    }

    /// The list of [`list`](Self::list).
    pub fn into_list(self) -> Vec<(String, Vec<usize>)> {
        self.asked.unwrap_or_default()
    }

    /// The values of a tensor.
    ///
    /// # Errors
    /// [`ModelError::MissingTensor`] or [`ModelError::Shape`].
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, TrainError> {
        if let Some(asked) = &mut self.asked {
            asked.push((name.to_string(), shape.to_vec()));
            return Ok(vec![0.0; shape.iter().product()]);
        }
        let Some(tensor) = self.tensors.remove(name) else {
            let problem = format!("lacks the tensor {name}; it is not a file of the Inception network of FID");
            return Err(TrainError::judge(self.origin.as_str(), problem));
        };
        if tensor.shape != shape {
            let (origin, name) = (self.origin.clone(), name.to_string());
            return Err(ModelError::Shape { origin, name, expected: shape.to_vec(), found: tensor.shape }.into());
        }
        Ok(tensor.floats(&self.origin, name)?)
    }

    /// # Errors
    /// [`ModelError::UnknownTensor`] when a tensor is left; counters of batches and the auxiliary classes do not count.
    pub fn finish(self) -> Result<(), TrainError> {
        let unused = |name: &&String| !name.ends_with(".num_batches_tracked") && !name.starts_with("AuxLogits.");
        let left: Vec<&String> = self.tensors.keys().filter(unused).collect();
        let Some(first) = left.first() else { return Ok(()) };
        let (origin, count, first) = (self.origin.clone(), left.len(), (*first).clone());
        Err(ModelError::UnknownTensor { origin, count, first }.into())
    }
}

fn of_torch<'a>(bytes: &'a [u8], origin: &str) -> Result<BTreeMap<String, StoredTensor<'a>>, TrainError> {
    let torch_error = |cause| ModelError::Torch { origin: origin.to_string(), cause };
    let file = TorchFile::parse(bytes).map_err(torch_error)?;
    let pickle = file.pickle();
    // An OrderedDict is a call whose entries were set afterwards.
    let entries = match pickle.get(pickle.root()) {
        Value::Dict(entries) => entries,
        Value::Object(object) => &object.entries,
        _ => return Err(TrainError::judge(origin, "is not a dictionary of tensors, as a file of weights is")),
    };
    let mut tensors = BTreeMap::new();
    for &(key, value) in entries {
        let Some(name) = pickle.str(key) else { continue };
        // Counters are integers and not needed.
        if let Some(tensor) = file.tensor(value).map_err(torch_error)?
            && let Some(tensor) = stored(&tensor)
        {
            tensors.insert(name.to_string(), tensor);
        }
    }
    Ok(tensors)
}

fn stored<'a>(tensor: &StridedTensor<'a>) -> Option<StoredTensor<'a>> {
    let dtype = match tensor.element() {
        Element::F64 => Dtype::F64,
        Element::F32 => Dtype::F32,
        Element::F16 => Dtype::F16,
        Element::BF16 => Dtype::BF16,
        _ => return None,
    };
    Some(StoredTensor { dtype, shape: tensor.shape().to_vec(), bytes: tensor.to_bytes() })
}

fn of_safetensors<'a>(bytes: &'a [u8], origin: &str) -> Result<BTreeMap<String, StoredTensor<'a>>, TrainError> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| ModelError::Weights { origin: origin.to_string(), problem: error.to_string() })?;
    let is_float = |dtype| matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16);
    let tensors = file.tensors().into_iter().filter(|(_, view)| is_float(view.dtype()));
    Ok(tensors.map(|(name, view)| (name, StoredTensor::from(view))).collect())
}
