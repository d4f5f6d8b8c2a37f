//! The bodies that clients send, as far as they can be read without a model.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The largest seed: what JavaScript can hold, too.
pub const MAX_SEED: u64 = (1 << 53) - 1;
/// Stop strings of a request.
const MAX_STOPS: usize = 16;
/// Alternatives to a token.
const MAX_LOGPROBS: usize = 5;

/// What cannot be met: the field, if it is one, and why, in one sentence.
#[derive(Debug, PartialEq, Eq)]
pub struct BodyError {
    pub field: Option<&'static str>,
    pub message: String,
}

impl BodyError {
    /// About one field.
    pub fn field(field: &'static str, message: impl Into<String>) -> Self {
        Self { field: Some(field), message: message.into() }
    }
}

/// A body of one of the two routes.
pub trait Body: DeserializeOwned {
    /// Says what in it cannot be met by any model.
    fn check(&self) -> Result<(), BodyError>;
}

/// Reads a body.
///
/// # Errors
/// For what is no JSON, has a field that is not known or of another type, or cannot be met by any model.
pub fn read<B: Body>(bytes: &[u8]) -> Result<B, BodyError> {
    let body: B = serde_json::from_slice(bytes)
        .map_err(|error| BodyError { field: None, message: format!("the body cannot be read: {error}") })?;
    body.check()?;
    Ok(body)
}

/// What both bodies have.
#[derive(Debug, Deserialize)]
pub struct Common {
    pub model: Option<String>,
    pub stream: Option<bool>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<usize>,
    seed: Option<i64>,
    stop: Option<Value>,
    pub steps: Option<usize>,
    pub order: Option<String>,
    pub candidates: Option<usize>,
    pub entropy_bound: Option<f64>,
    pub remask_rate: Option<f64>,
}

impl Common {
    fn check(&self, unknown: &Map<String, Value>) -> Result<(), BodyError> {
        if let Some(name) = unknown.keys().next() {
            return Err(BodyError { field: None, message: format!("unknown field `{name}`") });
        }
        if self.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
            return Err(BodyError::field("temperature", "temperature must lie between 0 and 2"));
        }
        if self.top_p.is_some_and(|top_p| !(top_p > 0.0 && top_p <= 1.0)) {
            return Err(BodyError::field("top_p", "top_p must be above 0 and at most 1"));
        }
        if self.seed.is_some_and(|seed| !(-1..=MAX_SEED as i64).contains(&seed)) {
            return Err(BodyError::field("seed", format!("seed must lie between 0 and {MAX_SEED}, or be -1 for any")));
        }
        self.stops().map(|_| ())
    }

    /// The seed, if one is asked for.
    pub fn seed(&self) -> Option<u64> {
        self.seed.and_then(|seed| u64::try_from(seed).ok())
    }

    /// The stop strings, none empty.
    ///
    /// # Errors
    /// For anything else.
    pub fn stops(&self) -> Result<Vec<String>, BodyError> {
        let wrong = || BodyError::field("stop", format!("stop must be a text or up to {MAX_STOPS} texts, none empty"));
        let stops = match &self.stop {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(text)) => vec![text.clone()],
            Some(Value::Array(texts)) => {
                let texts = texts.iter().map(|text| text.as_str().map(String::from));
                texts.collect::<Option<Vec<_>>>().ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        if stops.len() > MAX_STOPS || stops.iter().any(String::is_empty) { Err(wrong()) } else { Ok(stops) }
    }
}

/// The body of `/v1/completions`.
#[derive(Debug, Deserialize)]
pub struct CompletionBody {
    #[serde(flatten)]
    pub common: Common,
    prompt: Option<Value>,
    pub suffix: Option<String>,
    pub max_tokens: Option<usize>,
    pub n: Option<usize>,
    best_of: Option<usize>,
    stream_options: Option<StreamOptions>,
    pub logprobs: Option<usize>,
    pub echo: Option<bool>,
    // Who asks says nothing here.
    #[serde(rename = "user")]
    _user: Option<String>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    logit_bias: Option<Map<String, Value>>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    include_usage: Option<bool>,
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

/// A text, or the tokens of one.
#[derive(Debug, PartialEq, Eq)]
pub enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

impl CompletionBody {
    /// Whether a stream ends with a count of tokens.
    pub fn wants_usage(&self) -> bool {
        self.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false)
    }

