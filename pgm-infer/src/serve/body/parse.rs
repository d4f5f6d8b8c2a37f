//! From bytes to a typed body.

use serde::de::DeserializeOwned;

/// Why a body is refused: the field, if it is about one, and the reason in one sentence.
#[derive(Debug, PartialEq, Eq)]
pub struct BodyError {
    pub field: Option<&'static str>,
    pub message: String,
}

impl BodyError {
    /// An error about one field.
    pub fn field(field: &'static str, message: impl Into<String>) -> Self {
        Self { field: Some(field), message: message.into() }
    }
}

/// The body of one route.
pub trait RequestBody: DeserializeOwned {
    /// Checks the values that no model accepts.
    ///
    /// # Errors
    /// Names the first field that cannot be met.
    fn check(&self) -> Result<(), BodyError>;
}

/// Reads JSON. [`RequestBody::check`] has yet to be called.
///
/// # Errors
/// When the bytes are not a JSON object of this type.
pub fn parse<B: RequestBody>(bytes: &[u8]) -> Result<B, BodyError> {
    serde_json::from_slice(bytes)
        .map_err(|error| BodyError { field: None, message: format!("the body cannot be read: {error}") })
}
