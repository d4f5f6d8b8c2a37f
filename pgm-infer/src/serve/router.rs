//! The routes, and the layers that every request passes through.

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::uri::{Authority, Uri};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_request, map_response_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tower_http::trace::TraceLayer;

use super::api::{chat, completions, images, infill, models, openapi, score, tokenize};
use super::error::ApiError;
use super::page;
use super::state::Server;

/// Names a request in the log and in the response; a client may choose the name.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of a name that a client chooses, at most.
const MAX_REQUEST_ID: usize = 128;
/// How long a browser may remember which origins are allowed.
const CORS_MAX_AGE: Duration = Duration::from_secs(600);

/// The server's routes. The caller opens the socket.
pub fn router(server: &Arc<Server>) -> Router {
    watched(routes(server), server)
}

/// The server's routes for the pages of other sites, whose origins are like `https://example.org` or `http://localhost:3000`;
/// `*` allows all of them. Browsers ask before they send a request, and the answer needs no key.
///
/// With `is_local` they answer only when the `Host` header names this machine, which is for a server without keys on a
/// loopback address: otherwise a web site whose name resolves to 127.0.0.1 could use it through its visitors' browsers.
///
/// # Errors
/// Says which origin is none.
pub fn router_for(server: &Arc<Server>, origins: &[String], is_local: bool) -> Result<Router, String> {
    let router = allow_origins(routes(server), origins)?;
    Ok(watched(if is_local { local_only(router) } else { router }, server))
}

fn routes(server: &Arc<Server>) -> Router<Arc<Server>> {
    let limits = server.limits();
    let guarded = Router::new()
        .route("/v1/models", get(models::models))
        .route("/v1/models/{id}", get(models::model))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/chat/completions", post(chat::chat))
        .route("/infill", post(infill::infill))
        .route("/v1/images/generations", post(images::generations))
        .route("/score", post(score::score))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/tokenizer_info", get(tokenize::tokenizer_info))
        .route("/metrics", get(models::metrics))
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(limits.max_body))
        .layer(map_response_with_state(limits.max_body, name_large_body));
    let edits = Router::new()
        .route("/v1/images/edits", post(images::edits))
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(limits.max_picture_body))
        .layer(map_response_with_state(limits.max_picture_body, name_large_body));
    let guarded = guarded.merge(edits).route_layer(from_fn_with_state(Arc::clone(server), check_key));
    Router::new()
        .merge(page::routes())
        .route("/health", get(models::health))
        .route("/version", get(models::version))
        .route("/openapi.json", get(|| async { page::file("application/json", openapi::document()) }))
        .merge(guarded)
        .fallback(|| async { ApiError::with(StatusCode::NOT_FOUND, "not_found", "there is nothing at this address") })
        .method_not_allowed_fallback(|| async {
            let message = "this address does not take this method";
            ApiError::with(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
        })
}

// With what every response has: an error for a panic, its count, its line in the log, and its name.
fn watched(router: Router<Arc<Server>>, server: &Arc<Server>) -> Router {
    // From the inside out: the last layer sees a request first.
    router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(server), count_response))
        .layer(
            TraceLayer::new_for_http()
                .make_span_with(request_span)
                .on_request(())
                .on_response(log_response)
                .on_body_chunk(())
                .on_eos(())
                .on_failure(()),
        )
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, RandomId))
        .layer(map_request(remove_odd_id))
        .with_state(Arc::clone(server))
}

fn allow_origins(router: Router<Arc<Server>>, origins: &[String]) -> Result<Router<Arc<Server>>, String> {
    if origins.is_empty() {
        return Ok(router);
    }
    let origins = origins.iter().map(|origin| parse_origin(origin)).collect::<Result<Vec<_>, _>>()?;
    let origins =
        if origins.iter().any(|origin| origin == "*") { AllowOrigin::any() } else { AllowOrigin::list(origins) };
    let layer = CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .allow_private_network(true)
        .expose_headers([REQUEST_ID, header::RETRY_AFTER, HeaderName::from_static("x-should-retry")])
        .max_age(CORS_MAX_AGE);
    Ok(router.layer(layer))
}

