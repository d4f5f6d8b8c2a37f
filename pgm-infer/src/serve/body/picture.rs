//! The fields that requests for pictures share, and the body of `POST /v1/images/generations`.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa::openapi::schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};

use super::common::check_unknown;
use super::parse::{BodyError, RequestBody};
use super::refresh::{refresh, refresh_schema};
use super::sampler::SamplerFields;

/// The most classes of a request.
const MAX_CLASSES: usize = 64;
/// The most partial pictures of each picture of a stream.
const MAX_PARTIAL: usize = 4096;
/// The most steps of a warm-up.
const MAX_WARMUP: usize = 4096;
/// The largest weight of a class, and of noise. Bodies are read without the rest of the crate, so this is a copy.
const MAX_WEIGHT: f64 = 1000.0;

/// The fields that requests for pictures share. The comments are the descriptions in `/openapi.json`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct PictureFields {
    /// A name from `/v1/models`. Default: the first model of pictures.
    pub model: Option<String>,
    /// The class of the pictures, by its name or number; empty for none in particular. The field class counts before it.
    pub prompt: Option<String>,
    #[schema(schema_with = class_schema)]
    class: Option<Value>,
    /// Pictures. Default: 1, or one of each class.
    #[schema(minimum = 1, maximum = 64)]
    n: Option<usize>,
    /// auto, or width and height like 256x256: those of the model, or of the edited picture.
    pub size: Option<String>,
    /// Send server-sent events instead of one JSON object.
    pub stream: Option<bool>,
    /// Events with an unfinished picture before that of the finished one; only with stream. Default: 0.
    #[schema(minimum = 0, maximum = 4096)]
    partial_images: Option<usize>,
    /// How much the class counts: 0 is not guided. Default: 0.
    #[schema(minimum = 0, maximum = 1000)]
    pub cfg: Option<f64>,
    /// The weight of the class in all steps, or rising linearly from 0: constant or linear. Default: constant.
    #[schema(schema_with = cfg_schedule_schema)]
    pub cfg_schedule: Option<String>,
    /// Sampling steps. Default: the model's, else 32.
    #[schema(minimum = 1, maximum = 4096)]
    pub steps: Option<usize>,
    /// Share of the picture that is drawn after a share of the steps: a curve, uniform or binomial. Default: arccos.
    #[schema(schema_with = schedule_schema)]
    pub schedule: Option<String>,
    /// Which cells a step draws. Default: halton.
    pub order: Option<String>,
    /// How many open cells the orders confidence, margin, entropy and entropy-bounded consider. Default: all.
    #[schema(minimum = 1, maximum = 1000000)]
    pub candidates: Option<usize>,
    /// Nats of entropy that one step of entropy-bounded draws. Default: 0.5.
    #[schema(minimum = 0)]
    pub entropy_bound: Option<f64>,
    /// Probability with which remask opens a drawn cell again before a step. Default: 0.05.
    #[schema(minimum = 0, maximum = 1)]
    pub remask_rate: Option<f64>,
    /// Gumbel noise on the confidence, times this, falling to 0 in the last step. Default: 0.
    #[schema(minimum = 0, maximum = 1000)]
    pub noise: Option<f64>,
    /// Start halton at a random cell.
    pub roll: Option<bool>,
    /// Divides the logits; 0 takes the most probable token. Default: the model's, else 1.
    #[schema(minimum = 0, maximum = 2)]
    pub temperature: Option<f64>,
    /// Keep the fewest most probable tokens whose probabilities add up to this. Default: the model's, else 1.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    pub top_p: Option<f64>,
    /// Keep the k most probable tokens; 0 keeps all. Default: the model's, else 0.
    #[schema(minimum = 0, maximum = 1000000)]
    pub top_k: Option<usize>,
    #[schema(schema_with = refresh_schema)]
    refresh: Option<Value>,
    /// Seed of the first picture; picture i uses seed + i. Without a seed, or with -1, the server draws one and returns it.
    #[schema(minimum = -1, maximum = 9007199254740991_i64)]
    seed: Option<i64>,
    #[schema(schema_with = response_format_schema)]
    response_format: Option<String>,
    #[schema(schema_with = output_format_schema)]
    output_format: Option<String>,
    #[schema(schema_with = quality_schema)]
    quality: Option<String>,
    #[schema(schema_with = style_schema)]
    style: Option<String>,
    #[schema(schema_with = background_schema)]
    background: Option<String>,
    #[schema(schema_with = moderation_schema)]
    moderation: Option<String>,
    #[schema(schema_with = input_fidelity_schema)]
    input_fidelity: Option<String>,
    /// Accepted where it is 100.
    #[schema(minimum = 100, maximum = 100)]
    output_compression: Option<u64>,
    /// Accepted and ignored.
    #[serde(rename = "user")]
    _user: Option<String>,
}

