//! `generation_config.json`: the sampler defaults of a model folder.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::InferError;
use crate::sample::order::OrderKind;

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
    /// The name of an order.
    #[serde(skip_serializing_if = "Option::is_none", with = "order_name")]
    pub order: Option<OrderKind>,
}

mod order_name {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use super::OrderKind;

    pub(super) fn serialize<S: Serializer>(order: &Option<OrderKind>, to: S) -> Result<S::Ok, S::Error> {
        order.map(OrderKind::name).serialize(to)
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<OrderKind>, D::Error> {
        let name = Option::<String>::deserialize(from)?;
        name.map(|name| name.parse()).transpose().map_err(D::Error::custom)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_its_name() {
        let halton: GenerationConfig = serde_json::from_str(r#"{"steps":16,"order":"halton"}"#).unwrap();
        assert_eq!(halton.order, Some(OrderKind::Halton { roll: false }));
        assert_eq!(serde_json::to_string(&halton).unwrap(), r#"{"steps":16,"order":"halton"}"#);
        assert_eq!(serde_json::from_str::<GenerationConfig>("{}").unwrap().order, None);
        let error = serde_json::from_str::<GenerationConfig>(r#"{"order":"random"}"#).unwrap_err().to_string();
        assert!(error.starts_with("random is not an order; the orders are uniform, "), "{error}");
    }
}
