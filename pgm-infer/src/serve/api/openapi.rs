//! `GET /openapi.json`: made from the types of the bodies and answers.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{chat, completions, images, infill, models, score, tokenize};
use crate::OrderKind;
use crate::serve::body::llama_cpp::{self, Meaning};
use crate::serve::error::ErrorBody;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "pgm-infer",
        description = "Partition Generative Models: completions, infilling anywhere in a text, pictures, and streams that \
                       show the order of decoding. Limits are the server's defaults; its flags change some of them.",
        license(name = "MIT OR Apache-2.0"),
    ),
    paths(
        completions::completions,
        chat::chat,
        infill::infill,
        images::generations,
        images::edits,
        score::score,
        tokenize::tokenize,
        tokenize::detokenize,
        tokenize::tokenizer_info,
        models::models,
        models::model,
        models::health,
        models::metrics,
        models::version,
    ),
    // utoipa does not find a schema that only error responses refer to.
    components(schemas(ErrorBody)),
    modifiers(&KeyScheme),
    security((), ("key" = [])),
)]
struct Api;

struct KeyScheme;

impl Modify for KeyScheme {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        api.components.get_or_insert_default().add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

/// The description of the server, as JSON.
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let mut api = serde_json::to_value(Api::openapi()).unwrap_or_default();
        let schemas = &mut api["components"]["schemas"];
        for body in ["ScoreRequest", "TokenizeRequest", "DetokenizeRequest"] {
            schemas[body]["additionalProperties"] = json!({ "type": "null" });
        }
        for body in ["CompletionRequest", "InfillRequest", "ChatRequest", "ImageRequest", "ImageEditRequest"] {
            let schema = &mut schemas[body];
            join_fields(schema);
            // The one list of orders.
            let names = OrderKind::NAMES.iter().map(|name| json!(name));
            schema["properties"]["order"]["enum"] = names.chain([Value::Null]).collect();
        }
        // A form has the same fields, and files where JSON has base64.
        let mut form = schemas["ImageEditRequest"].clone();
        for file in ["image", "mask"] {
            form["properties"][file]["type"] = json!("string");
            form["properties"][file]["format"] = json!("binary");
        }
        schemas["ImageEditForm"] = form;
        for body in ["ImageEditRequest", "ImageEditForm"] {
            schemas[body]["required"] = json!(["image"]);
        }
        schemas["ChatRequest"]["required"] = json!(["messages"]);
        let fields = &mut schemas["InfillRequest"]["properties"];
        for (name, meaning) in llama_cpp::FIELDS {
            fields[*name] = json!({ "description": llama_cpp::description(*meaning) });
            if let Meaning::Result { accepted, .. } = meaning {
                let accepted: Value = serde_json::from_str(accepted).unwrap_or_default();
                fields[*name]["enum"] = json!([accepted, null]);
            }
        }
        let content = &mut api["paths"]["/v1/images/edits"]["post"]["requestBody"]["content"];
        content["multipart/form-data"]["schema"] = json!({ "$ref": "#/components/schemas/ImageEditForm" });
        api.to_string()
    });
    &DOCUMENT
}

// One object instead of `allOf` over common and own fields: only then can it forbid other fields. A field that is null is
// as one left out.
fn join_fields(schema: &mut Value) {
    let Value::Array(parts) = schema["allOf"].take() else { return };
    let mut properties = Map::new();
    for part in parts {
        if let Value::Object(fields) = &part["properties"] {
            properties.extend(fields.clone());
        }
    }
    let description = schema["description"].take();
    *schema = json!({
        "type": "object", "description": description, "additionalProperties": { "type": "null" },
        "properties": properties,
    });
}
