//! What can be set, as it is kept between runs, and the task it makes.
//!
//! The seed stays text: empty means a new one each time, which no number can say. Names of orders and devices stay text,
//! too, so that a file written by a program with other backends can still be read.

use std::time::{SystemTime, UNIX_EPOCH};

use pgm_infer::engine::{Task, TaskInput};
use pgm_infer::text::template::Part;
use pgm_infer::{DrawSettings, OrderKind, SampleSettings};
use serde::{Deserialize, Serialize};

/// The settings of the side panel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Steps of a generation.
    pub steps: usize,
    /// Divides the logits.
    pub temperature: f64,
    /// Keeps the smallest set of tokens that holds this probability; 1 keeps all.
    pub top_p: f64,
    /// Keeps the k most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// One of [`OrderKind::NAMES`].
    pub order: String,
    /// A number, or nothing for one from the clock.
    pub seed: String,
    /// A name as [`DeviceName`](pgm_infer::device::DeviceName) reads it.
    pub device: String,
    /// Tokens of a blank that is inserted, and of a `___`.
    pub blank: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            steps: 64,
            temperature: 0.8,
            top_p: 0.95,
            top_k: 0,
            order: OrderKind::default().name().to_string(),
            seed: String::new(),
            device: "auto".to_string(),
            blank: 12,
        }
    }
}

impl Settings {
    /// The seed that a generation would have now.
    ///
    /// # Errors
    /// One sentence when it is no number.
    pub fn seed(&self) -> Result<u64, String> {
        match self.seed.trim() {
            // Short enough to be read aloud.
            "" => Ok(SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| u64::from(time.subsec_nanos()) ^ (time.as_secs() & 0xffff))),
            text => text.parse().map_err(|_| {
                format!("The seed {text:?} is not a whole number; leave it empty for a new one each time.")
            }),
        }
    }

    /// The task that fills these parts.
    ///
    /// # Errors
    /// One sentence when a setting is out of range.
    pub fn task(&self, parts: Vec<Part>, seed: u64) -> Result<Task, String> {
        let mut task = Task::new(TaskInput::Parts(parts));
        task.seed = seed;
        task.settings = SampleSettings {
            steps: self.steps,
            order: self.order.parse::<OrderKind>().map_err(|error| sentence(&error))?,
            draw: DrawSettings { temperature: self.temperature, top_k: self.top_k, top_p: self.top_p },
            ..SampleSettings::default()
        };
        task.settings.validate().map_err(|error| sentence(&error.to_string()))?;
        Ok(task)
    }
}

/// A message of the libraries as a sentence of a window: without the commands' dashes, with a capital and a full stop.
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
    fn an_empty_seed_comes_from_the_clock_and_a_wrong_one_is_said() {
        let seed = |text: &str| Settings { seed: text.to_string(), ..Settings::default() }.seed();
        assert_eq!(seed(" 42 "), Ok(42));
        assert!(seed("").is_ok());
        assert!(seed("4x").unwrap_err().contains("4x"));
    }

    #[test]
    fn the_defaults_make_a_task_and_nonsense_makes_a_sentence() {
        let task = Settings::default().task(vec![Part::Blank(3)], 7).unwrap();
        assert_eq!((task.seed, task.settings.steps, task.n), (7, 64, 1));
        let wrong = Settings { steps: 0, ..Settings::default() };
        assert_eq!(wrong.task(Vec::new(), 0).unwrap_err(), "Steps 0 must be at least 1.");
        let wrong = Settings { order: "diagonal".into(), ..Settings::default() };
        assert!(wrong.task(Vec::new(), 0).unwrap_err().starts_with("Diagonal is no order"));
    }
}
