//! Finds weights, settings and tokenizer in a file of `torch.save`, where Lightning and other trainers put them.

use std::collections::HashMap;

use super::configuration::{Configuration, Scalar, refuse_foreign};
use super::metadata::{CheckpointMetadata, SpecialNames};
use super::tensors::{EMBEDDING, FileTensor, HEAD, ModelTensors, Tensors, import_error, without_wrappers};
use super::torch_file::{Node, StridedTensor, TorchError, TorchFile, Value, shortened};
use crate::error::ModelError;
use crate::model_folder::is_buffer;

/// How many objects a value of the configuration may be wrapped in.
const MAX_WRAPPERS: usize = 8;
/// The largest number of tensors in a state dict; a published checkpoint has some hundreds.
const MAX_TENSORS: usize = 1 << 16;
/// The largest length of a tensor's name in bytes. Names are copied, and a pickle may give one long name to many tensors.
const MAX_NAME: usize = 1 << 9;

/// Keys under which trainers keep the state dict, or a dictionary that has it.
const STATE_KEYS: [&str; 6] = ["state_dict", "model_state_dict", "model", "module", "network", "net"];
/// How many dictionaries a state dict may lie in.
const MAX_NESTING: usize = 4;
/// Keys under which trainers keep the averaged weights.
const EMA_KEYS: [&str; 7] =
    ["ema", "ema_state_dict", "model_ema", "ema_model", "state_dict_ema", "ema_params", "model_ema_state_dict"];

/// Averaged weights.
#[derive(Clone, Debug)]
pub(super) struct Averages<'a> {
    /// Where they are in the file.
    pub(super) place: String,
    /// The tensors, or why they contradict the state dict.
    pub(super) tensors: Result<Tensors<'a>, String>,
}

/// The parts of a checkpoint.
pub(super) struct TorchCheckpoint<'a> {
    pub(super) raw: Tensors<'a>,
    pub(super) ema: Option<Averages<'a>>,
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

/// The tensors of one file of `torch.save`, such as a shard; errors name it as `origin`.
///
/// # Errors
/// As [`read_torch_checkpoint`].
pub(super) fn read_torch_tensors<'a>(
    file: &TorchFile<'a>,
    origin: &str,
) -> Result<Vec<(String, FileTensor<'a>)>, ModelError> {
    let reader = CheckpointReader { file, origin };
    let levels = reader.levels();
    reader.named_tensors(levels[levels.len() - 1])
}

/// The tensors under the first of `keys` that holds a dictionary, or at the root, without the prefixes of wrappers; errors
/// name the file as `origin`.
///
/// # Errors
/// As [`read_torch_checkpoint`].
pub(crate) fn read_torch_state<'a>(
    file: &TorchFile<'a>,
    origin: &str,
    keys: &[&str],
) -> Result<Vec<(String, FileTensor<'a>)>, ModelError> {
    let reader = CheckpointReader { file, origin };
    let root = file.pickle().root();
    let state = reader.dictionary(root, keys).map_or(root, |(_, state)| state);
    let named = reader.named_tensors(state)?;
    Ok(named.into_iter().map(|(name, tensor)| (without_wrappers(&name), tensor)).collect())
}

struct CheckpointReader<'f, 'a> {
    file: &'f TorchFile<'a>,
    origin: &'f str,
}

