//! Reads the body of a request.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use crate::serve::body::{EditBody, RequestBody, boundary, parse};
use crate::serve::error::ApiError;
use crate::serve::run::in_background;
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
    check_encoding(request.headers())?;
    if !is_json(request.headers()) {
        let message = "the body must be JSON, with Content-Type: application/json";
        return Err(ApiError::with(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message));
    }
    let bytes = read_bytes(server, request, server.limits().max_body).await?;
    Ok(parse(&bytes)?)
}

/// As [`read`], for an edit: JSON or a form, and large.
///
/// # Errors
/// As [`read`], and for a form that a page of another site posts.
pub async fn read_edit(server: &Server, request: Request) -> Result<EditBody, ApiError> {
    server.check_open()?;
    let headers = request.headers();
    check_encoding(headers)?;
    let form = if is_json(headers) {
        None
    } else {
        let Some(boundary) = boundary(text(headers, header::CONTENT_TYPE)) else {
            let message = "the body must be a form, with Content-Type: multipart/form-data; boundary=.., or JSON, with \
                           Content-Type: application/json";
            return Err(ApiError::with(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message));
        };
        if is_foreign(headers) {
            let message =
                "a page of another site cannot post a form here; it may send JSON where --cors-origin names it";
            return Err(ApiError::with(StatusCode::FORBIDDEN, "wrong_origin", message));
        }
        Some(boundary)
    };
    // So many large bodies are held at a time; a request whose turn does not come is refused.
    let turn = tokio::time::timeout(BODY_TIMEOUT, server.uploads().acquire()).await;
    let _turn = turn.map_err(|_| ApiError::queue_full())?;
    let bytes = read_bytes(server, request, server.limits().max_picture_body).await?;
    in_background(move || match form {
        Some(boundary) => Ok(EditBody::from_form(&bytes, &boundary)?),
        None => Ok(parse(&bytes)?),
    })
    .await
}

async fn read_bytes(server: &Server, request: Request, most: usize) -> Result<Bytes, ApiError> {
    let mut phase = server.phase();
    // A layer around the routes bounds the body.
    let bytes = tokio::select! {
        bytes = Bytes::from_request(request, &()) => bytes.map_err(|rejection| broken(most, &rejection))?,
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
    Ok(bytes)
}

fn broken(most: usize, rejection: &BytesRejection) -> ApiError {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::too_large(most);
    }
    ApiError::invalid("the connection broke off within the body")
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or("").trim()
}

fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let encoding = text(headers, header::CONTENT_ENCODING);
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        return Err(ApiError::compressed(encoding));
    }
    Ok(())
}

// A form of another site can post text, but not with this header.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = text(headers, header::CONTENT_TYPE);
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

// Browsers post forms to any address without asking, and say which page does.
fn is_foreign(headers: &HeaderMap) -> bool {
    let site = text(headers, HeaderName::from_static("sec-fetch-site"));
    if !site.is_empty() {
        return !matches!(site, "same-origin" | "none");
    }
    let origin = text(headers, header::ORIGIN);
    let own = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    !origin.is_empty() && !own.eq_ignore_ascii_case(text(headers, header::HOST))
}
