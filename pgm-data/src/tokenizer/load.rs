//! Loading a `tokenizer.json`: its special tokens, and the settings that training data cannot have.

use serde_json::{Map, Value, json};
use tokenizers::{AddedToken, ModelWrapper, Tokenizer};

use crate::error::DataError;
use crate::special_tokens::{SpecialNames, SpecialTokens};

const BOS_NAMES: [&str; 7] =
    ["<|endoftext|>", "<s>", "[CLS]", "<bos>", "<|begin_of_text|>", "<|startoftext|>", MADE_BOS];
const EOS_NAMES: [&str; 6] = ["<|endoftext|>", "</s>", "[SEP]", "<eos>", "<|end_of_text|>", MADE_EOS];
const PAD_NAMES: [&str; 3] = ["[PAD]", "<pad>", "<|pad|>"];
const MASK_NAMES: [&str; 3] = ["[MASK]", "<mask>", "<|mask|>"];
/// Names of the tokens that a vocabulary without BOS or EOS gets.
const MADE_BOS: &str = "<|bos|>";
const MADE_EOS: &str = "<|eos|>";

/// A tokenizer for training data.
pub(super) struct Loaded {
    pub(super) tokenizer: Tokenizer,
    /// The `tokenizer.json`, with the changes that were made.
    pub(super) json: Vec<u8>,
    pub(super) special: SpecialTokens,
    pub(super) vocab_size: usize,
    /// The `tokenizer_config.json` that finds the same special tokens again.
    pub(super) config: Option<Vec<u8>>,
    /// What was changed, for the user.
    pub(super) notes: Vec<String>,
}

/// Parses a `tokenizer.json`. A text that has the name of a special token is ordinary text.
pub(super) fn parse(json: &[u8], origin: &str) -> Result<Tokenizer, DataError> {
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| DataError::Tokenizer {
        origin: origin.to_string(),
        problem: format!("is not a Hugging Face tokenizer.json ({error})"),
    })?;
    tokenizer.set_encode_special_tokens(true);
    // A tokenizer made for another model may truncate or pad its output. Here rows are cut by `prepare`.
    let _ = tokenizer.with_truncation(None);
    tokenizer.with_padding(None);
    // With dropout the same text has other tokens each time.
    if let ModelWrapper::BPE(bpe) = tokenizer.get_model()
        && bpe.dropout.is_some()
    {
        let mut bpe = bpe.clone();
        bpe.dropout = None;
        tokenizer.with_model(ModelWrapper::BPE(bpe));
    }
    Ok(tokenizer)
}

