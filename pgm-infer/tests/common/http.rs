//! A server in this process, and requests to it.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use pgm_infer::engine::{EngineOptions, ImageEngine};
use pgm_infer::serve::{Limits, Server, router};
use pgm_infer::{Engine, ImageModel, TextModel};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{model, partition};

/// Steps that take longer than any test.
pub const ENDLESS: usize = 1 << 20;

/// A completion that takes long: the order masks every token again, and before a suffix no EOS ends the text.
pub fn endless() -> Value {
    json!({
        "prompt": "w1", "suffix": "w2", "max_tokens": 20, "steps": ENDLESS, "order": "remask", "remask_rate": 1.0,
    })
}

/// A server with the model `tiny`.
pub fn server(limits: Limits, keys: &[String]) -> Arc<Server> {
    let limits = Limits { max_steps: ENDLESS, ..limits };
    let server = Server::new(&["tiny".into()], limits, keys);
    let watch = Some(server.metrics().watch("tiny"));
    let options = EngineOptions { max_batch: limits.max_batch, watch, ..EngineOptions::default() };
    server.add("tiny", Engine::new(model(&partition()), &options).unwrap());
    server
}

/// The routes of a server with the default limits.
pub fn app() -> Router {
    router(&server(Limits::default(), &[]))
}

/// The routes of a server with another model, by the name `tiny`.
pub fn app_of(model: TextModel) -> Router {
    let server = Server::new(&["tiny".into()], Limits::default(), &[]);
    server.add("tiny", Engine::new(model, &EngineOptions::default()).unwrap());
    router(&server)
}

/// A server whose model `tiny` has these copies.
pub fn server_of_replicas(models: Vec<(TextModel, String)>, limits: Limits) -> Arc<Server> {
    let limits = Limits { max_steps: ENDLESS, ..limits };
    let server = Server::new(&["tiny".into()], limits, &[]);
    let watch = Some(server.metrics().watch("tiny"));
    let options = EngineOptions { max_batch: limits.max_batch, watch, threads: Some(1), ..EngineOptions::default() };
    server.add("tiny", Engine::of_replicas(models, &options).unwrap());
    server
}

/// A server with a model of pictures, `pixels`, behind the model of text `tiny`.
pub fn image_server(model: ImageModel, limits: Limits) -> Arc<Server> {
    let limits = Limits { max_steps: ENDLESS, ..limits };
    let server = Server::new(&["tiny".into(), "pixels".into()], limits, &[]);
    let options = |name| {
        let watch = Some(server.metrics().watch(name));
        EngineOptions { max_batch: limits.max_batch, watch, ..EngineOptions::default() }
    };
    server.add("tiny", Engine::new(super::model(&partition()), &options("tiny")).unwrap());
    server.add_images("pixels", ImageEngine::new(model, &options("pixels")).unwrap());
    server
}

/// A request with a JSON body.
pub fn post(route: &str, body: &Value) -> Request<Body> {
    let json = "application/json";
    Request::post(route).header(header::CONTENT_TYPE, json).body(Body::from(body.to_string())).unwrap()
}

/// A request without a body.
pub fn get(route: &str) -> Request<Body> {
    Request::get(route).body(Body::empty()).unwrap()
}

/// The body of a response.
pub async fn text(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1 << 24).await.unwrap().to_vec()).unwrap()
}

/// The status and the JSON body of the response to a request.
pub async fn send(app: &Router, request: Request<Body>) -> (StatusCode, Value) {
    let response = app.clone().oneshot(request).await.unwrap();
    (response.status(), serde_json::from_str(&text(response).await).unwrap())
}

/// The answer to a request that must succeed.
pub async fn done(app: &Router, route: &str, body: &Value) -> Value {
    let (status, answer) = send(app, post(route, body)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

/// Names and data of a stream's events.
pub async fn events(app: &Router, route: &str, body: &Value) -> Vec<(Option<String>, String)> {
    let response = app.clone().oneshot(post(route, body)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let text = text(response).await;
    let event = |block: &str| {
        let field =
            |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_string());
        (field("event:"), field("data:").unwrap())
    };
    text.split("\n\n").filter(|block| !block.is_empty()).map(event).collect()
}
