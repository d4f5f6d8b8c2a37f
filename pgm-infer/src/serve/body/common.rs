//! The fields that both bodies have.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, Type};

use super::parse::BodyError;

/// The largest seed: the largest integer that a JavaScript number holds exactly.
pub const MAX_SEED: u64 = (1 << 53) - 1;
/// The most stop strings of a request.
const MAX_STOPS: usize = 16;

/// The fields that both bodies have. The comments are the descriptions in `/openapi.json`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Common {
    /// A name from `/v1/models`. Default: the first.
    pub model: Option<String>,
    /// Send server-sent events instead of one JSON object.
    pub stream: Option<bool>,
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
        if let Some(name) = unknown.keys().next() {
            let message = format!("the field `{name}` is unknown; /openapi.json lists the fields of this route");
            return Err(BodyError { field: None, message });
        }
        if self.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
            return Err(BodyError::field("temperature", "temperature must lie between 0 and 2"));
        }
        if self.top_p.is_some_and(|top_p| !(top_p > 0.0 && top_p <= 1.0)) {
            return Err(BodyError::field("top_p", "top_p must be above 0 and at most 1"));
        }
        if self.seed.is_some_and(|seed| !(-1..=MAX_SEED as i64).contains(&seed)) {
            let message = format!("seed must lie between 0 and {MAX_SEED}, or be -1 for a random one");
            return Err(BodyError::field("seed", message));
        }
        self.stops().map(|_| ())
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
