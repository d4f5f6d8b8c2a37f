//! The application's settings, as they are saved, and the task made from them.
//!
//! The seed is a string: an empty one stands for a new seed each time. The order and the device are strings, so that
//! settings saved by a build with other backends can be read.

use std::time::{SystemTime, UNIX_EPOCH};

use pgm_infer::engine::{Task, TaskInput};
use pgm_infer::text::template::Part;
use pgm_infer::{DrawSettings, OrderKind, SampleSettings, TextModel};
use serde::{Deserialize, Serialize};

/// The settings in the side panel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppSettings {
    /// The folder of the model that these settings were made for; empty for the built-in one, absent for none yet.
    pub model: Option<String>,
    /// Sampling steps.
    pub steps: usize,
    /// The temperature divides the logits.
    pub temperature: f64,
    /// Keeps the smallest set of tokens that holds this probability; 1 keeps all.
    pub top_p: f64,
    /// Keeps the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// One of [`OrderKind::NAMES`].
    pub order: String,
    /// The seed as a number; empty for a seed from the clock.
    pub seed: String,
    /// The device, as [`DeviceName`](pgm_infer::device::DeviceName) parses it.
    pub device: String,
    /// Length in tokens of an inserted blank and of `___`.
    pub blank: usize,
}

impl Default for AppSettings {
    fn default() -> Self {
        let plain = SampleSettings::default();
        Self {
            model: None,
            steps: plain.steps,
            temperature: plain.draw.temperature,
            top_p: plain.draw.top_p,
            top_k: plain.draw.top_k,
            order: plain.order.name().to_string(),
            seed: String::new(),
            device: "auto".to_string(),
            blank: 12,
        }
    }
}

impl AppSettings {
    /// The defaults of a model; of the settings before, the seed, the device and the length of a blank stay.
    pub fn for_model(&self, model: &TextModel, folder: &str) -> Self {
        let SampleSettings { steps, order, draw, .. } = SampleSettings::for_model(model);
        Self {
            model: Some(folder.to_string()),
            steps,
            temperature: draw.temperature,
            top_p: draw.top_p,
            top_k: draw.top_k,
            order: order.name().to_string(),
            ..self.clone()
        }
    }

    /// The seed of a generation that starts now.
    ///
    /// # Errors
    /// One sentence when the seed is not a number.
    pub fn seed(&self) -> Result<u64, String> {
        seed(&self.seed)
    }

    /// The task that fills the blanks of these parts. What is not set here is as in `defaults`.
    ///
    /// # Errors
    /// One sentence when a setting is out of range.
    pub fn task(&self, parts: Vec<Part>, seed: u64, defaults: SampleSettings) -> Result<Task, String> {
        let mut task = Task::new(TaskInput::Parts(parts));
        task.seed = seed;
        task.settings = SampleSettings {
            steps: self.steps,
            order: self.order.parse::<OrderKind>().map_err(|error| sentence(&error))?,
            draw: DrawSettings { temperature: self.temperature, top_k: self.top_k, top_p: self.top_p },
            ..defaults
        };
        task.settings.validate().map_err(|error| sentence(&error.to_string()))?;
        Ok(task)
    }
}

/// The seed that a text names; one from the clock for an empty text.
///
/// # Errors
/// One sentence when the text is not a number.
pub fn seed(text: &str) -> Result<u64, String> {
    match text.trim() {
        "" => Ok(new_seed()),
        text => text
            .parse()
            .map_err(|_| format!("The seed {text:?} is not a whole number; leave it empty for a new one each time.")),
    }
}

/// A seed from the clock: a short number, easy to copy by hand.
pub fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |time| u64::from(time.subsec_nanos()) ^ (time.as_secs() & 0xffff))
}

/// An error message as a sentence: without the dashes of command-line flags, with a capital letter and a full stop.
pub fn sentence(message: &str) -> String {
    let plain = message.replace("--", "");
    let mut letters = plain.trim().chars();
    let mut sentence: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_seed_comes_from_the_clock_and_an_invalid_one_is_an_error() {
        let seed = |text: &str| AppSettings { seed: text.to_string(), ..AppSettings::default() }.seed();
        assert_eq!(seed(" 42 "), Ok(42));
        assert!(seed("").is_ok());
        assert!(seed("4x").unwrap_err().contains("4x"));
    }

    #[test]
    fn the_defaults_make_a_task_and_invalid_settings_make_a_sentence() {
        let task = |settings: AppSettings| settings.task(vec![Part::Blank(3)], 7, SampleSettings::default());
        let plain = task(AppSettings::default()).unwrap();
        assert_eq!((plain.seed, plain.settings.steps, plain.n), (7, SampleSettings::default().steps, 1));
        let invalid = AppSettings { steps: 0, ..AppSettings::default() };
        assert_eq!(task(invalid).unwrap_err(), "Steps 0 must be at least 1.");
        let invalid = AppSettings { order: "diagonal".into(), ..AppSettings::default() };
        assert!(task(invalid).unwrap_err().starts_with("Diagonal is not an order"));
    }
}
