//! The configuration of a published checkpoint: which model it is, and its settings.
//!
//! It is a pickled OmegaConf object, or the `config.json` of a hub folder. Both are read through [`Configuration`], which
//! looks up single values, so that the rules are written once.

use super::metadata::CheckpointMetadata;
use super::tensors::import_error;
use super::torch_file::shortened;
use crate::config::{MAX_LENGTH, ModelConfig};
use crate::error::ModelError;

/// A value of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Text(text) => f.write_str(&shortened(text)),
        }
    }
}

impl Scalar {
    fn is_true(&self) -> bool {
        match self {
            Self::Bool(value) => *value,
            Self::Int(value) => *value == 1,
            Self::Text(text) => text.eq_ignore_ascii_case("true"),
            Self::Float(_) => false,
        }
    }

    fn size(&self) -> Option<usize> {
        match self {
            Self::Int(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    // In lower case and without what separates words.
    fn word(&self) -> String {
        match self {
            Self::Text(text) => {
                text.chars().take(64).filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_ascii_lowercase()
            }
            _ => String::new(),
        }
    }
}

/// A nested dictionary of values.
pub(super) trait Configuration {
    /// The value at a path of keys.
    fn scalar(&self, path: &[&str]) -> Option<Scalar>;
}

impl Configuration for serde_json::Value {
    fn scalar(&self, path: &[&str]) -> Option<Scalar> {
        let value = path.iter().try_fold(self, |value, key| match value {
            Self::Array(elements) => elements.get(key.parse::<usize>().ok()?),
            other => other.get(key),
        })?;
        Some(match value {
            Self::Bool(value) => Scalar::Bool(*value),
            Self::String(text) => Scalar::Text(text.clone()),
            Self::Number(number) => match number.as_i64() {
                Some(value) => Scalar::Int(value),
                None => Scalar::Float(number.as_f64()?),
            },
            _ => return None,
        })
    }
}

/// Where a key may stand: public code writes it at the top, under `algo` or under `model`, and the hub's mixin wraps the
/// whole configuration in `config`.
const SECTIONS: [&[&str]; 8] = [
    &[],
    &["algo"],
    &["model"],
    &["parameterization"],
    &["config"],
    &["config", "algo"],
    &["config", "model"],
    &["config", "parameterization"],
];

/// A value with the keys that lead to it.
type Found = (String, Scalar);

// The first value in any section under any of the keys, each a path itself.
fn find(configuration: &dyn Configuration, keys: &[&[&str]]) -> Option<Found> {
    all(configuration, keys).into_iter().next()
}

fn all(configuration: &dyn Configuration, keys: &[&[&str]]) -> Vec<Found> {
    let paths = keys.iter().flat_map(|key| SECTIONS.iter().map(|section| [section, *key].concat()));
    paths.filter_map(|path| Some((path.join("."), configuration.scalar(&path)?))).collect()
}

/// Beginnings of the names of models that are none of ours, and what they are.
const FOREIGN_MODELS: [(&str, &str); 10] = [
    ("sedd", "SEDD, whose outputs are scores"),
    ("score", "SEDD, whose outputs are scores"),
    ("d3pm", "D3PM, whose outputs have another parameterization"),
    ("udlm", "UDLM, whose noise is uniform"),
    ("uniform", "UDLM, whose noise is uniform"),
    ("duo", "Duo, whose noise is uniform"),
    ("bd3", "BD3LM, whose attention goes block by block"),
    ("blockdiffusion", "BD3LM, whose attention goes block by block"),
    ("dimamba", "a Mamba network"),
    ("esolm", "Eso-LM, whose attention follows the order of decoding"),
];

/// Keys whose value names the kind of the model.
const NAME_KEYS: [&[&str]; 10] = [
    &["model_type"],
    &["architectures", "0"],
    &["algo", "name"],
    &["algo"],
    &["diffusion"],
    &["diffusion_type"],
    &["parameterization"],
    &["parameterization", "name"],
    &["backbone"],
    &["graph", "type"],
];

/// Refuses a configuration of a model that this crate does not have; the error names the file, the key and the value.
///
/// # Errors
/// [`ModelError::Import`].
pub(super) fn refuse_foreign(configuration: &dyn Configuration, origin: &str) -> Result<(), ModelError> {
    let refusal = |(path, value): &Found, what: &str| {
        let problem = format!(
            "its configuration has {path} = {value}, so its model is {what}; only partition, MDLM and autoregressive \
             models can be imported, take a checkpoint of one of these"
        );
        Err(import_error(origin, problem))
    };
    let names = all(configuration, &NAME_KEYS);
    for found in &names {
        // Only SEDD's own code has a graph.
        if found.0.ends_with("graph.type") {
            return refusal(found, FOREIGN_MODELS[0].1);
        }
        let word = found.1.word();
        if let Some((_, what)) = FOREIGN_MODELS.iter().find(|(name, _)| word.starts_with(name)) {
            return refusal(found, what);
        }
        if found.0.ends_with("parameterization") && !matches!(word.as_str(), "subs" | "ar") {
            return refusal(found, "one of another parameterization than subs, such as D3PM");
        }
    }
    if let Some(found) = find(configuration, &[&["time_conditioning"]]).filter(|(_, value)| value.is_true()) {
        return refusal(&found, "conditioned on the time, which no model of this version is");
    }
    if let Some(found) = find(configuration, &[&["cross_attn"]]).filter(|(_, value)| value.is_true()) {
        return refusal(&found, "BD3LM, whose attention goes block by block");
    }
    // BD3LM's code writes the block size for every model, with the model's name beside it.
    let is_named = names.iter().any(|(path, _)| ["algo", "name", "model_type"].iter().any(|key| path.ends_with(key)));
    if let Some(found) = find(configuration, &[&["block_size"]]).filter(|_| !is_named) {
        let length = find(configuration, &LENGTH_KEYS).and_then(|(_, value)| value.size());
        if found.1.size().is_some_and(|size| size > 0 && length.is_none_or(|length| size < length)) {
            return refusal(&found, "BD3LM, whose attention goes block by block");
        }
    }
    if let Some((path, value)) = find(configuration, &[&["quantization_config", "quant_method"]]) {
        let problem = format!(
            "its configuration has {path} = {value}: quantised weights cannot be imported; take the checkpoint in \
             float32 or bfloat16, `--weights` of the other commands quantises it when it is loaded"
        );
        return Err(import_error(origin, problem));
    }
    Ok(())
}

const LENGTH_KEYS: [&[&str]; 4] = [&["model", "length"], &["model_length"], &["length"], &["max_seq_len"]];

impl CheckpointMetadata {
    /// The settings of a published configuration.
    pub(super) fn of_configuration(configuration: &dyn Configuration) -> Self {
        let size = |keys: &[&[&str]]| find(configuration, keys).and_then(|(_, value)| value.size());
        let number = |keys: &[&[&str]]| find(configuration, keys).and_then(|(_, value)| value.number());
        let text = |keys: &[&[&str]]| match find(configuration, keys) {
            Some((_, Scalar::Text(text))) => Some(text),
            _ => None,
        };
        Self {
            n_heads: size(&[&["model", "n_heads"], &["n_heads"], &["num_attention_heads"]]),
            length: size(&LENGTH_KEYS),
            dropout: number(&[&["model", "dropout"], &["dropout"]]),
            queries: text(&[&["model", "swap", "pre_query_mode"], &["swap", "pre_query_mode"], &["pre_query_mode"]]),
            causal: Self::causal(configuration),
            is_tied: find(configuration, &[&["tie_word_embeddings"]]).map(|(_, value)| value.is_true()),
            mask_index: size(&[&["mask_token_id"], &["mask_index"]]),
            bos_index: size(&[&["bos_token_id"]]),
            eos_index: size(&[&["eos_token_id"]]),
            steps: size(&[&["sampling", "steps"]]).filter(|&steps| (1..=MAX_LENGTH).contains(&steps)),
            top_p: number(&[&["sampling", "p_nucleus"]]).filter(|&p| p > 0.0 && p <= 1.0),
            ..Self::default()
        }
    }

    // The key that says whether the model is autoregressive.
    fn causal(configuration: &dyn Configuration) -> Option<(String, bool)> {
        let names = all(configuration, &NAME_KEYS);
        if let Some((path, value)) = names.iter().find(|(_, value)| value.word() == "ar") {
            return Some((format!("{path} = {value}"), true));
        }
        let (path, value) = find(configuration, &[&["causal_attention"], &["causal"]])?;
        Some((format!("{path} = {value}"), value.is_true()))
    }
}

/// The settings in the `config.json` of a hub folder or a model folder.
///
/// # Errors
/// [`ModelError::Import`] when it is no JSON object or describes a model that this crate does not have.
pub(super) fn read_config_json(json: &[u8], origin: &str) -> Result<CheckpointMetadata, ModelError> {
    crate::model_folder::refuse_substitute(json, origin)?;
    let value: serde_json::Value = serde_json::from_slice(json)
        .map_err(|error| import_error(origin, format!("it is not valid JSON ({error}); download it again")))?;
    if let Ok(config) = serde_json::from_value::<ModelConfig>(value.clone()) {
        return Ok(CheckpointMetadata { config: Some(config), ..CheckpointMetadata::default() });
    }
    refuse_foreign(&value, origin)?;
    Ok(CheckpointMetadata::of_configuration(&value))
}

/// The names of the special tokens in `tokenizer_config.json` or `special_tokens_map.json`.
pub(super) fn read_special_names(json: &[u8]) -> super::SpecialNames {
    let value: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    let name = |key: &str| match (value.scalar(&[key]), value.scalar(&[key, "content"])) {
        (Some(Scalar::Text(name)), _) | (_, Some(Scalar::Text(name))) => Some(name),
        _ => None,
    };
    super::SpecialNames {
        mask: name("mask_token"),
        bos: name("bos_token").or_else(|| name("cls_token")),
        eos: name("eos_token").or_else(|| name("sep_token")),
        pad: name("pad_token"),
    }
}
