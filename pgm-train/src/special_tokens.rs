//! The special tokens of models and data, by id and name, and the tokenizer's files of a model folder.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use pgm_data::{DataFolder, Mode};
use pgm_model::ModelConfig;
use pgm_model::model_folder::TOKENIZER_CONFIG_FILE;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::TrainError;

/// A special token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SpecialToken {
    /// "bos", "eos", "pad" or "mask".
    pub(crate) role: String,
    pub(crate) id: u32,
    /// Its text in the tokenizer; a mask that was added to the vocabulary has none.
    pub(crate) name: Option<String>,
}

impl fmt::Display for SpecialToken {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name:?} (id {})", self.id),
            None => write!(f, "id {}", self.id),
        }
    }
}

impl SpecialToken {
    /// Whether two tokens of one role are the same: of one id, and of one name where both have one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let same_name = self.name.is_none() || other.name.is_none() || self.name == other.name;
        self.id == other.id && same_name
    }
}

/// The special tokens of data. Padding is among them where the data has padded rows. Those of pictures have no names.
pub(crate) fn special_of_data(data: &DataFolder) -> Vec<SpecialToken> {
    let (manifest, special) = (data.manifest(), &data.manifest().special);
    let pad = (manifest.mode == Mode::Pad).then(|| special.pad.unwrap_or(special.eos));
    named(
        [("bos", Some(special.bos)), ("eos", Some(special.eos)), ("pad", pad), ("mask", Some(special.mask))],
        &data.tokenizer().map(|tokenizer| names(tokenizer.json())).unwrap_or_default(),
    )
}

/// The special tokens of a model with its `tokenizer.json`. A model without padding pads with EOS.
pub(crate) fn special_of_model(config: &ModelConfig, tokenizer: &[u8]) -> Vec<SpecialToken> {
    let backbone = config.backbone();
    let ids = [
        ("bos", backbone.bos_index),
        ("eos", backbone.eos_index),
        ("pad", backbone.pad_index.unwrap_or(backbone.eos_index)),
        ("mask", backbone.mask_index),
    ];
    named(ids.map(|(role, id)| (role, Some(id as u32))), &names(tokenizer))
}

/// The first role whose tokens differ. A role that only one of them has is not compared.
pub(crate) fn first_difference<'a>(
    before: &'a [SpecialToken],
    now: &'a [SpecialToken],
) -> Option<(&'a SpecialToken, &'a SpecialToken)> {
    let pairs = before.iter().filter_map(|before| Some((before, now.iter().find(|now| now.role == before.role)?)));
    pairs.into_iter().find(|(before, now)| !before.is_same(now))
}

/// What to do about other special tokens: `--special-tokens` of `pgm-data prepare`.
pub(crate) fn prepare_flag(tokens: &[SpecialToken]) -> String {
    let names = tokens.iter().filter_map(|token| Some(format!("{}={}", token.role, token.name.as_ref()?)));
    format!("prepare the data with --special-tokens '{}'", names.collect::<Vec<_>>().join(","))
}

fn named(ids: [(&str, Option<u32>); 4], names: &HashMap<u32, String>) -> Vec<SpecialToken> {
    let token = |(role, id): (&str, Option<u32>)| {
        let id = id?;
        Some(SpecialToken { role: role.to_string(), id, name: names.get(&id).cloned() })
    };
    ids.into_iter().filter_map(token).collect()
}

