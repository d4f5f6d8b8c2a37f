//! The field `refresh`: how often clean tokens are encoded anew.

use serde_json::Value;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Schema, Type};

use super::parse::BodyError;

/// The largest number.
const MAX_REFRESH: u64 = 65_536;

/// Its schema.
pub(super) fn refresh_schema() -> Schema {
    let description = "In one of how many network evaluations of a partition model the decoded tokens are encoded anew; inf: \
                       in the first only. Default: the model's.";
    AnyOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .item(ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(MAX_REFRESH as f64)))
        .item(ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["inf"])))
        .description(Some(description))
        .into()
}

/// Its value as it is written in a command; none without the field.
///
/// # Errors
/// When it is neither a number in its range nor "inf".
pub(super) fn refresh(value: Option<&Value>) -> Result<Option<String>, BodyError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text == "inf" => Ok(Some(text.clone())),
        Some(value) => match value.as_u64().filter(|number| (1..=MAX_REFRESH).contains(number)) {
            Some(number) => Ok(Some(number.to_string())),
            None => {
                let message = format!("refresh must be a number from 1 to {MAX_REFRESH}, or \"inf\"");
                Err(BodyError::field("refresh", message))
            }
        },
    }
}