/// A class, as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClassName {
    /// By its name, or its number as text.
    Name(String),
    /// By its number.
    Number(usize),
}

/// The classes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Classes {
    /// None in particular.
    None,
    /// The same for all pictures.
    Same(ClassName),
    /// One for each picture.
    Each(Vec<ClassName>),
}

// OpenAI's fields that say what is true of every picture here: their words, and what is true.
const RESPONSE_FORMAT: (&[&str], &str) = (&["b64_json"], "pictures come in the answer");
const OUTPUT_FORMAT: (&[&str], &str) = (&["png"], "pictures come as PNG");
const QUALITY: (&[&str], &str) = (&["auto", "standard"], "a model has one quality; steps takes more or less time");
const STYLE: (&[&str], &str) = (&["vivid", "natural"], "a model has one style");
const BACKGROUND: (&[&str], &str) = (&["auto", "opaque"], "pictures are opaque");
const MODERATION: (&[&str], &str) = (&["auto", "low"], "nothing is moderated");
const INPUT_FIDELITY: (&[&str], &str) = (&["high", "low"], "what is not drawn again stays as it is");

fn words(words: &[&str], description: String) -> Schema {
    let types = SchemaType::Array(vec![Type::String, Type::Null]);
    let values = words.iter().map(|word| Value::from(*word)).chain([Value::Null]).collect::<Vec<_>>();
    ObjectBuilder::new().schema_type(types).enum_values(Some(values)).description(Some(description)).into()
}

fn fixed((accepted, truth): (&[&str], &str)) -> Schema {
    words(accepted, format!("Accepted where it is {}: {truth}.", accepted.join(" or ")))
}

fn response_format_schema() -> Schema {
    fixed(RESPONSE_FORMAT)
}

fn output_format_schema() -> Schema {
    fixed(OUTPUT_FORMAT)
}

fn quality_schema() -> Schema {
    fixed(QUALITY)
}

fn style_schema() -> Schema {
    fixed(STYLE)
}

fn background_schema() -> Schema {
    fixed(BACKGROUND)
}

fn moderation_schema() -> Schema {
    fixed(MODERATION)
}

fn input_fidelity_schema() -> Schema {
    fixed(INPUT_FIDELITY)
}

fn cfg_schedule_schema() -> Schema {
    let meaning = "The weight of the class: the same in all steps, or rising linearly from 0. Default: constant.";
    words(&["constant", "linear"], meaning.into())
}

fn schedule_schema() -> Schema {
    let meaning = "Share of the picture that is drawn after a share of the steps. Default: arccos.";
    words(&["arccos", "cosine", "linear", "square", "root", "uniform", "binomial"], meaning.into())
}

fn class_schema() -> Schema {
    let name = || ObjectBuilder::new().schema_type(Type::String);
    let number = || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    let one = AnyOfBuilder::new().item(name()).item(number());
    let list = ArrayBuilder::new().items(one).min_items(Some(1)).max_items(Some(MAX_CLASSES));
    AnyOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .item(name())
        .item(number())
        .item(list)
        .description(Some(
            "The class by its name or number, or a list: one for each picture. Default: what prompt names.",
        ))
        .into()
}

impl PictureFields {
    /// How many pictures are asked for.
    pub fn n_pictures(&self) -> usize {
        let n_classes = match &self.class {
            Some(Value::Array(classes)) => classes.len(),
            _ => 1,
        };
        self.n.unwrap_or(n_classes)
    }

