//! What a frontier compares: models, ways to sample, and what each curve sweeps.

use std::path::Path;

use burn::tensor::Device;
use pgm_data::DataFolder;
use pgm_infer::OrderKind;
use pgm_infer::sample::Refresh;
use pgm_model::ModelConfig;
use pgm_model::model_folder::resolve;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::generative::GenerativeSettings;
use super::super::model::{EvalModel, kind, same_tokenizer};
use crate::TrainError;
use crate::judge::{self, CLUSTERINGS, Judge, Pooling};

/// Settings of [`frontier`](super::frontier()).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontierSettings {
    /// Temperatures. They are the points of a curve, unless there is one and several [`top_ps`](Self::top_ps).
    pub temperatures: Vec<f64>,
    /// Shares of probability that are kept. Each has curves of its own, unless there is one temperature.
    pub top_ps: Vec<f64>,
    /// Numbers of sampling steps; each has a curve. An autoregressive model has one curve, of one token a step.
    pub steps: Vec<usize>,
    /// Samples of each point, and held-out rows.
    pub samples: usize,
    /// The order of all models but autoregressive ones.
    pub order: OrderKind,
    /// The split of the held-out rows: "validation" or "train".
    pub split: String,
    /// Seed of the first sample, the choice of the rows, the bootstrap and MAUVE's k-means.
    pub seed: u64,
    /// Samples of a batch; the wall time of a sample depends on it.
    pub batch: usize,
    /// Timed batches of each curve, after one that is not timed.
    pub runs: usize,
    /// The wall time of a sample at which the models are compared. Absent: the least at which every model has a curve.
    pub seconds: Option<f64>,
    /// Which hidden states of the judge are MAUVE's features.
    pub pooling: Pooling,
    /// Clusterings of each MAUVE.
    pub clusterings: usize,
}

impl Default for FrontierSettings {
    fn default() -> Self {
        Self {
            temperatures: vec![0.6, 0.7, 0.8, 0.9, 1.0],
            top_ps: vec![1.0],
            steps: vec![16, 32, 64, 128],
            samples: 256,
            order: OrderKind::default(),
            split: "validation".to_string(),
            seed: 0,
            batch: 8,
            runs: 3,
            seconds: None,
            pooling: Pooling::default(),
            clusterings: CLUSTERINGS,
        }
    }
}

impl FrontierSettings {
    /// Checks the settings, and sorts the lists: temperatures and top-p from the highest, steps from the fewest; equal values
    /// count once.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming the flag.
    pub(super) fn checked(&self) -> Result<Self, TrainError> {
        let fail = |problem: String| Err(TrainError::Config { origin: "eval frontier".to_string(), problem });
        let mut found = self.clone();
        for (flag, values) in [("--temperature", &mut found.temperatures), ("--top-p", &mut found.top_ps)] {
            if values.is_empty() {
                return fail(format!("{flag} has no value"));
            }
            if let Some(wrong) = values.iter().find(|value| !(value.is_finite() && **value > 0.0)) {
                return fail(format!("{flag} has {wrong}; a value must be a number above 0"));
            }
            values.sort_by(|a, b| b.total_cmp(a));
            values.dedup();
        }
        if let Some(wrong) = found.top_ps.iter().find(|value| **value > 1.0) {
            return fail(format!("--top-p has {wrong}; a value must be at most 1"));
        }
        if found.steps.is_empty() || found.steps.contains(&0) {
            return fail("--steps must be at least 1".to_string());
        }
        found.steps.sort_unstable();
        found.steps.dedup();
        if let Some(wrong) = found.seconds.filter(|seconds| !(seconds.is_finite() && *seconds > 0.0)) {
            return fail(format!("--seconds is {wrong}; it must be a number above 0"));
        }
        for (flag, value, least) in [
            ("-n", found.samples, 2),
            ("--batch", found.batch, 1),
            ("--runs", found.runs, 1),
            ("--clusterings", found.clusterings, 1),
        ] {
            if value < least {
                return fail(format!("{flag} is {value}; it must be at least {least}"));
            }
        }
        if !["validation", "train"].contains(&found.split.as_str()) {
            return fail(format!("--split is {}; it is validation or train", found.split));
        }
        found.batch = found.batch.min(found.samples);
        Ok(found)
    }

    // Whether the points of a curve differ in top-p.
    pub(super) fn sweeps_top_p(&self) -> bool {
        self.temperatures.len() == 1 && self.top_ps.len() > 1
    }
}

