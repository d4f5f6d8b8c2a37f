//! A model from the bytes of its folder, and what the page shows of it.

use std::rc::Rc;

use js_sys::{Function, Promise};
use pgm_infer::{ModelBytes, SampleSettings, TextModel};
use pgm_model::ModelConfig;
use serde_json::json;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::future_to_promise;

use crate::device::open_device;
use crate::failure::Failure;
use crate::infill::infill;
use crate::request::InfillRequest;

/// A model of text.
#[wasm_bindgen(js_name = Model)]
#[derive(Debug)]
pub struct WebModel {
    // Shared with the texts that are being filled.
    model: Rc<TextModel>,
}

#[wasm_bindgen(js_class = Model)]
impl WebModel {
    /// A model from the bytes of its files; `watch` is called with the share of the weights
    /// that is read.
    ///
    /// # Errors
    /// Says which file cannot be used, or that there is no graphics card.
    pub async fn load(
        config: Vec<u8>,
        weights: Vec<u8>,
        tokenizer: Vec<u8>,
        generation: Option<Vec<u8>>,
        watch: Function,
    ) -> Result<Self, JsValue> {
        let device = open_device().await?;
        let files =
            ModelBytes { config: &config, weights: &weights, tokenizer: &tokenizer, generation: generation.as_deref() };
        let watch = |share: f64| {
            // The worker's function only posts a message.
            let _ = watch.call1(&JsValue::NULL, &share.into());
        };
        let model = TextModel::from_bytes(&files, &device, &watch).map_err(Failure::from)?;
        Ok(Self { model: Rc::new(model) })
    }

    /// The model as the server's `/v1/models` lists it, under the name `id`.
    pub fn describe(&self, id: &str) -> String {
        let (model, settings) = (&self.model, SampleSettings::for_model(&self.model));
        let kind = match model.config() {
            ModelConfig::Partition(_) => "partition",
            ModelConfig::Masked(_) => "masked",
            ModelConfig::Autoregressive(_) => "autoregressive",
            ModelConfig::MaskGit(_) => "maskgit",
        };
        let defaults = json!({
            "steps": settings.steps, "temperature": settings.draw.temperature,
            "top_k": settings.draw.top_k, "top_p": settings.draw.top_p, "order": settings.order.name(),
        });
        let entry = json!({
            "id": id, "kind": kind, "context_length": model.config().backbone().length,
            "parameters": model.n_parameters(), "defaults": defaults,
        });
        entry.to_string()
    }

    /// Fills a text. `tell` gets each step as the JSON of the server's event `denoise`, and returns a promise of whether to
    /// stop. The promise of the whole is the JSON of the answer; null for a text that was stopped.
    pub fn infill(&self, request: &str, tell: Function) -> Promise {
        let (model, request) = (Rc::clone(&self.model), InfillRequest::parse(request));
        future_to_promise(async move {
            let answer = infill(&model, &request?, &tell).await?;
            Ok(answer.map_or(JsValue::NULL, JsValue::from))
        })
    }
}
