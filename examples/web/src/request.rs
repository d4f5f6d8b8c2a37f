//! What the page asks for: the fields of the server's `POST /infill` that it sends.

use pgm_infer::sample::order::OrderFlags;
use pgm_infer::settings::Overrides;
use pgm_infer::text::TextRow;
use pgm_infer::text::template;
use pgm_infer::{SampleSettings, TextModel};
use serde::Deserialize;

use crate::failure::Failure;

/// Tokens of a `___` blank.
const DEFAULT_BLANK: usize = 8;
/// The most steps, as in the server unless it is told otherwise.
const MAX_STEPS: usize = 4096;

/// A text with blanks, and how to fill them. The model's own settings take the place of absent ones.
#[derive(Debug, Deserialize)]
pub struct InfillRequest {
    template: String,
    blank: Option<usize>,
    /// Seed of the sample.
    pub seed: u64,
    steps: Option<usize>,
    temperature: Option<f64>,
    top_k: Option<usize>,
    top_p: Option<f64>,
    order: Option<String>,
}

impl InfillRequest {
    /// A request from its JSON; fields that only a server has are passed over.
    ///
    /// # Errors
    /// When a field is missing or of another type.
    pub fn parse(json: &str) -> Result<Self, Failure> {
        serde_json::from_str(json).map_err(|error| Failure::plain(format!("the request cannot be read: {error}")))
    }

    /// How the model is sampled.
    ///
    /// # Errors
    /// Names the field that is out of its range.
    pub fn settings(&self, model: &TextModel) -> Result<SampleSettings, Failure> {
        if self.steps.is_some_and(|steps| steps == 0 || steps > MAX_STEPS) {
            return Err(Failure::field("steps", format!("steps must lie between 1 and {MAX_STEPS}")));
        }
        let order = self.order.as_deref().map(str::parse).transpose();
        let order = order.map_err(|message: String| Failure::field("order", message))?;
        let defaults = SampleSettings::for_model(model);
        let order = OrderFlags { order, ..OrderFlags::default() }.kind_or(defaults.order);
        let overrides = Overrides {
            steps: self.steps,
            order: Some(order.map_err(|message| Failure::field("order", message))?),
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            ..Overrides::default()
        };
        let settings = overrides.apply(defaults);
        settings.validate()?;
        Ok(settings)
    }

    /// The row of the text.
    ///
    /// # Errors
    /// When it is longer than the model's rows, or leaves nothing to fill.
    pub fn row(&self, model: &TextModel) -> Result<TextRow, Failure> {
        let parts = template::parse(&self.template, self.blank.unwrap_or(DEFAULT_BLANK))?;
        Ok(model.row(&parts, None, self.seed)?)
    }
}
