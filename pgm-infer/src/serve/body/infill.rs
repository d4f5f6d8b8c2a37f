//! The body of `POST /infill`.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::common::Common;
use super::llama_cpp::{self, Meaning};
use super::parse::{BodyError, RequestBody};

/// The body of `POST /infill`. The comments of the fields are their descriptions in `/openapi.json`; the fields of
/// [`llama_cpp::FIELDS`] are added to them there.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = InfillRequest, description = "A template with blanks, or a text before and a text after one blank.")]
pub struct InfillBody {
    #[serde(flatten)]
    #[schema(inline)]
    pub common: Common,
    /// Text before the blank, instead of a template. What does not fit is cut off on its left.
    pub input_prefix: Option<String>,
    /// Text behind the blank. What does not fit is cut off on its right.
    pub input_suffix: Option<String>,
    /// Text between input_prefix and the blank.
    pub prompt: Option<String>,
    /// Tokens of the blank between prefix and suffix, at most: a blank has no more than there is room for. A negative number
    /// is as many as fit; 0 returns an empty content. Default: -1.
    #[schema(minimum = -9007199254740991_i64, maximum = 9007199254740991_i64)]
    pub n_predict: Option<i64>,
    /// Paths such as `timings/prompt_n`: the answer has these values under their paths, too. No field is left out.
    pub response_fields: Option<Vec<String>>,
    /// Text with blanks: {12} is 12 tokens, {*} as many as fit, ___ as many as blank says. A backslash before {, _ or \ makes
    /// it text.
    pub template: Option<String>,
    /// Tokens of a ___ blank. Default: 8.
    #[schema(minimum = 1, maximum = 16777216)]
    pub blank: Option<usize>,
    /// Tokens of the text, BOS included. Default: what the template needs, and with {*} the model's length. With a prefix or
    /// suffix it is the most that they and the blank may have.
    #[schema(minimum = 1, maximum = 16777216)]
    pub length: Option<usize>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Map<String, Value>,
}

impl InfillBody {
    /// The text before the blank and the text behind it, if there is no template.
    pub fn sides(&self) -> (String, String) {
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        (or_empty(&self.input_prefix) + &or_empty(&self.prompt), or_empty(&self.input_suffix))
    }

    /// The most tokens of the blank; none for as many as fit.
    pub fn n_predict(&self) -> Option<usize> {
        self.n_predict.and_then(|n| usize::try_from(n).ok())
    }

    /// The names of the fields that were given to change how tokens are drawn and that have no effect here.
    pub fn without_effect(&self) -> Vec<&'static str> {
        let changes = |(name, meaning): &&(&str, Meaning)| match meaning {
            Meaning::Sampler { neutral } => self.unknown.get(*name).is_some_and(|value| !neutral(value)),
            Meaning::Server | Meaning::Result { .. } => false,
        };
        llama_cpp::FIELDS.iter().filter(changes).map(|(name, _)| *name).collect()
    }
}

impl RequestBody for InfillBody {
    fn check(&self) -> Result<(), BodyError> {
        let is_known = |name: &str| llama_cpp::FIELDS.iter().any(|(known, _)| *known == name);
        let unknown = self.unknown.iter().filter(|(name, _)| !is_known(name));
        self.common.check(&unknown.map(|(name, value)| (name.clone(), value.clone())).collect())?;
        for &(name, meaning) in llama_cpp::FIELDS {
            if let (Meaning::Result { neutral, why, .. }, Some(value)) = (meaning, self.unknown.get(name))
                && !neutral(value)
            {
                return Err(BodyError::field(name, format!("{name} is not supported: {why}")));
            }
        }
        let has_sides = self.input_prefix.is_some() || self.input_suffix.is_some() || self.prompt.is_some();
        match &self.template {
            Some(_) if has_sides || self.n_predict.is_some() => {
                Err(BodyError::field("template", "give a template, or input_prefix and input_suffix, not both"))
            }
            None if !has_sides => {
                Err(BodyError::field("template", "give a template, or input_prefix and input_suffix"))
            }
            _ => Ok(()),
        }
    }
}
