//! The state that all routes share: the models, the limits, the keys and the phase of the server.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, StatusCode, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, watch};

use super::error::ApiError;
use super::health::{BrokenReplica, Health};
use super::metrics::{Metrics, unix_seconds};
use super::queue::{Queue, QueuePermit};
use crate::engine::{Engine, ImageEngine, Replica, ReplicaState};

/// Bodies with pictures that are held at a time.
const MAX_UPLOADS: usize = 32;

/// The most that one request may ask for, and the most requests that may wait.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Samples of a model that are computed together, on each of its devices.
    pub max_batch: usize,
    /// Samples of a model that may wait in addition.
    pub queue: usize,
    /// Tokens of a row; none is the model's trained length.
    pub max_length: Option<usize>,
    /// Sampling steps of a request.
    pub max_steps: usize,
    /// Samples of a request.
    pub max_samples: usize,
    /// Bytes of a request's body.
    pub max_body: usize,
    /// Bytes of a body with a picture to edit.
    pub max_picture_body: usize,
    /// Pixels of a picture to edit, and of the edited one.
    pub max_pixels: usize,
    /// Windows of the model's size in which a picture is edited.
    pub max_windows: usize,
    /// How long a request may take: waiting, sampling, and sending the events of a stream.
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
            max_picture_body: 16 << 20,
            max_pixels: 1 << 22,
            max_windows: 64,
            timeout: Duration::from_secs(300),
        }
    }
}

/// Whether a server takes requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerPhase {
    /// It takes requests.
    Open,
    /// It takes requests, and `/health` says that it is stopping: a balancer that asks sends no more.
    Leaving,
    /// It finishes the requests that it has and refuses new ones.
    Draining,
    /// It ends the requests that it has with an error.
    Cut,
}

impl ServerPhase {
    /// Whether new requests are taken.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Leaving)
    }
}

/// A model that answers requests, with its engine.
#[derive(Debug)]
pub(super) struct Loaded<E> {
    pub name: String,
    pub engine: E,
    pub queue: Arc<Queue>,
    /// For each replica: held by the request that uses the network or the codec beside the engine.
    pub beside: Vec<Arc<tokio::sync::Mutex<()>>>,
}

/// A model of text.
pub(super) type LoadedModel = Loaded<Engine>;

/// A model of pictures.
pub(super) type LoadedImages = Loaded<ImageEngine>;

/// A model of either kind.
#[derive(Clone, Debug)]
pub(super) enum Served {
    Text(Arc<LoadedModel>),
    Images(Arc<LoadedImages>),
}

impl Served {
    fn name(&self) -> &str {
        match self {
            Self::Text(model) => &model.name,
            Self::Images(model) => &model.name,
        }
    }

    fn queue(&self) -> &Queue {
        match self {
            Self::Text(model) => &model.queue,
            Self::Images(model) => &model.queue,
        }
    }

    fn replicas(&self) -> Vec<Replica> {
        match self {
            Self::Text(model) => model.engine.replicas(),
            Self::Images(model) => model.engine.replicas(),
        }
    }

    // Whether a replica works.
    fn is_healthy(&self) -> bool {
        self.replicas().iter().any(|replica| replica.state == ReplicaState::Working)
    }

    fn text(&self) -> Option<&Arc<LoadedModel>> {
        if let Self::Text(model) = self { Some(model) } else { None }
    }

    fn images(&self) -> Option<&Arc<LoadedImages>> {
        if let Self::Images(model) = self { Some(model) } else { None }
    }
}

/// A request that holds its places of the queue.
#[derive(Debug)]
pub(super) struct Admission {
    pub permit: QueuePermit,
    /// When the request must be over; none for a timeout beyond what the clock can say.
    pub deadline: Option<Instant>,
}

impl<E> Loaded<E> {
    /// Admits a request for `n_samples`, before any work is done for it.
    ///
    /// # Errors
    /// [`ApiError::queue_full`].
    pub fn admit(&self, n_samples: usize, limits: &Limits) -> Result<Admission, ApiError> {
        let permit = self.queue.take(n_samples)?;
        Ok(Admission { permit, deadline: Instant::now().checked_add(limits.timeout) })
    }
}

