//! Reads the body of a request.

use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};

use crate::serve::body::{RequestBody, parse};
use crate::serve::error::ApiError;
use crate::serve::state::Server;

/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads and parses a body. Its values are not checked yet: the request is to be admitted first.
///
/// # Errors
/// When the server takes no request now, when the body is too large or too slow, or when it is not JSON of this type.
pub async fn read<B: RequestBody>(server: &Server, request: Request) -> Result<B, ApiError> {
    server.check_open()?;
    check_content_type(request.headers())?;
    let max = server.limits().max_body;
    let Ok(read) = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(request.into_body(), max)).await else {
        let message = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
        return Err(ApiError::with(StatusCode::REQUEST_TIMEOUT, "slow_body", message));
    };
    let bytes = read.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        if cause.is_some_and(|cause| cause.contains("length limit")) {
            let message = format!("the body is larger than the server's limit of {max} bytes");
            ApiError::with(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
        } else {
            ApiError::invalid("the connection broke off within the body")
        }
    })?;
    Ok(parse(&bytes)?)
}

// A form of another site can post text, but not with this header.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let message = "the body must be JSON, with Content-Type: application/json";
    Err(ApiError::with(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message))
}
