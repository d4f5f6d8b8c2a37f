//! `GET /v1/models`, `/health`, `/version` and `/metrics`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use pgm_model::ModelConfig;
use serde::Serialize;
use utoipa::ToSchema;

use super::responses::{KeyError, ModelErrors};
use crate::serve::error::ApiError;
use crate::serve::health::{BrokenReplica, Health};
use crate::serve::resolve::max_length;
use crate::serve::state::{LoadedImages, LoadedModel, Served, Server};
use crate::{DrawSettings, SampleSettings};

/// The models that are loaded.
#[derive(Serialize, ToSchema)]
pub struct Models {
    object: ListKind,
    data: Vec<Model>,
}

/// A model: one of text, or one of pictures, which has a grid.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum Model {
    Text(TextEntry),
    Images(ImageEntry),
}

/// A model of text.
#[derive(Serialize, ToSchema)]
#[schema(as = TextModel)]
pub struct TextEntry {
    /// Its name.
    id: String,
    object: ModelObject,
    /// When the server started, in seconds since 1970.
    created: u64,
    owned_by: &'static str,
    kind: ModelKind,
    /// The most tokens of a text, BOS included.
    context_length: usize,
    parameters: usize,
    /// The settings of a request that gives none.
    defaults: Defaults,
}

/// A model of pictures.
#[derive(Serialize, ToSchema)]
#[schema(as = ImageModel)]
pub struct ImageEntry {
    /// Its name.
    id: String,
    object: ModelObject,
    /// When the server started, in seconds since 1970.
    created: u64,
    owned_by: &'static str,
    kind: ModelKind,
    parameters: usize,
    /// The names of the classes in the order of their numbers; empty if they have none.
    classes: Vec<String>,
    /// Number of classes; 0 for a model without.
    n_classes: usize,
    /// Rows and columns of cells.
    grid: [usize; 2],
    /// Width and height of a picture.
    size: [usize; 2],
    /// 1 for grey pictures, 3 for coloured ones.
    channels: usize,
    /// The settings of a request that gives none.
    defaults: Defaults,
}

/// The settings of a request that gives none.
#[derive(Serialize, ToSchema)]
pub struct Defaults {
    steps: usize,
    order: &'static str,
    temperature: f64,
    top_k: usize,
    top_p: f64,
}

impl From<SampleSettings> for Defaults {
    fn from(settings: SampleSettings) -> Self {
        let SampleSettings { steps, order, draw: DrawSettings { temperature, top_k, top_p }, .. } = settings;
        Self { steps, order: order.name(), temperature, top_k, top_p }
    }
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ListKind {
    List,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ModelObject {
    Model,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ModelKind {
    Partition,
    Masked,
    Autoregressive,
    MaskGit,
}

impl ModelKind {
    fn of(config: &ModelConfig) -> Self {
        match config {
            ModelConfig::Partition(_) => Self::Partition,
            ModelConfig::Masked(_) => Self::Masked,
            ModelConfig::Autoregressive(_) => Self::Autoregressive,
            ModelConfig::MaskGit(_) => Self::MaskGit,
        }
    }
}

impl Model {
    fn new(server: &Server, served: &Served) -> Self {
        match served {
            Served::Text(loaded) => Self::Text(TextEntry::new(server, loaded)),
            Served::Images(loaded) => Self::Images(ImageEntry::new(server, loaded)),
        }
    }
}

impl TextEntry {
    fn new(server: &Server, loaded: &LoadedModel) -> Self {
        let model = loaded.engine.model();
        Self {
            id: loaded.name.clone(),
            object: ModelObject::Model,
            created: server.started(),
            owned_by: "pgm",
            kind: ModelKind::of(model.config()),
            context_length: max_length(model, server.limits()),
            parameters: model.n_parameters(),
            defaults: SampleSettings::for_model(model).into(),
        }
    }
}

impl ImageEntry {
    fn new(server: &Server, loaded: &LoadedImages) -> Self {
        let model = loaded.engine.model();
        let (image, (width, height, channels)) = (model.image(), model.codec().shape());
        Self {
            id: loaded.name.clone(),
            object: ModelObject::Model,
            created: server.started(),
            owned_by: "pgm",
            kind: ModelKind::of(model.config()),
            parameters: model.n_parameters(),
            classes: image.class_names.clone(),
            n_classes: image.n_classes,
            grid: image.grid,
            size: [width, height],
            channels,
            defaults: SampleSettings::for_image_model(model).into(),
        }
    }
}

/// The models that are loaded, the default first
#[utoipa::path(
    get,
    path = "/v1/models",
    operation_id = "models",
    responses((status = 200, description = "The models.", body = Models), KeyError),
)]
pub async fn models(State(server): State<Arc<Server>>) -> Json<Models> {
    let data = server.loaded().map(|model| Model::new(&server, model)).collect();
    Json(Models { object: ListKind::List, data })
}

/// One model
#[utoipa::path(
    get,
    path = "/v1/models/{id}",
    operation_id = "model",
    params(("id" = String, Path, description = "The model's name.")),
    responses((status = 200, description = "The model.", body = Model), ModelErrors),
)]
pub async fn model(State(server): State<Arc<Server>>, Path(id): Path<String>) -> Result<Json<Model>, ApiError> {
    Ok(Json(Model::new(&server, server.served(&id)?)))
}

/// The health of the server.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Health)]
pub enum HealthAnswer {
    Whole(WholeHealth),
    Partial(PartialHealth),
}

/// The health of a server.
#[derive(Serialize, ToSchema)]
pub struct WholeHealth {
    #[schema(inline)]
    status: Health,
}

/// The health of a server with models on several devices, of which some do not work.
#[derive(Serialize, ToSchema)]
pub struct PartialHealth {
    #[schema(inline)]
    status: Health,
    /// The copies of models that do not work.
    broken: Vec<BrokenReplica>,
}

/// Whether the server takes requests
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "health",
    security(()),
    responses(
        (status = 200, description = "It does.", body = HealthAnswer),
        (
            status = 503,
            description = "It is loading or stopping, or a model's last step failed on each of its devices.",
            body = HealthAnswer
        ),
    ),
)]
pub async fn health(State(server): State<Arc<Server>>) -> Response {
    let status = server.health();
    let code = if status == Health::Ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let answer = match server.broken_replicas() {
        broken if broken.is_empty() => HealthAnswer::Whole(WholeHealth { status }),
        broken => HealthAnswer::Partial(PartialHealth { status, broken }),
    };
    (code, Json(answer)).into_response()
}

/// The version of the server.
#[derive(Serialize, ToSchema)]
pub struct Version {
    version: &'static str,
}

/// The version of the server
#[utoipa::path(
    get,
    path = "/version",
    operation_id = "version",
    security(()),
    responses((status = 200, description = "The version.", body = Version)),
)]
pub async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION") })
}

/// Counters for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    responses(
        (status = 200, description = "OpenMetrics.", body = String, content_type = "application/openmetrics-text"),
        KeyError,
    ),
)]
pub async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], server.metrics_text()).into_response()
}
