//! The body of `POST /v1/chat/completions`.

use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::common::Common;
use super::parse::{BodyError, RequestBody};

/// The most alternatives to a token.
const MAX_TOP_LOGPROBS: usize = 20;

/// The body of `POST /v1/chat/completions`. The comments of the fields are their descriptions in `/openapi.json`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChatRequest, description = "A conversation to continue, for models with a chat template.")]
pub struct ChatBody {
    #[serde(flatten)]
    #[schema(inline)]
    pub common: Common,
    /// The conversation: objects with role and content. A content is a text or a list of parts of the type text.
    #[schema(value_type = Vec<Message>, min_items = 1)]
    messages: Option<Value>,
    /// Tokens of the answer, at most. Default: as many as fit into the model's length.
    #[schema(minimum = 1, maximum = 16777216)]
    max_tokens: Option<usize>,
    /// The same, in newer clients.
    #[schema(minimum = 1, maximum = 16777216)]
    max_completion_tokens: Option<usize>,
    /// Answers. Default: 1.
    #[schema(minimum = 1, maximum = 64)]
    pub n: Option<usize>,
    /// Return the log-probability of each token when it was drawn.
    logprobs: Option<bool>,
    /// How many of the most probable tokens are returned with each; only with logprobs.
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<usize>,
    /// The name of the chat template, for models with several.
    pub chat_template: Option<String>,
    /// Further variables of the chat template.
    pub chat_template_kwargs: Option<Map<String, Value>>,
    /// Whether the template begins the answer. Default: true.
    pub add_generation_prompt: Option<bool>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Map<String, Value>,
}

/// A message of a conversation; further fields are the template's.
#[derive(ToSchema)]
#[allow(dead_code)] // it is read by the derive
struct Message {
    /// user, assistant, or another one that the template knows.
    #[schema(min_length = 1)]
    role: String,
    content: Content,
}

/// The text of a message.
#[derive(ToSchema, Deserialize)]
#[serde(untagged)]
#[allow(dead_code)] // it is read by the derive
enum Content {
    Text(String),
    Parts(Vec<TextPart>),
}

/// A part of a text.
#[derive(ToSchema, Deserialize)]
#[allow(dead_code)] // it is read by the derive
struct TextPart {
    r#type: TextPartType,
    text: String,
}

/// The only kind of parts.
#[derive(ToSchema, Deserialize)]
#[serde(rename_all = "lowercase")]
enum TextPartType {
    Text,
}

/// A message: its fields as the template sees them, the content as one text.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatMessage(pub Map<String, Value>);

impl ChatBody {
    /// The most tokens of the answer; none for as many as fit.
    pub fn max_tokens(&self) -> Option<usize> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// How many of the most probable tokens are told with each, if log-probabilities are asked for.
    pub fn logprobs(&self) -> Option<usize> {
        (self.logprobs == Some(true)).then(|| self.top_logprobs.unwrap_or(0))
    }

    /// The messages.
    ///
    /// # Errors
    /// Names the message that is none.
    pub fn messages(&self) -> Result<Vec<ChatMessage>, BodyError> {
        let wrong = |message: String| BodyError::field("messages", message);
        match &self.messages {
            Some(Value::Array(messages)) if !messages.is_empty() => {
                messages.iter().enumerate().map(|(index, value)| message(index, value).map_err(wrong)).collect()
            }
            _ => Err(wrong("messages must be a list of at least one object with role and content".to_string())),
        }
    }
}

fn message(index: usize, value: &Value) -> Result<ChatMessage, String> {
    let at = format!("messages[{index}]");
    let Value::Object(fields) = value else { return Err(format!("{at} must be an object with role and content")) };
    if fields.get("role").and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(format!("{at}.role must be a text such as user, assistant or system"));
    }
    for name in ["tool_calls", "function_call", "audio"] {
        if fields
            .get(name)
            .is_some_and(|value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()))
        {
            return Err(format!("{at}.{name} is not supported: the server takes texts only"));
        }
    }
    let mut fields = fields.clone();
    let content = match fields.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => {
            let part = |(number, part)| text_of_part(part).map_err(|why| format!("{at}.content[{number}] {why}"));
            parts.iter().enumerate().map(part).collect::<Result<Vec<_>, _>>()?.join("\n")
        }
        _ => return Err(format!("{at}.content must be a text or a list of parts of the type text")),
    };
    fields.insert("content".to_string(), Value::String(content));
    Ok(ChatMessage(fields))
}

fn text_of_part(part: &Value) -> Result<&str, String> {
    match part["type"].as_str() {
        Some("text") => part["text"].as_str().ok_or_else(|| "needs a text".to_string()),
        Some(other) => Err(format!("has the type {other}; the server takes parts of the type text only")),
        None => Err("must be an object with type and text".to_string()),
    }
}

impl RequestBody for ChatBody {
    fn check(&self) -> Result<(), BodyError> {
        self.common.check(&self.unknown)?;
        self.messages()?;
        if self.top_logprobs.is_some_and(|n| n > MAX_TOP_LOGPROBS) {
            let message = format!("top_logprobs must lie between 0 and {MAX_TOP_LOGPROBS}");
            return Err(BodyError::field("top_logprobs", message));
        }
        if self.top_logprobs.is_some_and(|n| n > 0) && self.logprobs != Some(true) {
            return Err(BodyError::field("top_logprobs", "top_logprobs needs logprobs to be true"));
        }
        if self.max_tokens() == Some(0) {
            let name = if self.max_completion_tokens.is_some() { "max_completion_tokens" } else { "max_tokens" };
            return Err(BodyError::field(name, format!("{name} must be at least 1")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(body: Value) -> Result<Vec<ChatMessage>, BodyError> {
        let body: ChatBody = serde_json::from_value(body).unwrap();
        body.check()?;
        body.messages()
    }

    #[test]
    fn a_content_is_a_text_or_parts_of_text() {
        let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]);
        let found = checked(json!({"messages": [{"role": "user", "content": parts, "name": "x"}]})).unwrap();
        assert_eq!(Value::Object(found[0].0.clone()), json!({"role": "user", "content": "a\nb", "name": "x"}));
        let image = json!([{"type": "image_url", "image_url": {"url": "data:"}}]);
        for (messages, says) in [
            (json!(null), "messages must be"),
            (json!([]), "messages must be"),
            (json!(["a"]), "messages[0] must be an object"),
            (json!([{"content": "a"}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (
                json!([{"role": "user", "content": "a"}, {"role": "user", "content": image}]),
                "messages[1].content[0] has the type image_url",
            ),
            (json!([{"role": "user", "content": [{"type": "text"}]}]), "needs a text"),
            (json!([{"role": "assistant", "content": "a", "tool_calls": [{}]}]), "tool_calls"),
        ] {
            let error = checked(json!({"messages": messages})).unwrap_err();
            assert!(error.message.contains(says), "{}", error.message);
        }
        let message = json!([{"role": "user", "content": "a"}]);
        for (name, value) in [
            ("tools", json!([{}])),
            ("tool_choice", json!("required")),
            ("response_format", json!({"type": "json_object"})),
            ("presence_penalty", json!(0.5)),
            ("logit_bias", json!({"1": 2})),
            ("top_logprobs", json!(3)),
            ("max_completion_tokens", json!(0)),
        ] {
            let mut body = json!({"messages": message});
            body[name] = value;
            assert!(checked(body).unwrap_err().message.contains(name));
        }
        let neutral =
            json!({"messages": message, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}});
        assert!(checked(neutral).is_ok());
    }
}