impl<'a> CheckpointReader<'_, 'a> {
    fn read(&self) -> Result<TorchCheckpoint<'a>, ModelError> {
        let levels = self.levels();
        let mut named = self.named_tensors(levels[levels.len() - 1])?;
        let ema = levels.iter().find_map(|&level| self.ema_entry(level));
        // A file may hold nothing but the averages.
        if let Some((_, averages)) = ema
            && named.is_empty()
        {
            named = self.named_tensors(self.last_level(averages))?;
        }
        let ModelTensors { tensors, ema: beside, left_out } = ModelTensors::select(named, self.origin)?;
        let ema = match (ema.and_then(|(key, averages)| self.averages(key, averages, &tensors)), beside) {
            (Some(averages), _) => Some(averages),
            (None, beside) => beside.map(|beside| averages_beside(beside, &tensors)),
        };
        let metadata = self.metadata(levels[0])?;
        Ok(TorchCheckpoint { raw: tensors.into_iter().collect(), ema, left_out, metadata })
    }

    // The root, and the dictionaries around the state dict, which is the last. Lightning and most trainers wrap the state
    // dict; otherwise the root is the state dict.
    fn levels(&self) -> Vec<Node> {
        self.levels_from(self.file.pickle().root())
    }

    fn levels_from(&self, root: Node) -> Vec<Node> {
        let mut levels = vec![root];
        while levels.len() < MAX_NESTING
            && let Some(inner) = self.dictionary(levels[levels.len() - 1], &STATE_KEYS)
        {
            levels.push(inner.1);
        }
        levels
    }

    fn last_level(&self, root: Node) -> Node {
        let levels = self.levels_from(root);
        levels[levels.len() - 1]
    }

    // The first of the keys under which there is a dictionary.
    fn dictionary<'k>(&self, node: Node, keys: &[&'k str]) -> Option<(&'k str, Node)> {
        let pickle = self.file.pickle();
        keys.iter().find_map(|&key| {
            let node = pickle.entry(node, key)?;
            pickle.entries(node).map(|_| (key, node))
        })
    }

    // The dictionary of the averages: tensors by name, or an averaging class's state with a list or a dictionary of them.
    fn ema_entry(&self, level: Node) -> Option<(&'static str, Node)> {
        self.dictionary(level, &EMA_KEYS)
    }

    fn averages(&self, key: &str, node: Node, named: &[(String, FileTensor<'a>)]) -> Option<Averages<'a>> {
        if let Some(shadow) = self.file.pickle().entry(node, "shadow_params") {
            let place = format!("{key}.shadow_params, in the order of the state dict's parameters");
            return Some(Averages { place, tensors: self.averages_in_order(shadow, named) });
        }
        let (place, dictionary) = match self.dictionary(node, &["shadow", "shadow_state_dict"]) {
            Some((inner, dictionary)) => (format!("the dictionary {key}.{inner}"), dictionary),
            None => (format!("the dictionary {key}"), self.last_level(node)),
        };
        let averaged = match self.named_tensors(dictionary) {
            Ok(averaged) if averaged.is_empty() => return None,
            Ok(averaged) => averaged,
            Err(error) => return Some(Averages { place, tensors: Err(error.to_string()) }),
        };
        let selected = ModelTensors::select(averaged, self.origin).map_err(|error| error.to_string());
        let tensors = selected.and_then(|selected| {
            let averaged = selected.ema.unwrap_or(selected.tensors);
            match_names(averaged, named).map_err(|problem| format!("{place}: {problem}"))
        });
        Some(Averages { place, tensors })
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
    fn averages_in_order(&self, shadow: Node, named: &[(String, FileTensor<'a>)]) -> Result<Tensors<'a>, String> {
        let Some(shadow) = self.file.pickle().elements(shadow) else {
            return Err("its ema.shadow_params is no list".to_string());
        };
        // PyTorch lists a parameter once, also where two names of the state dict share it.
        let mut parameters: Vec<&(String, FileTensor)> = Vec::new();
        let mut shared = Vec::new();
        let mut places = HashMap::new();
        let n_parameters = named.iter().filter(|(name, _)| !is_buffer(name)).count();
        for entry in named.iter().filter(|(name, _)| !is_buffer(name)) {
            match places.get(&entry.1.place()) {
                Some(first) if shadow.len() < n_parameters => shared.push((entry.0.clone(), String::clone(first))),
                _ => {
                    places.insert(entry.1.place(), entry.0.clone());
                    parameters.push(entry);
                }
            }
        }
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
        for (name, first) in shared {
            if let Some(tensor) = averaged.get(&first).cloned() {
                averaged.insert(name, tensor);
            }
        }
        Ok(averaged)
    }

    // The configuration and the tokenizer.
    fn metadata(&self, root: Node) -> Result<CheckpointMetadata, ModelError> {
        let pickle = self.file.pickle();
        let hyper = ["hyper_parameters", "hparams"].iter().find_map(|key| pickle.entry(root, key));
        let config = hyper.and_then(|hyper| self.child(hyper, "config").or(Some(hyper)));
        let config = config.or_else(|| ["config", "cfg", "args"].iter().find_map(|key| pickle.entry(root, key)));
        let tokenizer = hyper.and_then(|hyper| self.child(hyper, "tokenizer"));
        let settings = match config {
            Some(node) => {
                let configuration = PickledConfiguration { reader: self, node };
                refuse_foreign(&configuration, self.origin)?;
                CheckpointMetadata::of_configuration(&configuration)
            }
            None => CheckpointMetadata::default(),
        };
        Ok(CheckpointMetadata {
            tokenizer: tokenizer.and_then(|tokenizer| self.tokenizer_json(tokenizer)),
            special: tokenizer.map(|tokenizer| self.special_names(tokenizer)).unwrap_or_default(),
            ..settings
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

// A pickled configuration: a dictionary or an OmegaConf object.
struct PickledConfiguration<'r, 'f, 'a> {
    reader: &'r CheckpointReader<'f, 'a>,
    node: Node,
}

impl Configuration for PickledConfiguration<'_, '_, '_> {
    fn scalar(&self, path: &[&str]) -> Option<Scalar> {
        let node = path.iter().try_fold(self.node, |node, key| self.reader.child(node, key))?;
        match self.reader.file.pickle().get(node) {
            Value::Bool(value) => Some(Scalar::Bool(*value)),
            Value::Int(value) => Some(Scalar::Int(*value)),
            Value::Float(value) => Some(Scalar::Float(*value)),
            Value::Str(text) => Some(Scalar::Text(text.to_string())),
            _ => None,
        }
    }
}

/// Averages that lie in the state dict itself, under a prefix of their own.
pub(super) fn averages_beside<'a>(
    beside: Vec<(String, FileTensor<'a>)>,
    named: &[(String, FileTensor<'a>)],
) -> Averages<'a> {
    Averages {
        place: "the names of the state dict that begin with ema".to_string(),
        tensors: match_names(beside, named),
    }
}

// The averages of all parameters, by name.
fn match_names<'a>(
    averaged: Vec<(String, FileTensor<'a>)>,
    named: &[(String, FileTensor<'a>)],
) -> Result<Tensors<'a>, String> {
    let averaged: Tensors = averaged.into_iter().collect();
    let place = |wanted: &str| named.iter().find(|(name, _)| name == wanted).map(|(_, tensor)| tensor.place());
    let is_tied = place(HEAD) == place(EMBEDDING);
    for (name, raw) in named.iter().filter(|(name, _)| !is_buffer(name)) {
        let found = averaged.get(name).map(FileTensor::shape);
        if found.is_none() && is_tied && (name == HEAD || name == EMBEDDING) {
            // The file leaves out one of two tied tensors.
            continue;
        }
        let Some(found) = found else {
            return Err(format!("it has no averaged weight of {}", shortened(name)));
        };
        if found != raw.shape() {
            let (name, expected) = (shortened(name), raw.shape());
            return Err(format!("the averaged weight {name} has shape {found:?}, the raw one {expected:?}"));
        }
    }
    Ok(averaged)
}
