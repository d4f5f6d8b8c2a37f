//! Errors as JavaScript's exceptions: a message in one sentence, and the field of the request that it is about.

use js_sys::{Error, Reflect};
use pgm_infer::InferError;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

/// Why something cannot be done.
#[derive(Debug)]
pub struct Failure {
    message: String,
    field: Option<&'static str>,
}

impl Failure {
    /// An error about one field of a request.
    pub fn field(field: &'static str, message: impl Into<String>) -> Self {
        Self { message: message.into(), field: Some(field) }
    }

    /// An error about no field.
    pub fn plain(message: impl Into<String>) -> Self {
        Self { message: message.into(), field: None }
    }
}

impl From<InferError> for Failure {
    fn from(error: InferError) -> Self {
        // The library's messages name the command's flags; the page knows them as fields.
        let message = error.to_string().replace("--temp ", "temperature ").replace("--top-", "top_").replace("--", "");
        let field = match error {
            InferError::Setting { name: "--temp", .. } => Some("temperature"),
            InferError::Setting { name: "--top-k", .. } => Some("top_k"),
            InferError::Setting { name: "--top-p", .. } => Some("top_p"),
            InferError::Setting { name: "--steps", .. } => Some("steps"),
            InferError::Request(_) => Some("template"),
            _ => None,
        };
        Self { message, field }
    }
}

impl From<Failure> for JsValue {
    fn from(Failure { message, field }: Failure) -> Self {
        let error = Error::new(&message);
        if let Some(field) = field {
            // It fails only for objects that are frozen.
            let _ = Reflect::set(&error, &"param".into(), &field.into());
        }
        error.into()
    }
}

// A panic ends the program with a trap, which has no message.
#[wasm_bindgen(start)]
fn keep_messages_of_panics() {
    std::panic::set_hook(Box::new(|info| {
        let _ = Reflect::set(&js_sys::global(), &"panicMessage".into(), &info.to_string().into());
    }));
}
