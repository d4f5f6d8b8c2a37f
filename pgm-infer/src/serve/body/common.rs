//! The fields that both bodies have.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, Type};

use super::neutral::Neutral;
use super::parse::BodyError;

/// The largest seed: the largest integer that a JavaScript number holds exactly.
pub const MAX_SEED: u64 = (1 << 53) - 1;
/// Characters of an unknown field's name that an error shows.
const SHOWN: usize = 64;
/// The most tokens that `top_k` keeps, and the most positions of `candidates`.
const MAX_COUNT: usize = 1_000_000;
/// The most stop strings of a request.
const MAX_STOPS: usize = 16;

/// The fields that both bodies have. The comments are the descriptions in `/openapi.json`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Common {
    /// A name from `/v1/models`. Default: the first.
    pub model: Option<String>,
    /// Send server-sent events instead of one JSON object.
    pub stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// Divides the logits; 0 takes the most probable token. Default: the model's, else 1.
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// Keep the fewest most probable tokens whose probabilities add up to this.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Keep the k most probable tokens; 0 keeps all.
    #[schema(minimum = 0, maximum = 1000000)]
    pub top_k: Option<usize>,
    /// Seed of the first sample; sample i uses seed + i. Without a seed, or with -1, the server draws one and returns it.
    #[schema(minimum = -1, maximum = 9007199254740991_i64)]
    seed: Option<i64>,
    #[schema(schema_with = stop_schema)]
    stop: Option<Value>,
    /// Sampling steps; with fewer steps than open tokens a step decodes several tokens.
    #[schema(minimum = 1, maximum = 4096)]
    pub steps: Option<usize>,
    /// Which positions a step decodes. Default: uniform.
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
        let wrong = |name: &'static str, range: &str| Err(BodyError::field(name, format!("{name} must {range}")));
        if self.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
            return wrong("temperature", "lie between 0 and 2");
        }
        if self.top_p.is_some_and(|top_p| !(top_p > 0.0 && top_p <= 1.0)) {
            return wrong("top_p", "be above 0 and at most 1");
        }
        if self.seed.is_some_and(|seed| !(-1..=MAX_SEED as i64).contains(&seed)) {
            return wrong("seed", &format!("lie between 0 and {MAX_SEED}, or be -1 for a random one"));
        }
        if self.steps == Some(0) {
            return wrong("steps", "be at least 1");
        }
        if self.top_k.is_some_and(|k| k > MAX_COUNT) {
            return wrong("top_k", &format!("be at most {MAX_COUNT}"));
        }
        if self.candidates.is_some_and(|count| !(1..=MAX_COUNT).contains(&count)) {
            return wrong("candidates", &format!("lie between 1 and {MAX_COUNT}"));
        }
        if self.entropy_bound.is_some_and(|bound| !(bound >= 0.0 && bound.is_finite())) {
            return wrong("entropy_bound", "be at least 0");
        }
        if self.remask_rate.is_some_and(|rate| !(0.0..=1.0).contains(&rate)) {
            return wrong("remask_rate", "lie between 0 and 1");
        }
        if self.stream_options.is_some() && self.stream != Some(true) {
            return wrong("stream_options", "be left out unless stream is true");
        }
        self.stops().map(|_| ())
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
        self.seed.and_then(|seed| u64::try_from(seed).ok())
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

// Programs send all of their settings, also those that they do not set.
fn check_unknown(name: &str, value: &Value) -> Result<(), BodyError> {
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