// The tokens of a `tokenizer.json` by id; none when it cannot be read.
fn names(tokenizer: &[u8]) -> HashMap<u32, String> {
    let json: Value = serde_json::from_slice(tokenizer).unwrap_or_default();
    let mut names = HashMap::new();
    match &json["model"]["vocab"] {
        Value::Object(vocab) => {
            let entry = |(name, id): (&String, &Value)| Some((id.as_u64()? as u32, name.clone()));
            names.extend(vocab.iter().filter_map(entry));
        }
        // Unigram: pairs of a token and its score.
        Value::Array(vocab) => {
            let entry = |(id, pair): (usize, &Value)| Some((id as u32, pair[0].as_str()?.to_string()));
            names.extend(vocab.iter().enumerate().filter_map(entry));
        }
        _ => {}
    }
    let added = json["added_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    let entry = |token: &Value| Some((token["id"].as_u64()? as u32, token["content"].as_str()?.to_string()));
    names.extend(added.iter().filter_map(entry));
    names
}

/// The tokenizer's files of a model folder.
#[derive(Clone, Debug)]
pub(crate) struct TokenizerFiles {
    /// `tokenizer.json`.
    pub(crate) json: Vec<u8>,
    /// `tokenizer_config.json`: the data folder's, if it has one, with the special tokens that the data was prepared with.
    pub(crate) config: Vec<u8>,
}

impl TokenizerFiles {
    /// The files of a model that is trained on the data folder at `path`. If it has no `tokenizer_config.json`, that of the
    /// model folder `init` is taken.
    ///
    /// # Errors
    /// [`TrainError::File`] when `tokenizer_config.json` cannot be read or is not a JSON object; [`TrainError::Data`] for
    /// pictures.
    pub(crate) fn of(data: &DataFolder, path: &Path, init: Option<&Path>) -> Result<Self, TrainError> {
        let of_data = path.join(TOKENIZER_CONFIG_FILE);
        let of_init = init.map(|init| init.join(TOKENIZER_CONFIG_FILE));
        let path = of_init.filter(|of_init| !of_data.exists() && of_init.exists()).unwrap_or(of_data);
        let existing = match std::fs::read(&path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(TrainError::file("read", &path, error)),
        };
        let config: Option<Map<String, Value>> = match &existing {
            Some(bytes) => Some(serde_json::from_slice(bytes).map_err(|error| TrainError::file("read", &path, error))?),
            None => None,
        };
        let json = data.tokenizer()?.json().to_vec();
        let special = &data.manifest().special;
        let ids = [
            ("bos", Some(special.bos)),
            ("eos", Some(special.eos)),
            ("pad", special.pad),
            ("mask", Some(special.mask)),
        ];
        let (new, is_changed) = with_special(config, &named(ids, &names(&json)));
        let config = match existing {
            Some(bytes) if !is_changed => bytes,
            _ => serde_json::to_vec_pretty(&new).expect("JSON values always serialise"),
        };
        Ok(Self { json, config })
    }
}

// A configuration with these special tokens, and whether that changed it.
fn with_special(config: Option<Map<String, Value>>, special: &[SpecialToken]) -> (Map<String, Value>, bool) {
    let mut is_changed = config.is_none();
    let mut config =
        config.unwrap_or_else(|| Map::from_iter([("tokenizer_class".to_string(), json!("PreTrainedTokenizerFast"))]));
    for token in special {
        let (key, Some(name)) = (format!("{}_token", token.role), &token.name) else { continue };
        let before = config.get(&key).and_then(|entry| entry.as_str().or_else(|| entry["content"].as_str()));
        if before != Some(name) {
            config.insert(key, json!(name));
            is_changed = true;
        }
    }
    (config, is_changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(role: &str, id: u32, name: Option<&str>) -> SpecialToken {
        SpecialToken { role: role.to_string(), id, name: name.map(str::to_string) }
    }

    #[test]
    fn tokens_are_found_by_id_in_every_kind_of_vocabulary() {
        let added = r#""added_tokens": [{"id": 2, "content": "[B]"}]"#;
        for vocab in [r#"{"a": 0, "b": 1}"#, r#"[["a", -1.0], ["b", -2.0]]"#] {
            let found = names(format!("{{{added}, \"model\": {{\"vocab\": {vocab}}}}}").as_bytes());
            let expected = [(0, "a"), (1, "b"), (2, "[B]")].map(|(id, name)| (id, name.to_string()));
            assert_eq!(found, HashMap::from(expected));
        }
        assert!(names(b"{}").is_empty() && names(b"no JSON").is_empty());
    }

    #[test]
    fn tokens_differ_by_id_or_by_name() {
        let one = [token("bos", 1, Some("[CLS]")), token("mask", 9, None)];
        let same = [token("bos", 1, Some("[CLS]")), token("pad", 4, None), token("mask", 9, Some("[MASK]"))];
        assert_eq!(first_difference(&one, &same), None);
        for other in [token("bos", 2, Some("[CLS]")), token("bos", 1, Some("[SEP]")), token("bos", 2, None)] {
            assert_eq!(first_difference(&one, std::slice::from_ref(&other)), Some((&one[0], &other)));
        }
        assert_eq!(prepare_flag(&one), "prepare the data with --special-tokens 'bos=[CLS]'");
        assert_eq!((one[0].to_string(), one[1].to_string()), ("\"[CLS]\" (id 1)".to_string(), "id 9".to_string()));
    }

    #[test]
    fn a_configuration_gets_the_tokens_of_the_data_and_keeps_the_rest() {
        let special = [token("bos", 1, Some("[SEP]")), token("mask", 9, None)];
        let object = |value: Value| value.as_object().cloned().unwrap();
        let (made, is_changed) = with_special(None, &special);
        assert!(is_changed && made["bos_token"] == "[SEP]" && !made.contains_key("mask_token"));
        let before = object(json!({ "chat_template": "t", "bos_token": { "content": "[CLS]" } }));
        let (made, is_changed) = with_special(Some(before), &special);
        assert!(is_changed);
        assert_eq!(made, object(json!({ "chat_template": "t", "bos_token": "[SEP]" })));
        let before = object(json!({ "bos_token": { "content": "[SEP]", "lstrip": false } }));
        assert_eq!(with_special(Some(before.clone()), &special), (before, false));
    }
}
