//! The bodies of `POST /tokenize` and `POST /detokenize`, in llama.cpp's and vLLM's form.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::common::Common;
use super::parse::{BodyError, RequestBody};

/// The body of `POST /tokenize`. The comments of the fields are their descriptions in `/openapi.json`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = TokenizeRequest, description = "A text: content as llama.cpp names it, or prompt as vLLM does.")]
pub struct TokenizeBody {
    /// A name from `/v1/models`. Default: the first model of text.
    pub model: Option<String>,
    /// The text.
    content: Option<String>,
    /// The text.
    prompt: Option<String>,
    /// Whether BOS comes first. Default: false.
    add_special: Option<bool>,
    /// The same. Default with prompt: true.
    add_special_tokens: Option<bool>,
    /// Whether names of special tokens in the text stand for these tokens. Default: true. The routes that generate text read
    /// them as any other text.
    parse_special: Option<bool>,
    /// Whether a token is an object with its id and its text, which is a list of bytes where they are no text. Default: false.
    pub with_pieces: Option<bool>,
    /// Whether the names of the tokens are listed, too. Default: false.
    pub return_token_strs: Option<bool>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Map<String, Value>,
}

/// The body of `POST /detokenize`. The comments of the fields are their descriptions in `/openapi.json`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = DetokenizeRequest, description = "Token ids.")]
pub struct DetokenizeBody {
    /// A name from `/v1/models`. Default: the first model of text.
    pub model: Option<String>,
    /// The ids.
    #[schema(required = true)]
    tokens: Option<Vec<u32>>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Map<String, Value>,
}

impl TokenizeBody {
    /// The text.
    pub fn text(&self) -> &str {
        self.content.as_deref().or(self.prompt.as_deref()).unwrap_or_default()
    }

    /// Whether BOS comes first.
    pub fn adds_special(&self) -> bool {
        // vLLM's default is true, llama.cpp's false.
        self.add_special.or(self.add_special_tokens).unwrap_or(self.prompt.is_some())
    }

    /// Whether names of special tokens stand for these tokens.
    pub fn parses_special(&self) -> bool {
        self.parse_special.unwrap_or(true)
    }
}

impl RequestBody for TokenizeBody {
    fn check(&self) -> Result<(), BodyError> {
        if self.unknown.contains_key("messages") {
            let message = "messages cannot be tokenised here: give the text as content or prompt";
            return Err(BodyError::field("messages", message));
        }
        Common::default().check(&self.unknown)?;
        match (&self.content, &self.prompt) {
            (Some(_), Some(_)) => Err(BodyError::field("content", "give content or prompt, not both")),
            (None, None) => Err(BodyError::field("content", "give the text as content or prompt")),
            _ => Ok(()),
        }
    }
}

impl DetokenizeBody {
    /// The ids.
    pub fn tokens(&self) -> &[u32] {
        self.tokens.as_deref().unwrap_or_default()
    }
}

impl RequestBody for DetokenizeBody {
    fn check(&self) -> Result<(), BodyError> {
        Common::default().check(&self.unknown)?;
        if self.tokens.is_none() {
            return Err(BodyError::field("tokens", "tokens must be a list of token ids"));
        }
        Ok(())
    }
}
