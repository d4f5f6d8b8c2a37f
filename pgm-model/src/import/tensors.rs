//! The tensors of a checkpoint file of either format.

use std::collections::{BTreeMap, BTreeSet};

use safetensors::tensor::{Dtype, TensorView};

use super::torch_file::{Element, StridedTensor, shortened};
use crate::error::ModelError;
use crate::model_folder::{StoredTensor, TensorSource};

/// Every published checkpoint has this tensor, so the beginning of its name is that of the others.
pub(super) const EMBEDDING: &str = "vocab_embed.embedding";

/// The head's matrix, which a file of a model with tied weights may leave out.
pub(super) const HEAD: &str = "output_layer.linear.weight";

/// MaskGIT's embedding, which its checkpoints have instead.
pub(super) const CODES: &str = "tok_emb.weight";

/// A tensor as a view of the file.
#[derive(Clone, Debug)]
pub(crate) enum FileTensor<'a> {
    Torch(StridedTensor<'a>),
    Safe(TensorView<'a>),
}

impl FileTensor<'_> {
    pub(crate) fn shape(&self) -> &[usize] {
        match self {
            Self::Torch(tensor) => tensor.shape(),
            Self::Safe(view) => view.shape(),
        }
    }

    /// Where its elements lie in memory: two names of one parameter have the same place.
    pub(super) fn place(&self) -> (*const u8, &[usize]) {
        match self {
            Self::Torch(tensor) => (tensor.start(), tensor.shape()),
            Self::Safe(view) => (view.data().as_ptr(), view.shape()),
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
pub(crate) type Tensors<'a> = BTreeMap<String, FileTensor<'a>>;

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

/// Parts of a name that are no part of the published one: PyTorch wrappers put them in front of the module that they wrap.
const WRAPPERS: [&str; 6] = [
    "module",
    "_orig_mod",
    "_forward_module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_checkpoint_wrapped_model",
];

/// A name without the parts that wrappers (DDP, FSDP, `torch.compile`, activation checkpointing) added, at any level.
pub(super) fn without_wrappers(name: &str) -> String {
    name.split('.').filter(|part| !WRAPPERS.contains(part)).collect::<Vec<_>>().join(".")
}

/// The tensors of the model, in the file's order and without the prefix, and the names of the others.
pub(super) struct ModelTensors<'a> {
    pub(super) tensors: Vec<(String, FileTensor<'a>)>,
    /// Averages that lie beside the model, under a prefix of their own such as `ema_model.`.
    pub(super) ema: Option<Vec<(String, FileTensor<'a>)>>,
    pub(super) left_out: Vec<String>,
}

impl<'a> ModelTensors<'a> {
    /// The tensors whose names have the same prefix as the embedding's, or as the head's that is tied to it.
    ///
    /// # Errors
    /// [`ModelError::Import`] when there is no embedding, or a name occurs twice.
    pub(super) fn select(named: Vec<(String, FileTensor<'a>)>, origin: &str) -> Result<Self, ModelError> {
        let named: Vec<_> = named.into_iter().map(|(name, tensor)| (without_wrappers(&name), tensor)).collect();
        let prefixes = |anchor: &str| -> Vec<String> {
            let prefix = |name: &str| {
                let prefix = name.strip_suffix(anchor)?;
                (prefix.is_empty() || prefix.ends_with('.')).then(|| prefix.to_string())
            };
            named.iter().filter_map(|(name, _)| prefix(name)).collect()
        };
        let mut found = prefixes(EMBEDDING);
        for anchor in [HEAD, CODES] {
            if found.is_empty() {
                found = prefixes(anchor);
            }
        }
        let is_ema = |prefix: &str| prefix.to_ascii_lowercase().starts_with("ema");
        // The file of a distillation may hold its teacher, too.
        let rank = |prefix: &&String| (is_ema(prefix), !prefix.starts_with("backbone."), prefix.len());
        let Some(prefix) = found.iter().min_by_key(rank).cloned() else {
            let problem = format!(
                "none of its {} tensors is called {EMBEDDING} or {CODES}; it is no published checkpoint of a model",
                named.len()
            );
            return Err(import_error(origin, problem));
        };
        let ema_prefix =
            found.iter().filter(|other| is_ema(other) && **other != prefix).min_by_key(|other| other.len());
        let (mut tensors, mut ema, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
        let mut names = BTreeSet::new();
        for (name, tensor) in named {
            if !names.insert(name.clone()) {
                return Err(import_error(origin, format!("it holds tensor {} twice", shortened(&name))));
            }
            match (name.strip_prefix(&prefix), ema_prefix.and_then(|prefix| name.strip_prefix(prefix))) {
                // With an empty prefix, every name begins with it.
                (_, Some(rest)) => ema.push((rest.to_string(), tensor)),
                (Some(rest), None) => tensors.push((rest.to_string(), tensor)),
                (None, None) => left_out.push(name),
            }
        }
        Ok(Self { tensors, ema: ema_prefix.is_some().then_some(ema), left_out })
    }
}

/// Gives a tied head the embedding, or the embedding the tied head, where a file stores only one of the two. Returns the
/// name of the tensor that was left out.
pub(super) fn complete_tied(tensors: &mut Tensors) -> Option<&'static str> {
    let (missing, stored) = match (tensors.contains_key(EMBEDDING), tensors.contains_key(HEAD)) {
        (true, false) => (HEAD, EMBEDDING),
        (false, true) => (EMBEDDING, HEAD),
        _ => return None,
    };
    let tensor = tensors.get(stored)?.clone();
    tensors.insert(missing.to_string(), tensor);
    Some(missing)
}

pub(super) fn import_error(origin: &str, problem: impl Into<String>) -> ModelError {
    ModelError::Import { origin: origin.to_string(), problem: problem.into() }
}
