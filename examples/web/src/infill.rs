//! Fills a text, one step at a time.

use js_sys::{Function, Promise};
use pgm_infer::sample::{SampleRow, advance_async};
use pgm_infer::text::canvas::Canvas;
use pgm_infer::text::denoise::{DenoiseStep, DenoiseText};
use pgm_infer::{SamplingPath, TextModel};
use serde_json::json;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use crate::failure::Failure;
use crate::request::InfillRequest;

/// The answer as JSON; none if `tell` stopped the text.
pub async fn infill(model: &TextModel, request: &InfillRequest, tell: &Function) -> Result<Option<String>, JsValue> {
    let settings = request.settings(model)?;
    let text = request.row(model)?;
    // It keeps what it has encoded, so one denoiser takes all steps.
    let denoiser = model.denoiser(SamplingPath::Clean);
    let mut row = denoiser.row(&text.request, &settings).map_err(Failure::from)?;
    let mut canvas = Canvas::of_row(&text);
    let mut denoise = DenoiseText::new(0, (request.seed, settings.steps), &canvas, model);
    let mut n_steps = 0;
    if is_stopped(tell, &denoise.start(&canvas)).await? {
        return Ok(None);
    }
    while !row.is_done() {
        let mut rows: [&mut SampleRow; 1] = [&mut row];
        let result = advance_async(denoiser.as_ref(), &mut rows).await.map_err(Failure::from)?;
        n_steps += 1;
        for change in result.changes {
            let change = change.map_err(Failure::from)?;
            canvas.apply(&change);
            let step = denoise.apply((n_steps, row.n_steps()), &change, &canvas, model);
            if let Some(step) = step
                && is_stopped(tell, &step).await?
            {
                return Ok(None);
            }
        }
    }
    let sampled = row.sampled(denoiser.mask_index());
    let filled = text.read_blanks(model, &sampled).map_err(Failure::from)?;
    let blanks: Vec<&str> = filled.blanks.iter().map(|blank| blank.text.as_str()).collect();
    let answer = json!({
        "content": blanks.concat(), "stop": true, "text": filled.text, "blanks": blanks, "seed": request.seed,
        "steps": n_steps, "tokens": sampled.tokens, "order": sampled.order,
        "log_probabilities": sampled.log_probabilities,
        "tokens_predicted": sampled.order.len().saturating_sub(text.n_replaced()),
    });
    Ok(Some(answer.to_string()))
}

async fn is_stopped(tell: &Function, step: &DenoiseStep) -> Result<bool, JsValue> {
    let json = serde_json::to_string(step).map_err(|error| Failure::plain(error.to_string()))?;
    let promise: Promise = tell.call1(&JsValue::NULL, &json.into())?.dyn_into()?;
    Ok(JsFuture::from(promise).await?.is_truthy())
}
