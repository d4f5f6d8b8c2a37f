//! Errors in the form of the OpenAI protocol.

use std::borrow::Cow;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::body::BodyError;
use crate::InferError;

/// Why a request is refused or has failed.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// What is wrong, in one sentence.
    pub message: String,
    /// A word for programs.
    pub code: &'static str,
    /// The field of the body, if the error is about one.
    pub param: Option<Cow<'static, str>>,
}

/// The body of every response that is an error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ErrorBody {
    #[schema(inline)]
    error: ErrorDetail,
}

/// The error in it.
#[derive(Debug, Serialize, ToSchema)]
struct ErrorDetail {
    /// What is wrong, in one sentence.
    message: String,
    /// OpenAI's kind of error.
    r#type: &'static str,
    /// A word for programs.
    code: &'static str,
    /// The field of the body, if the error is about one.
    #[schema(required = true)]
    param: Option<Cow<'static, str>>,
}

impl ApiError {
    /// 400: the request cannot be met as it is.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), code: "invalid_request", param: None }
    }

    /// 400, about one field.
    pub fn field(param: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::invalid(message) }
    }

    /// The same error about one field, where it names none and is the client's.
    pub fn about(mut self, param: &'static str) -> Self {
        if self.status == StatusCode::BAD_REQUEST {
            self.param.get_or_insert(Cow::Borrowed(param));
        }
        self
    }

    /// An error with another status.
    pub fn with(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, ..Self::invalid(message) }
    }

    /// 413: the body is larger than `max` bytes.
    pub fn too_large(max: usize) -> Self {
        let message = format!("the body is larger than the server's limit of {max} bytes");
        Self::with(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// 415: the body is compressed.
    pub fn compressed(how: &str) -> Self {
        let message = format!("the body has the Content-Encoding {how}; send it as it is, without compression");
        Self::with(StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed", message)
    }

    /// 429: the model's queue has too few free places.
    pub fn queue_full() -> Self {
        let message = "all places of the queue are taken; try again in a moment";
        Self::with(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
    }

    /// 503: the server is stopping.
    pub fn stopping() -> Self {
        Self::with(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server is stopping")
    }

    /// 500: the engine's thread has ended.
    pub fn engine_ended() -> Self {
        let message = "the model's thread has ended; restart the server";
        Self::with(StatusCode::INTERNAL_SERVER_ERROR, "device_error", message)
    }

    /// 500: code panicked while it handled the request.
    pub fn panicked() -> Self {
        let message = "the server failed on this request and goes on; its log has the details";
        Self::with(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// 503: the model is still being loaded.
    pub fn loading() -> Self {
        Self::with(StatusCode::SERVICE_UNAVAILABLE, "loading", "the model is being loaded; try again in a moment")
    }

    /// 504: the request took longer than the server allows.
    pub fn timeout(seconds: u64) -> Self {
        let message =
            format!("the request took longer than the server's limit of {seconds} s; ask for fewer tokens or steps");
        Self::with(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
    }

    /// 408: the client of a stream read nothing for so long that the stream ends.
    pub fn stalled(seconds: u64) -> Self {
        let message = format!("the client read nothing of the stream for {seconds} s; read its events as they come");
        Self::with(StatusCode::REQUEST_TIMEOUT, "stalled", message)
    }

    /// 408: the client of a stream reads so slowly that too many steps wait for it.
    pub fn too_slow() -> Self {
        let message =
            "the client reads the stream much more slowly than the model writes; read its events as they come";
        Self::with(StatusCode::REQUEST_TIMEOUT, "stalled", message)
    }

    /// Logs an error that is the server's fault.
    pub fn log(&self) {
        if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(code = self.code, "{}", self.message);
        }
    }

    /// The error as the body of a response or an event of a stream.
    pub fn body(&self) -> ErrorBody {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        let (message, code, param) = (self.message.clone(), self.code, self.param.clone());
        ErrorBody { error: ErrorDetail { message, r#type: kind, code, param } }
    }
}

impl From<BodyError> for ApiError {
    fn from(BodyError { field, message }: BodyError) -> Self {
        Self { param: field, ..Self::invalid(message) }
    }
}

impl From<InferError> for ApiError {
    fn from(error: InferError) -> Self {
        let message = fields_for_flags(&error.to_string());
        match error {
            InferError::Setting { name, .. } => Self::field(field_of_flag(name), message),
            InferError::Request(_) => Self::invalid(message),
            // Every text is valid for a client; a tokenizer that fails on one is the server's fault.
            InferError::Tokenizer { .. } => Self::with(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message),
            _ => Self::with(StatusCode::INTERNAL_SERVER_ERROR, "device_error", message),
        }
    }
}

// The library's messages name the command's flags; a client knows them as fields. What a message quotes stays as it is.
fn fields_for_flags(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let (mut quoted, mut rest) = (false, message);
    while let Some(char) = rest.chars().next() {
        let starts_word = out.chars().next_back().is_none_or(char::is_whitespace);
        if !quoted
            && starts_word
            && rest.strip_prefix("--").is_some_and(|name| name.starts_with(|c: char| c.is_ascii_lowercase()))
        {
            let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '-').unwrap_or(rest.len());
            out.push_str(&field_of_flag(&rest[..end]));
            rest = &rest[end..];
            continue;
        }
        quoted ^= char == '"' && !out.ends_with('\\');
        out.push(char);
        rest = &rest[char.len_utf8()..];
    }
    out
}

/// The field of a body that has a command's flag.
pub fn field_of_flag(flag: &str) -> String {
    let name = flag.trim_start_matches('-').replace('-', "_");
    if name == "temp" { "temperature".into() } else { name }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        match self.code {
            "queue_full" | "loading" => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            // OpenAI's clients retry by themselves; these would fail again.
            "timeout" | "device_error" | "internal_error" => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            "compressed" => {
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            "wrong_key" => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::fields_for_flags;

    #[test]
    fn flags_become_fields_and_quoted_text_stays() {
        let cases = [
            ("--temp -1 must be 0 or a positive number", "temperature -1 must be 0 or a positive number"),
            ("needs 9 tokens, but --length is 4; or --top-p", "needs 9 tokens, but length is 4; or top_p"),
            (r#"class "a--b --temp x" does not exist"#, r#"class "a--b --temp x" does not exist"#),
            (r#""say \"--temp\" " and --top-k"#, r#""say \"--temp\" " and top_k"#),
            ("a -- b", "a -- b"),
        ];
        for (message, expected) in cases {
            assert_eq!(fields_for_flags(message), expected);
        }
    }
}
