//! Errors as clients of the OpenAI protocol read them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::InferError;

/// What a request is refused with.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// What is wrong, in one sentence.
    pub message: String,
    /// A word for programs.
    pub code: &'static str,
    /// The field it is about.
    pub param: Option<&'static str>,
}

impl ApiError {
    /// The request cannot be done as it is.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), code: "invalid_request", param: None }
    }

    /// The same, about one field.
    pub fn field(param: &'static str, message: impl Into<String>) -> Self {
        Self { param: Some(param), ..Self::invalid(message) }
    }

    /// Another status.
    pub fn with(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, ..Self::invalid(message) }
    }

    /// No place is free.
    pub fn full() -> Self {
        let message = "all places of the queue are taken; try again in a moment";
        Self::with(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
    }

    /// The server ends.
    pub fn stopping() -> Self {
        Self::with(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server is stopping")
    }

    /// The model's thread is gone.
    pub fn ended() -> Self {
        let message = "the model's thread has ended; the server must be started again";
        Self::with(StatusCode::INTERNAL_SERVER_ERROR, "device_error", message)
    }

    /// A model is not loaded yet.
    pub fn loading() -> Self {
        Self::with(StatusCode::SERVICE_UNAVAILABLE, "loading", "the model is being loaded; try again in a moment")
    }

    /// The time is over.
    pub fn timeout(seconds: u64) -> Self {
        let message = format!("the server's limit of {seconds} s for a request is over; ask for fewer tokens or steps");
        Self::with(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
    }

    /// As it stands in a body or a stream.
    pub fn body(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {"message": self.message, "type": kind, "code": self.code, "param": self.param}})
    }
}

impl From<InferError> for ApiError {
    fn from(error: InferError) -> Self {
        // Messages name the command's flags; here they are fields.
        let message = error.to_string().replace("--temp ", "temperature ").replace("--top-", "top_").replace("--", "");
        match error {
            InferError::Setting { .. } | InferError::Request(_) | InferError::Tokenizer { .. } => {
                Self::invalid(message)
            }
            _ => Self::with(StatusCode::INTERNAL_SERVER_ERROR, "device_error", message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        match self.code {
            "queue_full" | "loading" => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            // Clients try again by themselves what would only time out again.
            "timeout" | "device_error" => {
                headers.insert("x-should-retry", HeaderValue::from_static("false"));
            }
            "wrong_key" => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}
