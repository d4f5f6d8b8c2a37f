//! Finds weights, settings and tokenizer in a file of `torch.save`, where Lightning and other trainers put them.

use super::metadata::{CheckpointMetadata, SpecialNames};
use super::tensors::{FileTensor, ModelTensors, Tensors, import_error};
use super::torch_file::{Node, StridedTensor, TorchError, TorchFile, Value, shortened};
use crate::config::MAX_LENGTH;
use crate::error::ModelError;
use crate::model_folder::is_buffer;

/// How many objects a value of the configuration may be wrapped in.
const MAX_WRAPPERS: usize = 8;
/// The largest number of tensors in a state dict; a published checkpoint has some hundreds.
const MAX_TENSORS: usize = 1 << 16;
/// The largest length of a tensor's name in bytes. Names are copied, and a pickle may give one long name to many tensors.
const MAX_NAME: usize = 1 << 9;

/// The parts of a checkpoint.
pub(super) struct TorchCheckpoint<'a> {
    pub(super) raw: Tensors<'a>,
    /// The averaged weights, or why they contradict the state dict.
    pub(super) ema: Option<Result<Tensors<'a>, String>>,
    pub(super) left_out: Vec<String>,
    pub(super) metadata: CheckpointMetadata,
}

/// Finds the parts of a checkpoint in a file of `torch.save`; errors name it as `origin`.
///
/// # Errors
/// [`ModelError::Import`] or [`ModelError::Torch`] when the file is damaged or no checkpoint.
pub(super) fn read_torch_checkpoint<'a>(file: &TorchFile<'a>, origin: &str) -> Result<TorchCheckpoint<'a>, ModelError> {
    CheckpointReader { file, origin }.read()
}

struct CheckpointReader<'f, 'a> {
    file: &'f TorchFile<'a>,
    origin: &'f str,
}

