//! Reads the body of a request.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

use crate::serve::body::{RequestBody, parse};
use crate::serve::error::ApiError;
use crate::serve::state::{Server, ServerPhase};

/// How a file of gzip begins, also where no header says that it is one.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// How long a client may take to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Reads and parses a body. Its values are not checked yet: the request is to be admitted first.
///
/// # Errors
/// When the server takes no request now, when the body is too large or too slow, or when it is not JSON of this type.
pub async fn read<B: RequestBody>(server: &Server, request: Request) -> Result<B, ApiError> {
    server.check_open()?;
    check_content(request.headers())?;
    let mut phase = server.phase();
    // A layer around the routes bounds the body.
    let bytes = tokio::select! {
        bytes = Bytes::from_request(request, &()) => bytes.map_err(|rejection| broken(server, &rejection))?,
        () = tokio::time::sleep(BODY_TIMEOUT) => {
            let message = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
            return Err(ApiError::with(StatusCode::REQUEST_TIMEOUT, "slow_body", message));
        }
        // Half a body is no running request.
        Ok(_) = phase.wait_for(|phase| *phase != ServerPhase::Open) => return Err(ApiError::stopping()),
    };
    if bytes.starts_with(GZIP) {
        return Err(ApiError::compressed("gzip"));
    }
    Ok(parse(&bytes)?)
}

fn broken(server: &Server, rejection: &BytesRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::too_large(server.limits().max_body);
    }
    ApiError::invalid("the connection broke off within the body")
}

// A form of another site can post text, but not with this header.
fn check_content(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or("").trim();
    let encoding = text(header::CONTENT_ENCODING);
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        return Err(ApiError::compressed(encoding));
    }
    let kind = text(header::CONTENT_TYPE);
    if kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let message = "the body must be JSON, with Content-Type: application/json";
    Err(ApiError::with(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message))
}