/// A model of a frontier.
#[derive(Debug)]
pub struct FrontierModel {
    /// Its name in tables and plots, and the beginning of its files' names.
    pub name: String,
    /// The model.
    pub model: EvalModel,
    /// How often a partition model encodes clean tokens anew; as in training, if nothing is said.
    pub refresh: Option<Refresh>,
}

/// The judge of a frontier, whose hidden states are also MAUVE's features.
pub struct FrontierJudge {
    pub(super) judge: Box<dyn Judge>,
    pub(super) name: String,
    pub(super) identity: Value,
    pub(super) same_tokens: bool,
}

impl FrontierJudge {
    /// Opens a judge's folder, see [`judge::open`], to judge samples of models of `data`'s tokenizer.
    ///
    /// # Errors
    /// As [`judge::open`], and for data without a tokenizer.
    pub fn open(folder: &Path, data: &DataFolder, device: &Device) -> Result<Self, TrainError> {
        let same_tokens = same_tokenizer(&resolve(folder)?, data.tokenizer()?.json())?;
        Ok(Self {
            judge: judge::open(&resolve(folder)?, device)?,
            name: folder.display().to_string(),
            identity: judge::identity(folder)?,
            same_tokens,
        })
    }

    /// What MAUVE's features are; see [`judge::feature_name`].
    pub(super) fn features(&self, pooling: Pooling) -> String {
        judge::feature_name(self.judge.as_ref(), pooling)
    }
}

/// How the samples of a curve are drawn, but for the temperature and top-p. A further setting of a sampler becomes a field
/// here, a part of the label and of the files' names, and a list in [`FrontierSettings`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Variant {
    /// The model's name.
    pub model: String,
    /// The model's kind: partition, masked or autoregressive.
    pub kind: String,
    /// Sampling steps; absent for an autoregressive model.
    pub steps: Option<usize>,
    /// How often clean tokens are encoded anew; as in training, if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
}

impl Variant {
    // The variants of a model, from the fewest steps.
    pub(super) fn of(model: &FrontierModel, settings: &FrontierSettings) -> Vec<Self> {
        let config = model.model.text_model().config();
        let steps = match config {
            ModelConfig::Autoregressive(_) => vec![None],
            _ => settings.steps.iter().map(|&steps| Some(steps)).collect(),
        };
        let (name, kind, refresh) = (&model.name, kind(config), model.refresh);
        let variant = |steps| Self { model: name.clone(), kind: kind.to_string(), steps, refresh };
        steps.into_iter().map(variant).collect()
    }

    /// The name of a curve.
    pub fn label(&self) -> String {
        match self.steps {
            Some(steps) => format!("{}, {}", self.model, steps_of(steps)),
            None => self.model.clone(),
        }
    }

    /// The number of steps in a table.
    pub fn steps_cell(&self) -> String {
        self.steps.map_or("one a token".to_string(), |steps| steps.to_string())
    }

    // The settings of a point's samples.
    pub(super) fn sampling(&self, settings: &FrontierSettings, length: usize, draw: Draw) -> GenerativeSettings {
        GenerativeSettings {
            samples: settings.samples,
            length,
            steps: self.steps.unwrap_or(length - 1),
            order: if self.steps.is_some() { settings.order } else { OrderKind::default() },
            temperature: draw.temperature,
            top_k: 0,
            top_p: draw.top_p,
            refresh: self.refresh,
            seed: settings.seed,
            batch: settings.batch,
        }
    }

    // The name of a point's files.
    pub(super) fn file_name(&self, draw: Draw) -> String {
        let steps = self.steps.map_or(String::new(), |steps| format!("-s{steps}"));
        format!("{}{steps}-t{}-p{}", file_part(&self.model), draw.temperature, draw.top_p)
    }
}

/// "1 step", "8 steps".
pub(super) fn steps_of(steps: usize) -> String {
    if steps == 1 { "1 step".to_string() } else { format!("{steps} steps") }
}

/// How tokens are drawn at a point.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draw {
    /// The temperature divides the logits.
    pub temperature: f64,
    /// The smallest set of tokens that holds this probability is kept.
    pub top_p: f64,
}

/// The draws of each curve of a variant, from the highest temperature or top-p.
pub(super) fn draws(settings: &FrontierSettings) -> Vec<Vec<Draw>> {
    let curve = |top_p: f64| {
        let temperatures = settings.temperatures.iter();
        temperatures.map(|&temperature| Draw { temperature, top_p }).collect::<Vec<_>>()
    };
    if settings.sweeps_top_p() {
        vec![settings.top_ps.iter().map(|&top_p| Draw { temperature: settings.temperatures[0], top_p }).collect()]
    } else {
        settings.top_ps.iter().map(|&top_p| curve(top_p)).collect()
    }
}