impl<'a> CheckpointReader<'_, 'a> {
    fn read(&self) -> Result<TorchCheckpoint<'a>, ModelError> {
        let pickle = self.file.pickle();
        let root = pickle.root();
        // Lightning and most trainers wrap the state dict; otherwise the root is the state dict.
        let wrapped = ["state_dict", "model", "module"].iter().find_map(|key| {
            let node = pickle.entry(root, key)?;
            pickle.entries(node).map(|_| node)
        });
        let named = self.named_tensors(wrapped.unwrap_or(root))?;
        let ModelTensors { tensors, left_out } = ModelTensors::select(named, self.origin)?;
        let shadow = pickle.entry(root, "ema").and_then(|ema| pickle.entry(ema, "shadow_params"));
        let ema = shadow.map(|shadow| self.averaged(shadow, &tensors));
        let metadata = self.metadata(root)?;
        Ok(TorchCheckpoint { raw: tensors.into_iter().collect(), ema, left_out, metadata })
    }

    fn named_tensors(&self, state_dict: Node) -> Result<Vec<(String, FileTensor<'a>)>, ModelError> {
        let pickle = self.file.pickle();
        let Some(entries) = pickle.entries(state_dict) else {
            return Err(import_error(self.origin, "it holds no dictionary of tensors"));
        };
        let mut named = Vec::new();
        for &(key, value) in entries {
            let Some(name) = pickle.str(key) else { continue };
            let tensor = self.tensor(value, || format!("tensor {}", shortened(name)));
            let tensor = tensor.map_err(|cause| ModelError::Torch { origin: self.origin.to_string(), cause })?;
            if let Some(tensor) = tensor {
                if named.len() == MAX_TENSORS || name.len() > MAX_NAME {
                    let problem =
                        format!("it holds more than {MAX_TENSORS} tensors, or names of more than {MAX_NAME} bytes");
                    return Err(import_error(self.origin, problem));
                }
                named.push((name.to_string(), FileTensor::Torch(tensor)));
            }
        }
        Ok(named)
    }

    fn tensor(&self, node: Node, name: impl Fn() -> String) -> Result<Option<StridedTensor<'a>>, TorchError> {
        self.file.tensor(node).map_err(|cause| match cause {
            TorchError::Tensor { problem, .. } => TorchError::Tensor { name: name(), problem },
            other => other,
        })
    }

    // The averaged weights: a list in the order of the state dict without its buffers.
    fn averaged(&self, shadow: Node, named: &[(String, FileTensor<'a>)]) -> Result<Tensors<'a>, String> {
        let Some(shadow) = self.file.pickle().elements(shadow) else {
            return Err("its ema.shadow_params is no list".to_string());
        };
        let parameters: Vec<_> = named.iter().filter(|(name, _)| !is_buffer(name)).collect();
        if shadow.len() != parameters.len() {
            let (n_averaged, n_parameters) = (shadow.len(), parameters.len());
            return Err(format!(
                "it has {n_averaged} averaged weights (ema.shadow_params) for {n_parameters} parameters"
            ));
        }
        let mut averaged = Tensors::new();
        for (index, (&node, (name, raw))) in shadow.iter().zip(parameters).enumerate() {
            let place = || format!("ema.shadow_params[{index}], which should be {},", shortened(name));
            let Some(tensor) = self.tensor(node, place).map_err(|cause| cause.to_string())? else {
                return Err(format!("{} is no tensor", place()));
            };
            if tensor.shape() != raw.shape() {
                let (found, expected) = (tensor.shape(), raw.shape());
                return Err(format!("{} has shape {found:?}, the raw weight {expected:?}", place()));
            }
            averaged.insert(name.clone(), FileTensor::Torch(tensor));
        }
        Ok(averaged)
    }

    // The configuration and the tokenizer.
    fn metadata(&self, root: Node) -> Result<CheckpointMetadata, ModelError> {
        let pickle = self.file.pickle();
        let hyper = ["hyper_parameters", "hparams"].iter().find_map(|key| pickle.entry(root, key));
        let config = hyper.and_then(|hyper| self.child(hyper, "config").or(Some(hyper)));
        let config = config.or_else(|| pickle.entry(root, "config"));
        let at = |path: &[&str]| path.iter().try_fold(config?, |node, key| self.child(node, key));
        let size = |path: &[&str]| at(path).and_then(|node| pickle.size(node));
        let number = |path: &[&str]| match at(path).map(|node| pickle.get(node)) {
            Some(&Value::Float(value)) => Some(value),
            Some(&Value::Int(value)) => Some(value as f64),
            _ => None,
        };
        for (path, what) in [
            (
                ["algo", "causal_attention"],
                "is autoregressive (algo.causal_attention): only partition and masked models are imported",
            ),
            (
                ["algo", "time_conditioning"],
                "is conditioned on the time (algo.time_conditioning), which no model of this version is",
            ),
        ] {
            if at(&path).is_some_and(|node| *pickle.get(node) == Value::Bool(true)) {
                return Err(import_error(self.origin, format!("its model {what}")));
            }
        }
        let tokenizer = hyper.and_then(|hyper| self.child(hyper, "tokenizer"));
        let queries = at(&["model", "swap", "pre_query_mode"]).and_then(|node| pickle.str(node)).map(str::to_string);
        Ok(CheckpointMetadata {
            config: None,
            n_heads: size(&["model", "n_heads"]),
            length: size(&["model", "length"]),
            dropout: number(&["model", "dropout"]),
            queries,
            steps: size(&["sampling", "steps"]).filter(|&steps| (1..=MAX_LENGTH).contains(&steps)),
            top_p: number(&["sampling", "p_nucleus"]).filter(|&p| p > 0.0 && p <= 1.0),
            tokenizer: tokenizer.and_then(|tokenizer| self.tokenizer_json(tokenizer)),
            special: tokenizer.map(|tokenizer| self.special_names(tokenizer)).unwrap_or_default(),
        })
    }

    // An entry of a dictionary, or of an OmegaConf object, which keeps `_content` or `_val` in its state.
    fn child(&self, node: Node, key: &str) -> Option<Node> {
        self.file.pickle().entry(self.unwrap(node), key).map(|child| self.unwrap(child))
    }

    fn unwrap(&self, mut node: Node) -> Node {
        for _ in 0..MAX_WRAPPERS {
            let inner = self.file.attribute(node, "_content").or_else(|| self.file.attribute(node, "_val"));
            let Some(inner) = inner else { break };
            node = inner;
        }
        node
    }

    // A fast tokenizer wraps the Rust tokenizer, whose pickled state is its tokenizer.json.
    fn tokenizer_json(&self, tokenizer: Node) -> Option<Vec<u8>> {
        let pickle = self.file.pickle();
        let Value::Object(inner) = pickle.get(self.file.attribute(tokenizer, "_tokenizer")?) else { return None };
        match pickle.get(inner.state?) {
            Value::Bytes(json) => Some(json.to_vec()),
            _ => None,
        }
    }

    fn special_names(&self, tokenizer: Node) -> SpecialNames {
        let pickle = self.file.pickle();
        let text = |node: Node| {
            let text = pickle.str(node).or_else(|| pickle.str(self.file.attribute(node, "content")?))?;
            Some(text.to_string())
        };
        // Recent versions have one map, older ones an attribute for each token.
        let name = |key: &str| {
            let of_map = |map: &str| pickle.entry(self.file.attribute(tokenizer, map)?, key);
            let places = [
                of_map("_special_tokens_map"),
                self.file.attribute(tokenizer, &format!("_{key}")),
                of_map("init_kwargs"),
            ];
            places.into_iter().flatten().find_map(text)
        };
        SpecialNames {
            mask: name("mask_token"),
            bos: name("bos_token").or_else(|| name("cls_token")),
            eos: name("eos_token").or_else(|| name("sep_token")),
            pad: name("pad_token"),
        }
    }
}
