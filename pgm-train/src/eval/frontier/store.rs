//! Results that are kept in files: each with what it depends on, and measured anew when that has changed.

use std::path::Path;

use pgm_model::model_folder::write_file;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::TrainError;

/// The kept value; absent when there is none, or it depends on something else.
pub(super) fn kept<T: DeserializeOwned>(path: &Path, identity: &Value) -> Option<T> {
    let mut kept: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    if kept.get("identity") != Some(identity) {
        return None;
    }
    serde_json::from_value(kept.get_mut("value")?.take()).ok()
}

/// Keeps a value in place of any before.
///
/// # Errors
/// [`TrainError::File`] when it cannot be written.
pub(super) fn keep(path: &Path, identity: &Value, value: &impl Serialize) -> Result<(), TrainError> {
    let value = serde_json::to_value(value).map_err(|error| TrainError::file("write", path, error))?;
    Ok(write_file(path, json!({ "identity": identity, "value": value }).to_string().as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_back_unless_it_depends_on_something_else_or_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kept.json");
        let (identity, values) = (json!({ "n": 3, "seed": 0.1 }), vec![0.1, 1.0 / 3.0]);
        assert_eq!(kept::<Vec<f64>>(&path, &identity), None);
        keep(&path, &identity, &values).unwrap();
        assert_eq!(kept(&path, &identity), Some(values));
        assert_eq!(kept::<Vec<f64>>(&path, &json!({ "n": 4, "seed": 0.1 })), None);
        assert_eq!(kept::<String>(&path, &identity), None);
        std::fs::write(&path, "{\"identity\"").unwrap();
        assert_eq!(kept::<Vec<f64>>(&path, &identity), None);
    }
}