// A browser sends an origin in lower case, without a path, and without the port that its scheme has anyway.
fn parse_origin(text: &str) -> Result<HeaderValue, String> {
    let lower = text.trim_end_matches('/').to_ascii_lowercase();
    let wrong =
        || format!("{text:?} is no origin; write it as https://example.org or http://localhost:3000, or * for all");
    if lower == "*" || lower == "null" {
        return HeaderValue::from_str(&lower).map_err(|_| wrong());
    }
    let uri: Uri = lower.parse().map_err(|_| wrong())?;
    let is_origin = uri.scheme().is_some()
        && uri.authority().is_some_and(|authority| !authority.as_str().contains('@') && !authority.host().is_empty())
        && matches!(uri.path(), "" | "/")
        && uri.query().is_none();
    let default_port = match uri.scheme_str() {
        Some("http") => ":80",
        Some("https") => ":443",
        _ => "",
    };
    let origin = lower.strip_suffix(default_port).unwrap_or(&lower);
    HeaderValue::from_str(origin).ok().filter(|_| is_origin).ok_or_else(wrong)
}

fn local_only(router: Router<Arc<Server>>) -> Router<Arc<Server>> {
    router.layer(from_fn(|request: Request, next: Next| async {
        if is_local(request.headers()) {
            return next.run(request).await;
        }
        let message = "without a key this server answers to localhost only; a proxy must say Host: localhost";
        ApiError::with(StatusCode::FORBIDDEN, "wrong_host", message).into_response()
    }))
}

fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Some(host) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let name = host.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

async fn check_key(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    match server.check_key(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

// A panic is an error of its request: the connection and the server go on.
fn panicked(_panic: Box<dyn Any + Send>) -> Response {
    ApiError::panicked().into_response()
}

// The layer's own response to a body whose length is known to be too large is no JSON.
async fn name_large_body(State(most): State<usize>, response: Response) -> Response {
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE && !is_json {
        return ApiError::too_large(most).into_response();
    }
    response
}

async fn count_response(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_string();
    let response = next.run(request).await;
    server.metrics().count_response(&route, response.status().as_u16());
    response
}

#[derive(Clone, Copy)]
struct RandomId;

impl MakeRequestId for RandomId {
    fn make_request_id<B>(&mut self, _request: &axum::http::Request<B>) -> Option<RequestId> {
        Some(RequestId::new(HeaderValue::from(rand::random::<u64>())))
    }
}

// A name that would make the log hard to read is replaced by a random one.
async fn remove_odd_id(mut request: Request) -> Request {
    let is_sane =
        |id: &HeaderValue| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    if !request.headers().get(REQUEST_ID).is_some_and(is_sane) {
        request.headers_mut().remove(REQUEST_ID);
    }
    request
}

fn request_span<B>(request: &axum::http::Request<B>) -> tracing::Span {
    let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or("");
    tracing::info_span!("request", method = %request.method(), path = request.uri().path(), id)
}

fn log_response<B>(response: &axum::http::Response<B>, latency: std::time::Duration, _span: &tracing::Span) {
    tracing::debug!(status = response.status().as_u16(), ?latency, "answered");
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_handler_is_an_error_of_its_request() {
        async fn fails() -> &'static str {
            panic!("on purpose")
        }
        let app: Router = Router::new().route("/", get(fails)).layer(CatchPanicLayer::custom(panicked));
        for _ in 0..2 {
            let response = app.clone().oneshot(Request::new(Body::empty())).await.unwrap();
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let body = axum::body::to_bytes(response.into_body(), 1 << 12).await.unwrap();
            assert!(String::from_utf8_lossy(&body).contains("\"internal_error\""));
        }
    }

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        for (text, origin) in [
            ("*", "*"),
            ("null", "null"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("HTTPS://Example.ORG/", "https://example.org"),
            ("https://example.org:443", "https://example.org"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("vscode-webview://abc", "vscode-webview://abc"),
        ] {
            assert_eq!(parse_origin(text).unwrap(), origin, "{text}");
        }
        for text in
            ["", "example.org", "https://", "https://example.org/path", "https://a@b", "https://a?b", "http://a b", "é"]
        {
            assert!(parse_origin(text).unwrap_err().contains("is no origin"), "{text}");
        }
    }
}
