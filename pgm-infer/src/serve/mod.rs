//! An HTTP server around engines: OpenAI's completions, infilling in llama.cpp's form, metrics, a page.
//!
//! [`router`] is the whole server but for the socket, which the command opens. A request becomes one [`Task`] for each
//! prompt (`body.rs`, `ask.rs`); what comes back is gathered into one answer or told as it happens (`answer.rs`). A sample holds a
//! place of its model's queue from its admission until the engine lets go of it, so what the queue holds is bounded
//! whatever clients do.
//!
//! [`Task`]: crate::engine::Task

mod answer;
mod ask;
mod body;
mod error;
mod metrics;

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use pgm_model::ModelConfig;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

pub use error::ApiError;
pub use metrics::Metrics;

use crate::{Engine, SampleSettings, TextModel};

/// What one request may ask for, and how many may wait.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows of a model that share an evaluation.
    pub max_batch: usize,
    /// Samples that may wait beside those.
    pub queue: usize,
    /// Tokens of a row; without one, the model's trained length.
    pub max_length: Option<usize>,
    /// Steps of a request.
    pub max_steps: usize,
    /// Samples of a request.
    pub max_samples: usize,
    /// Bytes of a body.
    pub max_body: usize,
    /// How long a request may take, the queue included.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_batch: 16,
            queue: 256,
            max_length: None,
            max_steps: 4096,
            max_samples: 64,
            max_body: 1 << 20,
            timeout: Duration::from_secs(300),
        }
    }
}

/// How far a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerPhase {
    /// It takes requests.
    Open,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It ends what it has, too.
    Cut,
}

/// A model by its name.
#[derive(Debug)]
struct Served {
    name: String,
    engine: OnceLock<Engine>,
    // Samples that were admitted and have not ended.
    admitted: Arc<AtomicUsize>,
}

/// What the routes share.
#[derive(Debug)]
pub struct Server {
    models: Vec<Served>,
    limits: Limits,
    // Digests, so that comparing takes the same time whatever a key's length.
    keys: Vec<[u8; 32]>,
    metrics: Arc<Metrics>,
    phase: watch::Sender<ServerPhase>,
    created: u64,
}

impl Server {
    /// A server of models that are still to come, by their names, the default first. Without keys it asks for none.
    pub fn new(names: &[String], limits: Limits, keys: &[String]) -> Arc<Self> {
        let model = |name: &String| Served {
            name: name.clone(),
            engine: OnceLock::new(),
            admitted: Arc::new(AtomicUsize::new(0)),
        };
        Arc::new(Self {
            models: names.iter().map(model).collect(),
            limits,
            keys: keys.iter().map(|key| Sha256::digest(key.as_bytes()).into()).collect(),
            metrics: Arc::new(Metrics::default()),
            phase: watch::Sender::new(ServerPhase::Open),
            created: now(),
        })
    }

    /// Its counters, for [`EngineOptions::watch`](crate::engine::Options::watch).
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Puts a model in place; requests for it are taken from now on.
    pub fn add(&self, name: &str, engine: Engine) {
        if let Some(model) = self.models.iter().find(|model| model.name == name) {
            let _ = model.engine.set(engine);
        }
    }

    /// Says how far it is; it only goes forward.
    pub fn set_phase(&self, phase: ServerPhase) {
        self.phase.send_replace(phase);
    }

    fn model(&self, name: Option<&str>) -> Result<(&Served, &Engine), ApiError> {
        let found = match name {
            None => self.models.first(),
            Some(name) => self.models.iter().find(|model| model.name == name),
        };
        let model = found.ok_or_else(|| {
            let known: Vec<&str> = self.models.iter().map(|model| model.name.as_str()).collect();
            let message = format!("there is no model {:?}; there is {}", name.unwrap_or(""), known.join(", "));
            ApiError { param: Some("model"), ..ApiError::with(StatusCode::NOT_FOUND, "model_not_found", message) }
        })?;
        Ok((model, model.engine.get().ok_or_else(ApiError::loading)?))
    }

    // What is told of a model.
    fn told(&self, name: &str, model: &TextModel) -> Value {
        let SampleSettings { steps, draw, .. } = SampleSettings::for_model(model);
        let kind = match model.config() {
            ModelConfig::Partition(_) => "partition",
            ModelConfig::Masked(_) => "masked",
            ModelConfig::Autoregressive(_) => "autoregressive",
        };
        json!({
            "id": name, "object": "model", "created": self.created, "owned_by": "pgm", "kind": kind,
            "context_length": self.limits.max_length.unwrap_or(model.config().backbone().length),
            "parameters": model.n_parameters(),
            "defaults": {"steps": steps, "temperature": draw.temperature, "top_k": draw.top_k, "top_p": draw.top_p},
        })
    }

    fn check_key(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = Sha256::digest(given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or("").trim());
        let fits = self.keys.iter().fold(0, |fits, key| fits | key.ct_eq(&given[..]).unwrap_u8());
        if self.keys.is_empty() || fits == 1 {
            return Ok(());
        }
        let message = "this server asks for a key: Authorization: Bearer KEY";
        Err(ApiError::with(StatusCode::UNAUTHORIZED, "wrong_key", message))
    }

