//! The fields that both bodies have.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, Type};

use super::neutral::Neutral;
use super::parse::BodyError;
use super::refresh::{refresh, refresh_schema};
use super::sampler::SamplerFields;

/// Characters of an unknown field's name that an error shows.
const SHOWN: usize = 64;
/// The most stop strings of a request.
const MAX_STOPS: usize = 16;

/// The fields that both bodies have. The comments are the descriptions in `/openapi.json`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Common {
    /// A name from `/v1/models`. Default: the first model of text.
    pub model: Option<String>,
    /// Send server-sent events instead of one JSON object.
    pub stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// Divides the logits; 0 takes the most probable token. Default: the model's, else 1.
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// Keep the fewest most probable tokens whose probabilities add up to this. Default: the model's, else 1.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Keep the k most probable tokens; 0 keeps all. Default: the model's, else 0.
    #[schema(minimum = 0, maximum = 1000000)]
    pub top_k: Option<usize>,
    /// Seed of the first sample; sample i uses seed + i. Without a seed, or with -1, the server draws one and returns it.
    #[schema(minimum = -1, maximum = 9007199254740991_i64)]
    seed: Option<i64>,
    #[schema(schema_with = stop_schema)]
    stop: Option<Value>,
    /// Sampling steps; with fewer steps than open tokens a step decodes several tokens. Default: the model's, else 128.
    #[schema(minimum = 1, maximum = 4096)]
    pub steps: Option<usize>,
    /// Which positions a step decodes. Default: the model's.
    pub order: Option<String>,
    /// How many open positions the orders confidence, margin, entropy and entropy-bounded consider. Default: all.
    #[schema(minimum = 1, maximum = 1000000)]
    pub candidates: Option<usize>,
    /// Nats of entropy that one step of entropy-bounded decodes. Default: 0.5.
    #[schema(minimum = 0)]
    pub entropy_bound: Option<f64>,
    /// Probability with which remask masks a decoded token again before a step. Default: 0.05.
    #[schema(minimum = 0, maximum = 1)]
    pub remask_rate: Option<f64>,
    #[schema(schema_with = refresh_schema)]
    refresh: Option<Value>,
}

/// Settings of a stream; only with `stream`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    /// Send the event denoise for each step that changes something: positions, tokens, texts.
    denoise: Option<bool>,
    /// Send the count of tokens in a last event. The last event of infill has it always.
    include_usage: Option<bool>,
    /// Accepted and ignored.
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

fn stop_schema() -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
    AnyOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .item(text())
        .item(ArrayBuilder::new().items(text()).max_items(Some(MAX_STOPS)))
        .description(Some("Texts that end what is generated; it is cut before the first of them."))
        .into()
}

impl Common {
    pub(super) fn check(&self, unknown: &Map<String, Value>) -> Result<(), BodyError> {
        unknown.iter().try_for_each(|(name, value)| check_unknown(name, value))?;
        self.sampler().check()?;
        if self.stream_options.is_some() && self.stream != Some(true) {
            let message = "stream_options must be left out unless stream is true";
            return Err(BodyError::field("stream_options", message));
        }
        self.refresh()?;
        self.stops().map(|_| ())
    }

    /// How often clean tokens are encoded anew, as it is written in a command; none without the field.
    ///
    /// # Errors
    /// When it is neither a number in its range nor "inf".
    pub fn refresh(&self) -> Result<Option<String>, BodyError> {
        refresh(self.refresh.as_ref())
    }

    fn sampler(&self) -> SamplerFields {
        SamplerFields {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            seed: self.seed,
            steps: self.steps,
            candidates: self.candidates,
            entropy_bound: self.entropy_bound,
            remask_rate: self.remask_rate,
        }
    }

    /// Whether a stream ends with the count of tokens.
    pub fn wants_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage == Some(true))
    }

    /// Whether a stream has the event `denoise`.
    pub fn wants_steps(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.denoise == Some(true))
    }

    /// The seed; none where the server is to draw one.
    pub fn seed(&self) -> Option<u64> {
        self.sampler().seed()
    }

    /// The stop strings.
    ///
    /// # Errors
    /// When `stop` is neither a text nor a list of texts, when a text is empty, or when there are too many.
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

/// Checks a field that the route does not know. Programs send all of their settings, also those that they do not set.
///
/// # Errors
/// When the field would change something.
pub(super) fn check_unknown(name: &str, value: &Value) -> Result<(), BodyError> {
    if value.is_null() {
        return Ok(());
    }
    let shown: String = name.chars().take(SHOWN).collect();
    let message = match Neutral::of(name) {
        Some(neutral) if neutral.accepts(value) => return Ok(()),
        Some(neutral) => format!("{shown} is not supported; it is accepted where it changes nothing: {neutral}"),
        None => format!("the field `{shown}` is unknown; /openapi.json lists the fields of this route"),
    };
    Err(BodyError::field(shown, message))
}