/// Loads a `tokenizer.json` with its `tokenizer_config.json`, if it has one.
pub(super) fn load(
    json: Vec<u8>,
    origin: &str,
    names: &SpecialNames,
    config: Option<Vec<u8>>,
) -> Result<Loaded, DataError> {
    let failed = |problem: String| DataError::Tokenizer { origin: origin.to_string(), problem };
    let mut tokenizer = parse(&json, origin)?;
    let mut tree: Value = serde_json::from_slice(&json).map_err(|error| failed(format!("is not JSON ({error})")))?;
    let config_tree: Value = match &config {
        Some(config) => serde_json::from_slice(config)
            .map_err(|error| failed(format!("has a tokenizer_config.json that is not JSON ({error})")))?,
        None => Value::Null,
    };
    let mut notes = Vec::new();
    let mut changed = false;

    if let Some(dropout) = tree["model"]["dropout"].as_f64().filter(|dropout| *dropout > 0.0) {
        tree["model"]["dropout"] = Value::Null;
        changed = true;
        notes.push(format!("BPE dropout {dropout} is turned off: with it the same text has other tokens each time"));
    }

    let find = |role: &str, named: &Option<String>, usual: &[&str]| -> Result<Option<u32>, DataError> {
        if let Some(name) = named {
            let unknown = || failed(format!("has no token {name:?} for the {role} token; check --special-tokens"));
            return tokenizer.token_to_id(name).ok_or_else(unknown).map(Some);
        }
        if let Some(name) = configured(&config_tree, role) {
            let unknown = || {
                failed(format!(
                    "has no token {name:?}, which tokenizer_config.json names as {role}_token; name a token that it \
                     has with --special-tokens {role}=NAME, or take that line out of tokenizer_config.json"
                ))
            };
            return tokenizer.token_to_id(name).ok_or_else(unknown).map(Some);
        }
        Ok(usual.iter().find_map(|name| tokenizer.token_to_id(name)))
    };
    let (bos, eos) = (find("bos", &names.bos, &BOS_NAMES)?, find("eos", &names.eos, &EOS_NAMES)?);
    let (pad, mask) = (find("pad", &names.pad, &PAD_NAMES)?, find("mask", &names.mask, &MASK_NAMES)?);

    let mut make = |tokenizer: &mut Tokenizer, role: &str, name: &str| -> Result<u32, DataError> {
        let id = vocabulary_size(tokenizer) as u32;
        let added = tokenizer.add_special_tokens([AddedToken::from(name, true)]);
        added.map_err(|error| failed(error.to_string()))?;
        if tokenizer.token_to_id(name) != Some(id) {
            return Err(failed(format!(
                "has no {role} token with a usual name, and its ids have gaps, so that none can be added; name a token \
                 with --special-tokens {role}=NAME"
            )));
        }
        let entry = json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                           "normalized": false, "special": true});
        if !tree["added_tokens"].is_array() {
            tree["added_tokens"] = json!([]);
        }
        tree["added_tokens"].as_array_mut().into_iter().for_each(|tokens| tokens.push(entry.clone()));
        changed = true;
        notes.push(format!("the vocabulary has no {role} token with a usual name; {name} is added with the id {id}"));
        Ok(id)
    };
    let made = bos.is_none() || eos.is_none();
    let bos = bos.map_or_else(|| make(&mut tokenizer, "bos", MADE_BOS), Ok)?;
    let eos = eos.map_or_else(|| make(&mut tokenizer, "eos", MADE_EOS), Ok)?;
    let n_known = vocabulary_size(&tokenizer);
    let vocab_size = if mask.is_some() { n_known } else { n_known + 1 };
    let special = SpecialTokens { bos, eos, pad, mask: mask.unwrap_or(n_known as u32) };

    let others = [("bos", Some(special.bos)), ("eos", Some(special.eos)), ("pad", special.pad)];
    if let Some((role, _)) = others.into_iter().find(|(_, id)| *id == Some(special.mask)) {
        let problem = format!("has one token for {role} and mask; name another with --special-tokens {role}=NAME");
        return Err(failed(problem));
    }

    // Without the flag an added token is found in text, and a row could have the mask.
    let roles = [Some(special.bos), Some(special.eos), special.pad, Some(special.mask)];
    for token in tree["added_tokens"].as_array_mut().into_iter().flatten() {
        let id = token["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        if roles.contains(&id) && id.is_some() && token["special"] != true {
            let name = token["content"].as_str().unwrap_or_default().to_string();
            token["special"] = Value::Bool(true);
            changed = true;
            notes.push(format!("{name} is a special token now: its name within the text is ordinary text"));
        }
    }
    let (tokenizer, json) = if changed {
        let json = serde_json::to_vec_pretty(&tree).expect("JSON values always serialise");
        (parse(&json, origin)?, json)
    } else {
        (tokenizer, json)
    };
    let chosen = *names != SpecialNames::default() || made;
    let config = completed_config(config, config_tree, chosen, &token_names(&tokenizer, &special));
    Ok(Loaded { tokenizer, json, special, vocab_size, config, notes })
}

/// The names of special tokens. A token that only has an id has none.
pub(super) fn token_names(tokenizer: &Tokenizer, special: &SpecialTokens) -> SpecialNames {
    let name = |id: u32| tokenizer.id_to_token(id);
    SpecialNames {
        bos: name(special.bos),
        eos: name(special.eos),
        pad: special.pad.and_then(name),
        mask: name(special.mask),
    }
}

/// The id of the token for unknown text, if the model of a `tokenizer.json` has one.
pub(super) fn unknown_id(tokenizer: &Tokenizer) -> Option<u32> {
    let name = match tokenizer.get_model() {
        ModelWrapper::BPE(model) => model.unk_token.clone()?,
        ModelWrapper::WordPiece(model) => model.unk_token.clone(),
        ModelWrapper::WordLevel(model) => model.unk_token.clone(),
        ModelWrapper::Unigram(model) => {
            let tree = serde_json::to_value(model).ok()?;
            return tree["unk_id"].as_u64().and_then(|id| u32::try_from(id).ok());
        }
    };
    tokenizer.token_to_id(&name)
}

// One more than the largest id.
fn vocabulary_size(tokenizer: &Tokenizer) -> usize {
    tokenizer.get_vocab(true).values().max().map_or(0, |last| *last as usize + 1)
}

fn configured<'a>(config: &'a Value, role: &str) -> Option<&'a str> {
    let entry = &config[format!("{role}_token")];
    entry.as_str().or_else(|| entry["content"].as_str())
}

// A `tokenizer_config.json` with the names that are in use. One that says the same already keeps its bytes.
fn completed_config(config: Option<Vec<u8>>, tree: Value, chosen: bool, names: &SpecialNames) -> Option<Vec<u8>> {
    let mut tree = match tree {
        Value::Object(entries) => entries,
        _ if chosen => Map::new(),
        _ => return config,
    };
    let mut changed = false;
    for (role, name) in [("bos", &names.bos), ("eos", &names.eos), ("pad", &names.pad), ("mask", &names.mask)] {
        let key = format!("{role}_token");
        let entry = tree.get(&key).map_or(Value::Null, Value::clone);
        let known = entry.as_str().or_else(|| entry["content"].as_str());
        if let Some(name) = name
            && known != Some(name)
        {
            tree.insert(key, json!(name));
            changed = true;
        }
    }
    if !changed {
        return config;
    }
    Some(serde_json::to_vec_pretty(&Value::Object(tree)).expect("JSON values always serialise"))
}