    // The body of a request; it must be JSON by its header, too, which keeps other sites' forms out.
    async fn read<B: body::Body>(&self, request: Request) -> Result<B, ApiError> {
        if *self.phase.borrow() != ServerPhase::Open {
            return Err(ApiError::stopping());
        }
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        if kind.split(';').next().is_none_or(|kind| !kind.trim().eq_ignore_ascii_case("application/json")) {
            let message = "the body must be JSON, with Content-Type: application/json";
            return Err(ApiError::with(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message));
        }
        let most = self.limits.max_body;
        let body = axum::body::to_bytes(request.into_body(), most);
        let Ok(body) = tokio::time::timeout(Duration::from_secs(30), body).await else {
            return Err(ApiError::with(StatusCode::REQUEST_TIMEOUT, "slow_body", "the body did not come within 30 s"));
        };
        let body = body.map_err(|error| {
            let too_large =
                std::error::Error::source(&error).is_some_and(|cause| cause.to_string().contains("length limit"));
            if too_large {
                let message = format!("the body is larger than the server's limit of {most} bytes");
                ApiError::with(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
            } else {
                ApiError::invalid("the body broke off")
            }
        })?;
        Ok(body::read(&body)?)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The routes.
pub fn router(server: &Arc<Server>) -> Router {
    let guarded = Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{id}", get(one_model))
        .route("/v1/completions", post(answer::completions))
        .route("/infill", post(answer::infill))
        .route("/metrics", get(metrics_text))
        .route_layer(from_fn_with_state(Arc::clone(server), guard));
    Router::new()
        .route("/", get(|| page("text/html; charset=utf-8", include_str!("page/index.html"))))
        .route("/style.css", get(|| page("text/css; charset=utf-8", include_str!("page/style.css"))))
        .route("/app.js", get(|| page("text/javascript; charset=utf-8", include_str!("page/app.js"))))
        .route("/icon.svg", get(|| page("image/svg+xml", include_str!("page/icon.svg"))))
        .route("/health", get(health))
        .route("/version", get(|| async { Json(json!({"version": env!("CARGO_PKG_VERSION")})) }))
        .route("/openapi.json", get(|| page("application/json", include_str!("openapi.json"))))
        .merge(guarded)
        .fallback(|| async { ApiError::with(StatusCode::NOT_FOUND, "not_found", "there is nothing at this address") })
        .method_not_allowed_fallback(|| async {
            let message = "this address does not take this method";
            ApiError::with(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", message)
        })
        .layer(from_fn_with_state(Arc::clone(server), count))
        .with_state(Arc::clone(server))
}

/// The same for a server that only this machine is to reach: a site whose name was made to mean this machine could have a
/// browser ask it, but the browser says that name.
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

async fn guard(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    match server.check_key(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

async fn count(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_string();
    let response = next.run(request).await;
    server.metrics.answered(&route, response.status().as_u16());
    response
}

// A file of the page. It loads nothing from elsewhere and nobody frames it.
async fn page(kind: &'static str, text: &'static str) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                          base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let mut response = Response::new(Body::from(text));
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    response.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

async fn health(State(server): State<Arc<Server>>) -> Response {
    let status = match *server.phase.borrow() {
        ServerPhase::Open if server.models.iter().any(|model| model.engine.get().is_none()) => "loading",
        ServerPhase::Open if server.models.iter().any(|model| server.metrics.is_failing(&model.name)) => "failing",
        ServerPhase::Open => "ok",
        ServerPhase::Draining | ServerPhase::Cut => "stopping",
    };
    let code = if status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(json!({"status": status}))).into_response()
}

async fn models(State(server): State<Arc<Server>>) -> Response {
    let told = |served: &Served| Some(server.told(&served.name, served.engine.get()?.model()));
    let data: Vec<_> = server.models.iter().filter_map(told).collect();
    Json(json!({"object": "list", "data": data})).into_response()
}

async fn one_model(State(server): State<Arc<Server>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let (served, engine) = server.model(Some(&id))?;
    Ok(Json(server.told(&served.name, engine.model())).into_response())
}

async fn metrics_text(State(server): State<Arc<Server>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], server.metrics.text()).into_response()
}

// A place in a model's queue, given back when the engine drops the listener that holds it.
struct QueuePermit {
    admitted: Arc<AtomicUsize>,
    n: usize,
    metrics: Arc<Metrics>,
    model: String,
}

impl QueuePermit {
    fn take(server: &Server, model: &Served, n: usize) -> Result<Self, ApiError> {
        let most = server.limits.max_batch + server.limits.queue;
        let (metrics, name) = (Arc::clone(&server.metrics), model.name.clone());
        let fits = |taken: usize| (taken + n <= most).then_some(taken + n);
        match model.admitted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => {
                metrics.in_flight.get_or_create(&metrics::of(&name)).inc_by(n as i64);
                Ok(Self { admitted: Arc::clone(&model.admitted), n, metrics, model: name })
            }
            Err(_) => Err(ApiError::full()),
        }
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        self.admitted.fetch_sub(self.n, Ordering::Relaxed);
        self.metrics.in_flight.get_or_create(&metrics::of(&self.model)).dec_by(self.n as i64);
    }
}