    /// The prompts, at least one.
    ///
    /// # Errors
    /// For what is neither a text nor tokens nor a list of either.
    pub fn prompts(&self) -> Result<Vec<Prompt>, BodyError> {
        let wrong = || BodyError::field("prompt", "prompt must be a text, tokens, or a list of either, not empty");
        let prompt = |value: &Value| match value {
            Value::String(text) => Ok(Prompt::Text(text.clone())),
            Value::Array(ids) => {
                let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong);
                ids.iter().map(id).collect::<Result<_, _>>().map(Prompt::Tokens)
            }
            _ => Err(wrong()),
        };
        match &self.prompt {
            None | Some(Value::Null) => Ok(vec![Prompt::Tokens(Vec::new())]),
            Some(Value::Array(parts)) if parts.is_empty() => Err(wrong()),
            Some(Value::Array(parts)) if !parts[0].is_number() => parts.iter().map(prompt).collect(),
            Some(one) => Ok(vec![prompt(one)?]),
        }
    }
}

impl Body for CompletionBody {
    fn check(&self) -> Result<(), BodyError> {
        self.common.check(&self.unknown)?;
        // Settings of the protocol that have no meaning here may be given as long as they change nothing.
        let changing = [
            ("presence_penalty", self.presence_penalty.is_some_and(|penalty| penalty != 0.0)),
            ("frequency_penalty", self.frequency_penalty.is_some_and(|penalty| penalty != 0.0)),
            ("logit_bias", self.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty())),
        ];
        if let Some((name, _)) = changing.into_iter().find(|(_, changes)| *changes) {
            let message = format!("{name} is not supported: its tokens would not follow the model's distribution");
            return Err(BodyError::field(name, message));
        }
        if self.best_of.is_some_and(|best_of| best_of != self.n.unwrap_or(1)) {
            return Err(BodyError::field("best_of", "best_of is not supported: ask for n samples and choose"));
        }
        if self.stream_options.is_some() && self.common.stream != Some(true) {
            return Err(BodyError::field("stream_options", "stream_options goes with stream"));
        }
        if self.logprobs.is_some_and(|logprobs| logprobs > MAX_LOGPROBS) {
            return Err(BodyError::field("logprobs", format!("logprobs must lie between 0 and {MAX_LOGPROBS}")));
        }
        if self.echo == Some(true) && self.logprobs.is_some() {
            let message = "echo with logprobs is not supported: given tokens are not drawn and have no log-probability";
            return Err(BodyError::field("echo", message));
        }
        if self.max_tokens == Some(0) {
            return Err(BodyError::field("max_tokens", "max_tokens must be at least 1"));
        }
        self.prompts().map(|_| ())
    }
}

/// The body of `/infill`.
#[derive(Debug, Deserialize)]
pub struct InfillBody {
    #[serde(flatten)]
    pub common: Common,
    pub input_prefix: Option<String>,
    pub input_suffix: Option<String>,
    /// What stands between the prefix and the blank.
    pub prompt: Option<String>,
    // What editors send beside: text of other files, and how llama.cpp is to go about its work.
    #[serde(rename = "input_extra")]
    _input_extra: Option<Vec<Value>>,
    #[serde(rename = "cache_prompt")]
    _cache_prompt: Option<bool>,
    #[serde(rename = "n_indent")]
    _n_indent: Option<i64>,
    #[serde(rename = "samplers")]
    _samplers: Option<Vec<String>>,
    #[serde(rename = "t_max_prompt_ms")]
    _t_max_prompt_ms: Option<i64>,
    #[serde(rename = "t_max_predict_ms")]
    _t_max_predict_ms: Option<i64>,
    #[serde(rename = "response_fields")]
    _response_fields: Option<Vec<String>>,
    pub n_predict: Option<i64>,
    pub template: Option<String>,
    pub blank: Option<usize>,
    pub length: Option<usize>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Body for InfillBody {
    fn check(&self) -> Result<(), BodyError> {
        self.common.check(&self.unknown)?;
        let in_two = self.input_prefix.is_some() || self.input_suffix.is_some() || self.prompt.is_some();
        match &self.template {
            Some(_) if in_two || self.n_predict.is_some() => {
                Err(BodyError::field("template", "give a template, or input_prefix and input_suffix, not both"))
            }
            None if !in_two => Err(BodyError::field("template", "give a template, or input_prefix and input_suffix")),
            _ if self.n_predict.is_some_and(|n| n < -1) => {
                let message = "n_predict must be at least 0, or -1 for as many tokens as there is room for";
                Err(BodyError::field("n_predict", message))
            }
            _ => Ok(()),
        }
    }
}
