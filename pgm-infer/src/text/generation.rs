//! `generation_config.json`: the sampler defaults of a model folder.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::InferError;

/// Sampler defaults of a model folder. [`settings`](crate::settings) completes them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// Steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Divides the logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Keeps the k most probable tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Keeps the smallest set of tokens that holds this probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
}

impl GenerationConfig {
    /// The defaults in a file; none without the file.
    ///
    /// # Errors
    /// [`InferError::File`] for a file that cannot be read or is no valid JSON of this form.
    pub fn read(path: &Path) -> Result<Self, InferError> {
        let unreadable = |problem: String| InferError::File { path: path.to_path_buf(), problem };
        match std::fs::read(path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|error| unreadable(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }
}