    /// The classes of the pictures.
    ///
    /// # Errors
    /// When `class` is neither a name nor a number nor a list of them, or when there are more or fewer than `n`.
    pub fn classes(&self) -> Result<Classes, BodyError> {
        let wrong = || {
            let message = format!("class must be a name, a number, or a list of 1 to {MAX_CLASSES} of them");
            BodyError::field("class", message)
        };
        let class = |value: &Value| match value {
            Value::String(name) => Ok(ClassName::Name(name.clone())),
            Value::Number(number) => {
                let number = number.as_u64().and_then(|number| usize::try_from(number).ok());
                number.map(ClassName::Number).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        };
        match &self.class {
            None | Some(Value::Null) => {
                let prompt = self.prompt.as_deref().unwrap_or_default().trim();
                let name = (!prompt.is_empty()).then(|| ClassName::Name(prompt.to_string()));
                Ok(name.map_or(Classes::None, Classes::Same))
            }
            Some(Value::Array(classes)) => {
                if !(1..=MAX_CLASSES).contains(&classes.len()) {
                    return Err(wrong());
                }
                let classes = classes.iter().map(class).collect::<Result<Vec<_>, _>>()?;
                if let Some(n) = self.n.filter(|n| *n != classes.len()) {
                    let message = format!("n is {n}, and class has a list for {} pictures; leave n out", classes.len());
                    return Err(BodyError::field("n", message));
                }
                Ok(Classes::Each(classes))
            }
            Some(one) => Ok(Classes::Same(class(one)?)),
        }
    }

    /// The field that names the class.
    pub fn class_field(&self) -> &'static str {
        if self.class.as_ref().is_none_or(Value::is_null) { "prompt" } else { "class" }
    }

    /// The seed; none where the server is to draw one.
    pub fn seed(&self) -> Option<u64> {
        self.sampler().seed()
    }

    /// How often clean cells are encoded anew, as it is written in a command; none without the field.
    ///
    /// # Errors
    /// When it is neither a number in its range nor "inf".
    pub fn refresh(&self) -> Result<Option<String>, BodyError> {
        refresh(self.refresh.as_ref())
    }

