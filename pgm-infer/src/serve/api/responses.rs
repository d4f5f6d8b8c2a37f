//! The error responses and the events of the routes, for `/openapi.json`.

use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::serve::error::ErrorBody;

/// One event of a stream.
#[derive(Serialize, ToSchema)]
#[allow(dead_code)] // it is read by the derive
pub struct StreamEvent {
    /// The name of the event; message, if it has none.
    event: Option<String>,
    /// A JSON object, or [DONE].
    data: String,
}

/// The errors of a route that generates text.
#[derive(IntoResponses)]
#[allow(dead_code)] // it is read by the derive
pub enum GenerateErrors {
    /// The request cannot be met as it is.
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// The key is missing or wrong.
    #[response(status = 401)]
    WrongKey(ErrorBody),
    /// There is no such model.
    #[response(status = 404)]
    NoSuchModel(ErrorBody),
    /// The body did not arrive in time.
    #[response(status = 408)]
    SlowBody(ErrorBody),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The body is not JSON.
    #[response(status = 415)]
    NotJson(ErrorBody),
    /// All places of the queue are taken; Retry-After says when to try again.
    #[response(status = 429)]
    QueueFull(ErrorBody),
    /// The device failed, or the server failed on this request.
    #[response(status = 500)]
    Failed(ErrorBody),
    /// The model is being loaded, or the server is stopping.
    #[response(status = 503)]
    NotReady(ErrorBody),
    /// The request took longer than the server allows.
    #[response(status = 504)]
    Timeout(ErrorBody),
}

/// The error of a route that needs a key.
#[derive(IntoResponses)]
#[allow(dead_code)] // it is read by the derive
pub enum KeyError {
    /// The key is missing or wrong.
    #[response(status = 401)]
    WrongKey(ErrorBody),
}

/// The errors of a route about one model.
#[derive(IntoResponses)]
#[allow(dead_code)] // it is read by the derive
pub enum ModelErrors {
    /// The key is missing or wrong.
    #[response(status = 401)]
    WrongKey(ErrorBody),
    /// There is no such model.
    #[response(status = 404)]
    NoSuchModel(ErrorBody),
    /// The model is being loaded.
    #[response(status = 503)]
    Loading(ErrorBody),
}
