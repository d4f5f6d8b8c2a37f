//! The body of `POST /v1/completions`.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ArrayItems, ObjectBuilder, Schema, SchemaType, Type};

use super::common::Common;
use super::parse::{BodyError, RequestBody};

/// The most alternatives to a token.
const MAX_LOGPROBS: usize = 5;

/// The body of `POST /v1/completions`. The comments of the fields are their descriptions in `/openapi.json`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = CompletionRequest, description = "A text to continue, or a gap before a suffix to fill.")]
pub struct CompletionBody {
    #[serde(flatten)]
    #[schema(inline)]
    pub common: Common,
    #[schema(schema_with = prompt_schema)]
    prompt: Option<Value>,
    /// Text behind the generated one: the completion fills the gap between prompt and suffix.
    pub suffix: Option<String>,
    /// Tokens to generate. The completion has exactly this many unless a stop string or an EOS ends it earlier. 0 only with
    /// echo. Default: 16.
    #[schema(minimum = 0, maximum = 16777216)]
    pub max_tokens: Option<usize>,
    /// Samples of each prompt. Default: 1.
    #[schema(minimum = 1, maximum = 64)]
    pub n: Option<usize>,
    /// Accepted where it is 1 or equals n.
    #[schema(minimum = 1, maximum = 64)]
    best_of: Option<usize>,
    /// Return the log-probability of each token when it was drawn, and this many of the most probable tokens with theirs.
    #[schema(minimum = 0, maximum = 5)]
    pub logprobs: Option<usize>,
    /// Repeat the prompt before the text. With logprobs its tokens are scored from left to right, each given those before it.
    pub echo: Option<bool>,
    /// Accepted and ignored.
    #[serde(rename = "user")]
    _user: Option<String>,
    /// Accepted where it is 0.
    #[schema(minimum = 0, maximum = 0)]
    presence_penalty: Option<f64>,
    /// Accepted where it is 0.
    #[schema(minimum = 0, maximum = 0)]
    frequency_penalty: Option<f64>,
    #[schema(schema_with = logit_bias_schema)]
    logit_bias: Option<Map<String, Value>>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Map<String, Value>,
}

/// A text, or its tokens.
#[derive(Debug, PartialEq, Eq)]
pub enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

fn prompt_schema() -> Schema {
    fn object(kind: Type) -> ObjectBuilder {
        ObjectBuilder::new().schema_type(kind)
    }
    fn list(items: impl Into<ArrayItems>) -> ArrayBuilder {
        ArrayBuilder::new().items(items).min_items(Some(1))
    }
    let tokens = || list(object(Type::Integer).minimum(Some(0)).maximum(Some(u32::MAX)));
    AnyOfBuilder::new()
        .item(object(Type::Null))
        .item(object(Type::String))
        .item(tokens())
        .item(list(object(Type::String)))
        .item(list(tokens()))
        .description(Some("A text, its tokens, or a list of either. The server puts BOS before it."))
        .into()
}

pub(super) fn logit_bias_schema() -> Schema {
    let types = SchemaType::Array(vec![Type::Object, Type::Null]);
    let object = ObjectBuilder::new().schema_type(types).max_properties(Some(0));
    object.description(Some("Accepted where it is empty.")).into()
}

impl CompletionBody {
    /// How many prompts there are, at least one, without reading them.
    pub fn n_prompts(&self) -> usize {
        match &self.prompt {
            Some(Value::Array(parts)) if parts.first().is_some_and(|part| !part.is_number()) => parts.len(),
            _ => 1,
        }
    }

    /// The prompts, at least one.
    ///
    /// # Errors
    /// When `prompt` is neither a text nor tokens nor a list of either.
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

impl RequestBody for CompletionBody {
    fn check(&self) -> Result<(), BodyError> {
        self.common.check(&self.unknown)?;
        // OpenAI's settings that have no meaning here are accepted with the value that changes nothing.
        let changing = [
            ("presence_penalty", self.presence_penalty.is_some_and(|penalty| penalty != 0.0)),
            ("frequency_penalty", self.frequency_penalty.is_some_and(|penalty| penalty != 0.0)),
            ("logit_bias", self.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty())),
        ];
        if let Some((name, _)) = changing.into_iter().find(|(_, changes)| *changes) {
            let message = format!("{name} is not supported: its tokens would not follow the model's distribution");
            return Err(BodyError::field(name, message));
        }
        if self.best_of.is_some_and(|best_of| best_of != 1 && best_of != self.n.unwrap_or(1)) {
            return Err(BodyError::field("best_of", "best_of is not supported: ask for n samples and choose"));
        }
        if self.logprobs.is_some_and(|logprobs| logprobs > MAX_LOGPROBS) {
            return Err(BodyError::field("logprobs", format!("logprobs must lie between 0 and {MAX_LOGPROBS}")));
        }
        if self.max_tokens == Some(0) && self.echo != Some(true) {
            return Err(BodyError::field("max_tokens", "max_tokens must be at least 1, or 0 with echo"));
        }
        self.prompts().map(|_| ())
    }
}
