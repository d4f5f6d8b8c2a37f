//! The body of `POST /infill`.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::common::Common;
use super::parse::{BodyError, RequestBody};

/// The body of `POST /infill`. The comments of the fields are their descriptions in `/openapi.json`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = InfillRequest, description = "A template with blanks, or a text before and a text after one blank.")]
pub struct InfillBody {
    #[serde(flatten)]
    #[schema(inline)]
    pub common: Common,
    /// Text before the blank, instead of a template.
    pub input_prefix: Option<String>,
    /// Text behind the blank.
    pub input_suffix: Option<String>,
    /// Text between input_prefix and the blank.
    pub prompt: Option<String>,
    /// Text of other files, as editors send it; ignored.
    #[serde(rename = "input_extra")]
    _input_extra: Option<Vec<Value>>,
    /// Accepted and ignored: there is no cache.
    #[serde(rename = "cache_prompt")]
    _cache_prompt: Option<bool>,
    /// Sent by editors; ignored.
    #[serde(rename = "n_indent")]
    #[schema(minimum = -9007199254740991_i64, maximum = 9007199254740991_i64)]
    _n_indent: Option<i64>,
    /// Sent by editors; ignored.
    #[serde(rename = "samplers")]
    _samplers: Option<Vec<String>>,
    /// Sent by editors; ignored.
    #[serde(rename = "t_max_prompt_ms")]
    #[schema(minimum = -9007199254740991_i64, maximum = 9007199254740991_i64)]
    _t_max_prompt_ms: Option<i64>,
    /// Sent by editors; ignored.
    #[serde(rename = "t_max_predict_ms")]
    #[schema(minimum = -9007199254740991_i64, maximum = 9007199254740991_i64)]
    _t_max_predict_ms: Option<i64>,
    /// Sent by editors; ignored.
    #[serde(rename = "response_fields")]
    _response_fields: Option<Vec<String>>,
    /// Tokens of the blank between prefix and suffix. -1 is as many as fit; 0 returns an empty content. Default: -1.
    #[schema(minimum = -1, maximum = 16777216)]
    pub n_predict: Option<i64>,
    /// Text with blanks: {12} is 12 tokens, {*} as many as fit, ___ as many as blank says. A backslash before {, _ or \ makes
    /// it text.
    pub template: Option<String>,
    /// Tokens of a ___ blank. Default: 8.
    #[schema(minimum = 1, maximum = 16777216)]
    pub blank: Option<usize>,
    /// Tokens of the text, BOS included. Default: what the template needs, and with {*} the model's length.
    #[schema(minimum = 1, maximum = 16777216)]
    pub length: Option<usize>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Map<String, Value>,
}

impl RequestBody for InfillBody {
    fn check(&self) -> Result<(), BodyError> {
        self.common.check(&self.unknown)?;
        let has_sides = self.input_prefix.is_some() || self.input_suffix.is_some() || self.prompt.is_some();
        match &self.template {
            Some(_) if has_sides || self.n_predict.is_some() => {
                Err(BodyError::field("template", "give a template, or input_prefix and input_suffix, not both"))
            }
            None if !has_sides => {
                Err(BodyError::field("template", "give a template, or input_prefix and input_suffix"))
            }
            _ if self.n_predict.is_some_and(|n| n < -1) => {
                let message = "n_predict must be at least 0, or -1 for as many tokens as fit";
                Err(BodyError::field("n_predict", message))
            }
            _ => Ok(()),
        }
    }
}