/// The state that the routes share.
#[derive(Debug)]
pub struct Server {
    // In the order of the command line; the first is the default. Each is filled when its model is loaded.
    models: Vec<(String, OnceLock<Served>)>,
    limits: Limits,
    // Digests, so that a comparison takes the same time for keys of any length.
    keys: Vec<[u8; 32]>,
    metrics: Arc<Metrics>,
    phase: watch::Sender<ServerPhase>,
    uploads: Arc<Semaphore>,
    started: u64,
}

impl Server {
    /// A server for models of these names, which are loaded later; the first is the default. Without keys it asks for none.
    pub fn new(names: &[String], limits: Limits, keys: &[String]) -> Arc<Self> {
        Arc::new(Self {
            models: names.iter().map(|name| (name.clone(), OnceLock::new())).collect(),
            limits,
            keys: keys.iter().map(|key| Sha256::digest(key.as_bytes()).into()).collect(),
            metrics: Arc::new(Metrics::default()),
            phase: watch::Sender::new(ServerPhase::Open),
            uploads: Arc::new(Semaphore::new(MAX_UPLOADS)),
            started: unix_seconds(),
        })
    }

    /// The server's counters. [`Metrics::watch`] connects an engine to them.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Adds a loaded model of text; requests for it are taken from now on. A name that [`new`](Self::new) was not given is
    /// ignored.
    pub fn add(&self, name: &str, engine: Engine) {
        let n_replicas = engine.replicas().len();
        self.put(name, n_replicas, |loaded| Served::Text(Arc::new(loaded)), engine);
    }

    /// As [`add`](Self::add), a model of pictures.
    pub fn add_images(&self, name: &str, engine: ImageEngine) {
        let n_replicas = engine.replicas().len();
        self.put(name, n_replicas, |loaded| Served::Images(Arc::new(loaded)), engine);
    }

    fn put<E>(&self, name: &str, n_replicas: usize, served: impl FnOnce(Loaded<E>) -> Served, engine: E) {
        if let Some((_, place)) = self.models.iter().find(|(known, _)| known == name) {
            let n_places = self.limits.max_batch.saturating_mul(n_replicas).saturating_add(self.limits.queue);
            let queue = Queue::new(n_places, &self.metrics, name);
            let beside = (0..n_replicas).map(|_| Arc::default()).collect();
            let loaded = Loaded { name: name.to_string(), engine, queue, beside };
            let _ = place.set(served(loaded));
        }
    }

