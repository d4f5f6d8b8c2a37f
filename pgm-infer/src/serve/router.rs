//! The routes, and the layers that every request passes through.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::trace::TraceLayer;

use super::api::{chat, completions, infill, models, openapi, score, tokenize};
use super::error::ApiError;
use super::page;
use super::state::Server;

/// Names a request in the log and in the response; a client may choose the name.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The server's routes. The caller opens the socket.
pub fn router(server: &Arc<Server>) -> Router {
    let guarded = Router::new()
        .route("/v1/models", get(models::models))
        .route("/v1/models/{id}", get(models::model))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/chat/completions", post(chat::chat))
        .route("/infill", post(infill::infill))
        .route("/score", post(score::score))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize))
        .route("/tokenizer_info", get(tokenize::tokenizer_info))
        .route("/metrics", get(models::metrics))
        .route_layer(from_fn_with_state(Arc::clone(server), check_key));
    // From the inside out: the last layer sees a request first.
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
        .layer(from_fn(catch_panic))
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
        .layer(from_fn(name_request))
        .with_state(Arc::clone(server))
}

/// The same routes for a server without keys on a loopback address: they answer only when the `Host` header names this
/// machine. Otherwise a web site whose name resolves to 127.0.0.1 could use the server through its visitors' browsers.
pub fn local_only(router: Router) -> Router {
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
async fn catch_panic(request: Request, next: Next) -> Response {
    let mut response = pin!(next.run(request));
    std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| response.as_mut().poll(context)));
        polled.unwrap_or_else(|_| Poll::Ready(ApiError::panicked().into_response()))
    })
    .await
}

async fn count_response(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_string();
    let response = next.run(request).await;
    server.metrics().count_response(&route, response.status().as_u16());
    response
}

// Gives a request without an id a random one, and puts the id on the response.
async fn name_request(mut request: Request, next: Next) -> Response {
    let random = || HeaderValue::from(rand::random::<u64>());
    let id = request.headers_mut().entry(REQUEST_ID).or_insert_with(random).clone();
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
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
        let app: Router = Router::new().route("/", get(fails)).layer(from_fn(catch_panic));
        for _ in 0..2 {
            let response = app.clone().oneshot(Request::new(Body::empty())).await.unwrap();
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        }
    }
}
