//! Reads the body of a request.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::sync::OwnedSemaphorePermit;

use crate::serve::body::{EditBody, FormField, RequestBody, parse};
use crate::serve::error::ApiError;
use crate::serve::run::in_background;
use crate::serve::state::Server;

/// How a file of gzip begins, also where no header says that it is one.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// The most fields of a form.
const MAX_FIELDS: usize = 128;
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
pub async fn read_edit(server: &Server, request: Request) -> Result<(EditBody, OwnedSemaphorePermit), ApiError> {
    server.check_open()?;
    let headers = request.headers();
    check_encoding(headers)?;
    let form = if is_json(headers) {
        None
    } else {
        let Ok(boundary) = multer::parse_boundary(text(headers, header::CONTENT_TYPE)) else {
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
    let turn = tokio::time::timeout(BODY_TIMEOUT, Arc::clone(server.uploads()).acquire_owned()).await;
    let turn = turn.ok().and_then(Result::ok).ok_or_else(ApiError::queue_full)?;
    let bytes = read_bytes(server, request, server.limits().max_picture_body).await?;
    let body = match form {
        Some(boundary) => EditBody::from_form(form_fields(bytes, boundary).await?)?,
        None => in_background(move || Ok(parse(&bytes)?)).await?,
    };
    Ok((body, turn))
}

// The fields of a form that is in memory, in their order.
async fn form_fields(body: Bytes, boundary: String) -> Result<Vec<FormField>, ApiError> {
    let wrong = |problem: String| {
        let message = format!("the body is not the multipart/form-data that its Content-Type says: {problem}");
        ApiError::invalid(message)
    };
    let broken = |error: multer::Error| wrong(error.to_string());
    let mut form = multer::Multipart::new(tokio_stream::once(Ok::<_, Infallible>(body)), boundary);
    let mut fields = Vec::new();
    while let Some(field) = form.next_field().await.map_err(broken)? {
        if fields.len() == MAX_FIELDS {
            return Err(wrong(format!("it has more than {MAX_FIELDS} fields")));
        }
        let name = field.name().ok_or_else(|| wrong("a field has no name".into()))?.to_string();
        let is_file = field.file_name().is_some();
        let content = field.bytes().await.map_err(broken)?.to_vec();
        fields.push(FormField { name, is_file, content });
    }
    Ok(fields)
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
        Ok(_) = phase.wait_for(|phase| !phase.is_open()) => return Err(ApiError::stopping()),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Result<Vec<FormField>, ApiError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(form_fields(Bytes::copy_from_slice(body), "XX".into()))
    }

    #[test]
    fn fields_have_names_files_and_any_bytes() {
        let body = b"--XX\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na \"cat\"\r\n--XX\r\n\
            content-type: image/png\r\ncontent-disposition: form-data; filename=\"a.png\"; name=\"image\"\r\n\r\n\
            \x89PNG\r\n\r\n--X\0\xff\r\n--XX\r\nContent-Disposition: form-data; name=\"mask\"; filename=\"\"\r\n\r\n\r\n\
            --XX--\r\n";
        let field =
            |name: &str, is_file, content: &[u8]| FormField { name: name.into(), is_file, content: content.into() };
        let expected = [
            field("prompt", false, b"a \"cat\""),
            field("image", true, b"\x89PNG\r\n\r\n--X\0\xff"),
            field("mask", true, b""),
        ];
        assert_eq!(read(body).unwrap(), expected);
    }

    #[test]
    fn a_form_that_is_cut_or_nameless_or_too_long_is_one_sentence() {
        let whole = b"--XX\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n1\r\n--XX--\r\n";
        assert_eq!(read(whole).unwrap().len(), 1);
        let cut = (0..whole.len() - 4).map(|end| whole[..end].to_vec());
        let nameless = b"--XX\r\nContent-Disposition: form-data\r\n\r\n1\r\n--XX--\r\n".to_vec();
        let many = b"--XX\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n\r\n".repeat(200);
        for body in cut.chain([nameless, many, b"{\"n\": 1}".to_vec()]) {
            let error = read(&body).unwrap_err();
            let is_sentence = error.message.contains("multipart/form-data") && !error.message.contains('\n');
            assert!(error.status == StatusCode::BAD_REQUEST && is_sentence, "{body:?}: {}", error.message);
        }
    }
}