/// Checks that the models have names of their own that can be files' names, and that the data was prepared for them.
pub(super) fn check_models(models: &[FrontierModel], data: &DataFolder) -> Result<(), TrainError> {
    let fail = |problem: String| Err(TrainError::Config { origin: "--model".to_string(), problem });
    if models.is_empty() {
        return fail("is missing; give at least one model".to_string());
    }
    for (index, model) in models.iter().enumerate() {
        if model.name.is_empty() || model.name.chars().count() > 80 || model.name.contains(char::is_control) {
            return fail(format!("{:?} is no name; give one of 1 to 80 letters, as --model NAME=FOLDER", model.name));
        }
        if let Some(other) = models[..index].iter().find(|other| file_part(&other.name) == file_part(&model.name)) {
            let (name, other) = (&model.name, &other.name);
            return fail(format!("two models have the names {other} and {name}; name them, as --model NAME=FOLDER"));
        }
        model.model.check_data(data)?;
    }
    Ok(())
}

// A name as a part of a file's name: letters, digits and a few signs stay. Letters become small, as some file systems do not
// tell them apart.
fn file_part(name: &str) -> String {
    let allowed = |c: char| c.is_alphanumeric() || "._@+-".contains(c);
    name.to_lowercase().chars().map(|c| if allowed(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_wrong_values_are_named() {
        let settings = FrontierSettings {
            temperatures: vec![0.5, 1.0, 0.5],
            steps: vec![32, 8, 32],
            samples: 6,
            batch: 16,
            ..FrontierSettings::default()
        };
        let checked = settings.checked().unwrap();
        assert_eq!((checked.temperatures, checked.steps, checked.batch), (vec![1.0, 0.5], vec![8, 32], 6));
        let message = |settings: FrontierSettings| settings.checked().unwrap_err().to_string();
        let wrong: [(FrontierSettings, &str); 8] = [
            (FrontierSettings { temperatures: vec![1.0, 0.0], ..settings.clone() }, "--temperature has 0"),
            (FrontierSettings { temperatures: vec![], ..settings.clone() }, "--temperature has no value"),
            (FrontierSettings { top_ps: vec![1.5], ..settings.clone() }, "--top-p has 1.5"),
            (FrontierSettings { top_ps: vec![f64::NAN], ..settings.clone() }, "--top-p has NaN"),
            (FrontierSettings { steps: vec![4, 0], ..settings.clone() }, "--steps must be at least 1"),
            (FrontierSettings { seconds: Some(-1.0), ..settings.clone() }, "--seconds is -1"),
            (FrontierSettings { samples: 1, ..settings.clone() }, "-n is 1; it must be at least 2"),
            (FrontierSettings { split: "test".into(), ..settings.clone() }, "--split is test"),
        ];
        for (settings, expected) in wrong {
            assert!(message(settings.clone()).contains(expected), "{}", message(settings));
        }
    }

    #[test]
    fn curves_sweep_the_temperature_or_with_one_of_it_top_p() {
        let settings =
            FrontierSettings { temperatures: vec![1.0, 0.8], top_ps: vec![1.0, 0.9], ..FrontierSettings::default() };
        let at = |temperature, top_p| Draw { temperature, top_p };
        let curves = draws(&settings);
        assert_eq!(curves, [vec![at(1.0, 1.0), at(0.8, 1.0)], vec![at(1.0, 0.9), at(0.8, 0.9)]]);
        let one = FrontierSettings { temperatures: vec![0.7], ..settings };
        assert_eq!(draws(&one), [vec![at(0.7, 1.0), at(0.7, 0.9)]]);
    }

    #[test]
    fn names_of_files_tell_models_and_points_apart() {
        let variant = |steps| Variant { model: "My model/2".into(), kind: "masked".into(), steps, refresh: None };
        let draw = Draw { temperature: 0.75, top_p: 1.0 };
        assert_eq!(variant(Some(8)).file_name(draw), "my_model_2-s8-t0.75-p1");
        assert_eq!(variant(None).file_name(draw), "my_model_2-t0.75-p1");
        assert_eq!(
            (variant(Some(1)).label().as_str(), variant(None).label().as_str()),
            ("My model/2, 1 step", "My model/2")
        );
    }
}