    /// Moves the server to a phase.
    pub fn set_phase(&self, phase: ServerPhase) {
        self.phase.send_replace(phase);
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The turns of bodies with pictures.
    pub(super) fn uploads(&self) -> &Arc<Semaphore> {
        &self.uploads
    }

    /// When the server started, in seconds since 1970.
    pub(super) fn started(&self) -> u64 {
        self.started
    }

    pub(super) fn phase(&self) -> watch::Receiver<ServerPhase> {
        self.phase.subscribe()
    }

    /// The models that are loaded, the default first.
    pub(super) fn loaded(&self) -> impl Iterator<Item = &Served> {
        self.models.iter().filter_map(|(_, model)| model.get())
    }

    /// The model of that name.
    ///
    /// # Errors
    /// 404 when there is none of that name, 503 while it is loading.
    pub(super) fn served(&self, name: &str) -> Result<&Served, ApiError> {
        let found = self.models.iter().find(|(known, _)| known == name);
        let (_, model) = found.ok_or_else(|| {
            let known: Vec<&str> = self.models.iter().map(|(name, _)| name.as_str()).collect();
            let message = format!("there is no model {name:?}; there is {}", known.join(", "));
            ApiError {
                param: Some("model".into()),
                ..ApiError::with(StatusCode::NOT_FOUND, "model_not_found", message)
            }
        })?;
        model.get().ok_or_else(ApiError::loading)
    }

    /// The model of a request for text; without a name, the first model of text.
    ///
    /// # Errors
    /// As [`served`](Self::served), and 400 for a model of pictures.
    pub(super) fn model(&self, name: Option<&str>) -> Result<&Arc<LoadedModel>, ApiError> {
        self.of_kind(name, Served::text, ("writes text", "draws pictures, see /v1/images/generations"))
    }

    /// The model of a request for pictures; without a name, the first model of pictures.
    ///
    /// # Errors
    /// As [`served`](Self::served), and 400 for a model of text.
    pub(super) fn images(&self, name: Option<&str>) -> Result<&Arc<LoadedImages>, ApiError> {
        self.of_kind(name, Served::images, ("draws pictures", "writes text, see /v1/completions"))
    }

    // `wanted` says what a model of the kind does, `other` what one of the other kind does.
    fn of_kind<'a, M>(
        &'a self,
        name: Option<&str>,
        kind: fn(&Served) -> Option<&M>,
        (wanted, other): (&str, &str),
    ) -> Result<&'a M, ApiError> {
        if let Some(name) = name {
            return kind(self.served(name)?).ok_or_else(|| {
                let fitting = self.loaded().find(|model| kind(model).is_some());
                let advice = fitting.map_or_else(String::new, |model| format!("; ask for {}", model.name()));
                ApiError::field("model", format!("this route {wanted}, and the model {name} {other}{advice}"))
            });
        }
        for (_, model) in &self.models {
            if let Some(model) = kind(model.get().ok_or_else(ApiError::loading)?) {
                return Ok(model);
            }
        }
        Err(ApiError::field("model", format!("this route {wanted}, and each model of this server {other}")))
    }

    /// Refuses a request that cannot be admitted, before its body is read.
    ///
    /// # Errors
    /// 503 while the server stops, 429 when no model has a free place.
    pub(super) fn check_open(&self) -> Result<(), ApiError> {
        if !self.phase.borrow().is_open() {
            return Err(ApiError::stopping());
        }
        let mut loaded = self.loaded().peekable();
        if loaded.peek().is_some() && loaded.all(|model| model.queue().is_full()) {
            return Err(ApiError::queue_full());
        }
        Ok(())
    }

    /// Checks the key of a request.
    ///
    /// # Errors
    /// 401 when the server has keys and the request has none of them.
    pub(super) fn check_key(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        // The name of a scheme has no case.
        let given = given.and_then(|value| value.trim_start().split_once(' '));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map_or("", |(_, key)| key.trim());
        let given = Sha256::digest(given);
        // Every key is compared, so that the time does not reveal which one matches.
        let fits = self.keys.iter().fold(0, |fits, key| fits | key.ct_eq(&given[..]).unwrap_u8());
        if self.keys.is_empty() || fits == 1 {
            return Ok(());
        }
        let message = "this server asks for a key: Authorization: Bearer KEY";
        Err(ApiError::with(StatusCode::UNAUTHORIZED, "wrong_key", message))
    }

    /// The server's health: loading, failing, ok or stopping.
    pub(super) fn health(&self) -> Health {
        match *self.phase.borrow() {
            ServerPhase::Leaving | ServerPhase::Draining | ServerPhase::Cut => Health::Stopping,
            ServerPhase::Open if self.loaded().count() < self.models.len() => Health::Loading,
            ServerPhase::Open if self.loaded().all(Served::is_healthy) => Health::Ok,
            ServerPhase::Open => Health::Failing,
        }
    }

    /// The replicas that do not work, of models that have several.
    pub(super) fn broken_replicas(&self) -> Vec<BrokenReplica> {
        let among = |model: &Served| BrokenReplica::among(model.name(), &model.replicas()).collect::<Vec<_>>();
        self.loaded().flat_map(among).collect()
    }

    /// The counters as text, for Prometheus.
    pub(super) fn metrics_text(&self) -> String {
        self.loaded().for_each(|model| self.metrics.set_replicas(model.name(), &model.replicas()));
        self.metrics.text()
    }
}