    /// Unfinished pictures of each picture of a stream.
    pub fn n_partial(&self) -> usize {
        self.partial_images.unwrap_or(0)
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

    pub(super) fn check(&self, unknown: &Map<String, Value>) -> Result<(), BodyError> {
        unknown.iter().try_for_each(|(name, value)| check_unknown(name, value))?;
        self.sampler().check()?;
        for (name, value, (accepted, truth)) in [
            ("response_format", &self.response_format, RESPONSE_FORMAT),
            ("output_format", &self.output_format, OUTPUT_FORMAT),
            ("quality", &self.quality, QUALITY),
            ("style", &self.style, STYLE),
            ("background", &self.background, BACKGROUND),
            ("moderation", &self.moderation, MODERATION),
            ("input_fidelity", &self.input_fidelity, INPUT_FIDELITY),
        ] {
            if let Some(value) = value.as_deref().filter(|value| !accepted.contains(value)) {
                let shown: String = value.chars().take(64).collect();
                let message = format!(
                    "{name} {shown:?} is not supported: {truth}; leave {name} out, or say {}",
                    accepted.join(" or ")
                );
                return Err(BodyError::field(name, message));
            }
        }
        if self.output_compression.is_some_and(|percent| percent != 100) {
            let message = "output_compression is not supported: PNG loses nothing; leave it out, or say 100";
            return Err(BodyError::field("output_compression", message));
        }
        for (name, value) in [("cfg", self.cfg), ("noise", self.noise)] {
            if value.is_some_and(|value| !(0.0..=MAX_WEIGHT).contains(&value)) {
                return Err(BodyError::field(name, format!("{name} must lie between 0 and {MAX_WEIGHT}")));
            }
        }
        if self.partial_images.is_some_and(|n| n > MAX_PARTIAL) {
            let message = format!("partial_images must be at most {MAX_PARTIAL}");
            return Err(BodyError::field("partial_images", message));
        }
        if self.n_partial() > 0 && self.stream != Some(true) {
            let message = "partial_images must be left out, or 0, unless stream is true";
            return Err(BodyError::field("partial_images", message));
        }
        self.refresh()?;
        self.classes().map(|_| ())
    }
}

/// The body of `POST /v1/images/generations`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ImageRequest, description = "Pictures to draw.")]
pub struct GenerationBody {
    #[serde(flatten)]
    #[schema(inline)]
    pub picture: PictureFields,
    /// Sample as the public sampler of the model and the order (halton or confidence) does, with its mistakes.
    pub as_published: Option<bool>,
    /// Steps at the beginning in which the logits are halved; only with as_published and the order halton. Default: 0.
    #[schema(minimum = 0, maximum = 4096)]
    pub temp_warmup: Option<usize>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Map<String, Value>,
}

impl RequestBody for GenerationBody {
    fn check(&self) -> Result<(), BodyError> {
        self.picture.check(&self.unknown)?;
        if self.temp_warmup.is_some_and(|n| n > MAX_WARMUP) {
            return Err(BodyError::field("temp_warmup", format!("temp_warmup must be at most {MAX_WARMUP}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::parse::parse;
    use super::*;

    fn body(json: &Value) -> GenerationBody {
        parse(json.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn the_largest_weight_is_the_samplers() {
        assert_eq!(MAX_WEIGHT, crate::sample::MAX_WEIGHT);
    }

    #[test]
    fn a_class_is_what_class_or_else_prompt_names() {
        let name = |name: &str| ClassName::Name(name.into());
        for (json, classes, n) in [
            (json!({}), Classes::None, 1),
            (json!({"prompt": "  "}), Classes::None, 1),
            (json!({"prompt": " cat "}), Classes::Same(name("cat")), 1),
            (json!({"prompt": "cat", "class": 3, "n": 4}), Classes::Same(ClassName::Number(3)), 4),
            (json!({"class": "3"}), Classes::Same(name("3")), 1),
            (json!({"class": ["a", 2.0], "prompt": "x"}), Classes::Each(vec![name("a"), ClassName::Number(2)]), 2),
        ] {
            let body = body(&json);
            assert!(body.check().is_ok(), "{json}");
            assert_eq!((body.picture.classes().unwrap(), body.picture.n_pictures()), (classes, n), "{json}");
        }
    }

    #[test]
    fn what_a_picture_cannot_be_is_named() {
        for (json, field) in [
            (json!({"class": true}), "class"),
            (json!({"class": []}), "class"),
            (json!({"class": [1, -1]}), "class"),
            (json!({"class": {"a": 1}}), "class"),
            (json!({"class": [1, 2], "n": 3}), "n"),
            (json!({"response_format": "url"}), "response_format"),
            (json!({"output_format": "webp"}), "output_format"),
            (json!({"background": "transparent"}), "background"),
            (json!({"quality": "hd"}), "quality"),
            (json!({"output_compression": 50}), "output_compression"),
            (json!({"cfg": -1}), "cfg"),
            (json!({"noise": -0.5}), "noise"),
            (json!({"partial_images": 2}), "partial_images"),
            (json!({"partial_images": 5000, "stream": true}), "partial_images"),
            (json!({"refresh": 0}), "refresh"),
            (json!({"refresh": "never"}), "refresh"),
            (json!({"temperature": 3}), "temperature"),
            (json!({"temp_warmup": 5000, "as_published": true}), "temp_warmup"),
            (json!({"stop": "x"}), "stop"),
        ] {
            assert_eq!(body(&json).check().unwrap_err().field.as_deref(), Some(field), "{json}");
        }
        let neutral = json!({
            "prompt": "", "response_format": "b64_json", "output_format": "png", "quality": "auto", "style": "vivid",
            "background": "auto", "moderation": "auto", "output_compression": 100, "user": "u", "partial_images": 0,
            "n": null, "class": null, "refresh": null,
        });
        assert!(body(&neutral).check().is_ok());
    }
}
