//! The tensors of a checkpoint file of either format.

use std::collections::{BTreeMap, BTreeSet};

use safetensors::tensor::{Dtype, TensorView};

use super::torch_file::{Element, StridedTensor, shortened};
use crate::error::ModelError;
use crate::model_folder::{StoredTensor, TensorSource};

/// Every published checkpoint has this tensor, so the beginning of its name is that of the others.
pub(super) const EMBEDDING: &str = "vocab_embed.embedding";

/// A tensor as a view of the file.
#[derive(Clone, Debug)]
pub(super) enum FileTensor<'a> {
    Torch(StridedTensor<'a>),
    Safe(TensorView<'a>),
}

impl FileTensor<'_> {
    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Self::Torch(tensor) => tensor.shape(),
            Self::Safe(view) => view.shape(),
        }
    }

    pub(super) fn n_bytes(&self) -> usize {
        match self {
            Self::Torch(tensor) => tensor.n_bytes(),
            Self::Safe(view) => view.data().len(),
        }
    }
}

/// Tensors by their published names, without a prefix.
pub(super) type Tensors<'a> = BTreeMap<String, FileTensor<'a>>;

impl TensorSource for Tensors<'_> {
    fn names(&self) -> Vec<&str> {
        self.keys().map(String::as_str).collect()
    }

    fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        Some(match self.get(name)? {
            FileTensor::Safe(view) => view.clone().into(),
            FileTensor::Torch(tensor) => StoredTensor {
                dtype: dtype(tensor.element()),
                shape: tensor.shape().to_vec(),
                bytes: tensor.to_bytes(),
            },
        })
    }
}

fn dtype(element: Element) -> Dtype {
    match element {
        Element::F64 => Dtype::F64,
        Element::F32 => Dtype::F32,
        Element::F16 => Dtype::F16,
        Element::BF16 => Dtype::BF16,
        Element::I64 => Dtype::I64,
        Element::I32 => Dtype::I32,
        Element::I16 => Dtype::I16,
        Element::I8 => Dtype::I8,
        Element::U8 => Dtype::U8,
        Element::Bool => Dtype::BOOL,
    }
}

/// The tensors of the model, in the file's order and without the prefix, and the names of the others.
pub(super) struct ModelTensors<'a> {
    pub(super) tensors: Vec<(String, FileTensor<'a>)>,
    pub(super) left_out: Vec<String>,
}

impl<'a> ModelTensors<'a> {
    /// The tensors whose names have the same prefix as the embedding's.
    ///
    /// # Errors
    /// [`ModelError::Import`] when there is no embedding, a name occurs twice, or the model is one of images.
    pub(super) fn select(named: Vec<(String, FileTensor<'a>)>, origin: &str) -> Result<Self, ModelError> {
        let prefixes = named.iter().filter_map(|(name, _)| {
            let prefix = name.strip_suffix(EMBEDDING)?;
            (prefix.is_empty() || prefix.ends_with('.')).then_some(prefix)
        });
        // The file of a distillation may hold its teacher, too.
        let rank = |prefix: &&str| (!prefix.starts_with("backbone."), prefix.len());
        let Some(prefix) = prefixes.min_by_key(rank).map(str::to_string) else {
            let problem = format!(
                "none of its {} tensors is called {EMBEDDING}; it is no published checkpoint of a text model",
                named.len()
            );
            return Err(import_error(origin, problem));
        };
        let (mut tensors, mut left_out, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (name, tensor) in named {
            match name.strip_prefix(&prefix) {
                Some(rest) if !names.insert(rest.to_string()) => {
                    return Err(import_error(origin, format!("it holds tensor {} twice", shortened(&name))));
                }
                Some(rest) => tensors.push((rest.to_string(), tensor)),
                None => left_out.push(name),
            }
        }
        if names.iter().any(|name| name.starts_with("cls_embed.")) {
            return Err(import_error(
                origin,
                "it is a class-conditional image model, which this version does not have",
            ));
        }
        Ok(Self { tensors, left_out })
    }
}

pub(super) fn import_error(origin: &str, problem: impl Into<String>) -> ModelError {
    ModelError::Import { origin: origin.to_string(), problem: problem.into() }
}
