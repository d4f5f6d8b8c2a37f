//! The file of `pgm-train fit`.

use std::path::Path;

use pgm_data::Manifest;
use pgm_model::model_folder::TRAINING_FILE;
use pgm_model::{ModelConfig, Sets};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::card::CardSection;
use super::model::ModelSection;
use super::objective::Objective;
use super::optim::{OptimSection, check_number};
use super::run::{RunConfig, at_least_one};
use super::teacher::TeacherSection;
use super::toml_file::{self, ConfigFile};
use crate::TrainError;

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// The loss.
    pub objective: Objective,
    /// Floor of 1 - t in the weight `1 / (1 - t)` of group 0; 0 is the unbounded weight of the public code. Only the
    /// objectives `partition` and `masked-complementary` have it.
    #[serde(default = "default_weight_floor")]
    pub weight_floor: f64,
    /// Probability that the class of a training row is replaced by "no class", which classifier-free guidance needs. It has
    /// an effect on pictures with labels only.
    #[serde(default = "default_class_dropout")]
    pub class_dropout: f64,
    /// Optimiser steps.
    pub steps: usize,
    /// Validations without a new lowest value after which the run ends; 0 never ends it early.
    #[serde(default)]
    pub patience: usize,
    /// Keys that a distillation has, too.
    #[serde(flatten)]
    pub run: RunConfig,
    /// The network.
    pub model: ModelSection,
    /// A masked model that teaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<TeacherSection>,
}

fn default_weight_floor() -> f64 {
    pgm_model::loss::EPS
}

fn default_class_dropout() -> f64 {
    0.1
}

impl TrainConfig {
    /// Reads a TOML file and puts `settings` (`key=value`, dotted keys) on top.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming the file or the setting, the key and what is wrong with it.
    pub fn load(path: &Path, settings: &[String]) -> Result<Self, TrainError> {
        toml_file::load(path, settings, &Table::new())
    }

    /// As [`load`](Self::load), for a run that starts from a model: `objective` and the keys of `[model]` that the file
    /// leaves out are those of `model`, with rows of `length` tokens.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_for_model(
        path: &Path,
        settings: &[String],
        model: &ModelConfig,
        length: usize,
    ) -> Result<Self, TrainError> {
        toml_file::load(path, settings, &base_of(model, length))
    }

    /// As [`load_for_model`](Self::load_for_model), for a run that is resumed: `objective` and the keys of `[model]` that the
    /// file leaves out are those that `folder`, a model folder of the run, records.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_for_run(path: &Path, settings: &[String], folder: &Path) -> Result<Self, TrainError> {
        #[derive(Deserialize)]
        struct Recorded {
            settings: RecordedSettings,
        }
        #[derive(Deserialize)]
        struct RecordedSettings {
            objective: Objective,
            model: ModelSection,
        }
        let record = std::fs::read(folder.join(TRAINING_FILE)).ok();
        let base = match record.and_then(|json| serde_json::from_slice::<Recorded>(&json).ok()) {
            Some(Recorded { settings }) => base_table(settings.objective, settings.model),
            None => Table::new(),
        };
        toml_file::load(path, settings, &base)
    }

    /// As [`load_for_model`](Self::load_for_model), from a text.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse_for_model(
        text: &str,
        settings: &[String],
        model: &ModelConfig,
        length: usize,
    ) -> Result<Self, TrainError> {
        toml_file::parse(text, "the configuration", settings, &base_of(model, length))
    }

    /// As [`load`](Self::load), from a text; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, origin: &str, settings: &[String]) -> Result<Self, TrainError> {
        toml_file::parse(text, origin, settings, &Table::new())
    }

    /// The network for data of that manifest.
    ///
    /// # Errors
    /// [`TrainError::Config`] when the row lengths differ, [`TrainError::Model`] for sizes that no model can have.
    pub fn model_config(&self, data: &Manifest) -> Result<ModelConfig, TrainError> {
        self.model.model_config(self.objective, data)
    }

    /// Sentences about values that are allowed but hardly meant, for the user to read before the run.
    pub fn warnings(&self) -> Vec<String> {
        self.run.warmup_warning("steps", self.steps).into_iter().collect()
    }

    /// Keys that a resumed run may change.
    pub(crate) fn free_keys(&self) -> Vec<&'static str> {
        RunConfig::FREE_ON_RESUME.into_iter().chain(["patience"]).collect()
    }
}

// What a configuration for a model need not say.
fn base_of(model: &ModelConfig, length: usize) -> Table {
    base_table(Objective::of(model), ModelSection { length, ..ModelSection::of(model) })
}

fn base_table(objective: Objective, section: ModelSection) -> Table {
    let section = Table::try_from(section).expect("a section always serialises");
    let objective = Value::String(objective.name().to_string());
    Table::from_iter([("objective".to_string(), objective), ("model".to_string(), Value::Table(section))])
}

impl ConfigFile for TrainConfig {
    const EXAMPLE: &str = "objective = \"partition\"\nsteps = 1000\nbatch = 16\n\
        [model]\nhidden = 128\nheads = 4\nencoder = 2\ndecoder = 2\nlength = 128\n";

    fn known_keys() -> Table {
        let mut all = Self { teacher: Some(TeacherSection::example()), ..Self::example() };
        all.run.card = CardSection::example();
        Table::try_from(all).expect("a configuration always serialises")
    }

    fn moved_key(table: &Table) -> Option<String> {
        if !table.contains_key("model") {
            let problem =
                "the section [model] is missing; add it, or start from a model with --init, which has its sizes";
            return Some(problem.to_string());
        }
        let optim = table.get("optim")?.as_table()?;
        optim.contains_key("weight_floor").then(|| {
            "optim.weight_floor is now weight_floor at the top level of the file, for the objectives that use it: \
             partition and masked-complementary"
                .to_string()
        })
    }

    fn rename_keys(table: &mut Table) -> Result<(), String> {
        OptimSection::rename_keys(table)
    }

    fn unused_key(&self, table: &Table) -> Option<String> {
        let unused = table.contains_key("weight_floor") && !self.objective.uses_weight_floor();
        unused.then(|| {
            "weight_floor has no effect with this objective, only with partition and masked-complementary; remove it"
                .to_string()
        })
    }

    fn remove_unused(&self, table: &mut Table) {
        if !self.objective.uses_weight_floor() {
            table.remove("weight_floor");
        }
    }

    fn validate(&self) -> Result<(), String> {
        at_least_one(&[("steps", self.steps)])?;
        check_number("weight_floor", self.weight_floor, self.weight_floor >= 0.0, "must be 0 or positive")?;
        let is_share = (0.0..=1.0).contains(&self.class_dropout);
        check_number("class_dropout", self.class_dropout, is_share, "must be between 0 and 1")?;
        let scale = self.model.embedding_scale;
        check_number("model.embedding_scale", scale, scale > 0.0 && scale.is_finite(), "must be positive")?;
        if self.objective == Objective::Maskgit && scale != 1.0 {
            return Err(
                "model.embedding_scale is not for maskgit, whose head has the weight of the embedding".to_string()
            );
        }
        if self.objective != Objective::Partition && self.model.sets != Sets::One {
            return Err("model.sets is for partition models; remove it, or set it to \"one\"".to_string());
        }
        self.teacher.as_ref().map_or(Ok(()), |teacher| teacher.validate(self.objective))?;
        self.run.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgm_model::Queries;

    const TOML: &str = "objective = \"partition\"\nsteps = 10\nbatch = 4\n[model]\nhidden = 32\nheads = 4\n\
                        encoder = 1\ndecoder = 1\nlength = 16\n[optim]\nlr = 1e-3\n";

    fn parse(settings: &[&str]) -> Result<TrainConfig, TrainError> {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_string()).collect();
        TrainConfig::parse(TOML, "run.toml", &settings)
    }

    #[test]
    fn settings_override_the_file_and_defaults_are_the_papers() {
        let config = parse(&[]).unwrap();
        let optim = &config.run.optim;
        assert_eq!((optim.lr, optim.warmup, optim.ema, config.weight_floor), (1e-3, 2500, 0.9999, 1e-3));
        let config = parse(&["objective=masked", "optim.lr=1", "model.queries=learn+freqs+mean", "seed = 7"]).unwrap();
        assert_eq!(config.objective, Objective::Masked);
        assert_eq!((config.run.optim.lr, config.run.seed, config.model.queries), (1.0, 7, Queries::LearnFreqsMean));
    }

    #[test]
    fn steps_below_the_warm_up_get_a_warning() {
        assert!(parse(&["optim.warmup=10"]).unwrap().warnings().is_empty());
        let warnings = parse(&["optim.warmup=40"]).unwrap().warnings();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("steps = 10 is less than optim.warmup = 40: "), "{warnings:?}");
        assert!(warnings[0].contains("25.0 % of optim.lr"), "{warnings:?}");
    }

    #[test]
    fn the_estimator_of_mdlm_needs_four_times() {
        assert_eq!(parse(&["validate_times=1"]).unwrap().run.validate_estimator, crate::NelboEstimator::AnyOrder);
        for (settings, says) in [
            (&["validate_times=0"][..], "validate_times = 0 must be at least 1"),
            (&["validate_estimator=mdlm", "validate_times=3"][..], "validate_times = 3 must be at least 4"),
            (&["validate_estimator=sedd"][..], "any-order"),
        ] {
            let message = parse(settings).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (setting, says) in [
            ("optim.learning_rate=1", "unknown key optim.learning_rate; the keys of [optim] are beta1"),
            ("model.width=1", "unknown key model.width"),
            ("steps=0", "steps = 0"),
            ("accumulate=3", "accumulate = 3"),
            ("optim.ema=1.0", "optim.ema = 1"),
            ("steps.more=1", "steps is a value"),
            ("steps", "key=value"),
            ("objective=both", "both"),
            ("batch=many", "batch"),
            ("weight_floor=-1", "weight_floor = -1"),
            ("class_dropout=1.5", "class_dropout = 1.5"),
            ("model.embedding_scale=0", "model.embedding_scale = 0 must be positive"),
            ("model.embedding_scale=inf", "model.embedding_scale = inf must be positive"),
        ] {
            let message = parse(&[setting]).unwrap_err().to_string();
            assert!(message.contains(says) && !message.contains('\n'), "{setting}: {message}");
        }
        let message = parse(&["objective=maskgit", "model.embedding_scale=5"]).unwrap_err().to_string();
        assert!(message.contains("model.embedding_scale is not for maskgit"), "{message}");
        let text = TOML.replace("steps", "step");
        let message = TrainConfig::parse(&text, "run.toml", &[]).unwrap_err().to_string();
        assert!(message.starts_with("run.toml: unknown key step; the keys are accumulate, batch, "), "{message}");
        let text = TOML.replace("steps = 10\n", "");
        let message = TrainConfig::parse(&text, "run.toml", &[]).unwrap_err().to_string();
        assert!(message.contains("missing field `steps`"), "{message}");
    }

    #[test]
    fn a_teacher_is_named_and_teaches_partition_models() {
        assert_eq!(parse(&[]).unwrap().teacher, None);
        let teacher = parse(&["teacher.model=runs/mdlm@best", "teacher.weight=2"]).unwrap().teacher.unwrap();
        assert_eq!((teacher.model.to_str(), teacher.weight, teacher.temperature), (Some("runs/mdlm@best"), 2.0, 1.0));
        for (settings, says) in [
            (&["teacher.weight=2"][..], "teacher.model is missing"),
            (&["teacher.model=m", "teacher.weight=0"], "teacher.weight = 0 must be positive"),
            (&["teacher.model=m", "teacher.weight=inf"], "teacher.weight = inf must be positive"),
            (&["teacher.model=m", "teacher.temperature=-1"], "teacher.temperature = -1 must be positive"),
            (&["teacher.model=m", "teacher.steps=2"], "unknown key teacher.steps; the keys of [teacher] are model, "),
            (&["teacher=m"], "teacher"),
            (&["teacher.model=m", "objective=masked"], "[teacher] has no effect with objective = \"masked\""),
        ] {
            let message = parse(settings).unwrap_err().to_string();
            assert!(message.contains(says) && !message.contains('\n'), "{settings:?}: {message}");
        }
    }

    #[test]
    fn the_weight_floor_belongs_to_the_objectives_that_use_it() {
        for objective in ["partition", "masked-complementary"] {
            let config = parse(&[&format!("objective={objective}"), "weight_floor=0.5"]).unwrap();
            assert_eq!(config.weight_floor, 0.5);
        }
        for objective in ["masked", "autoregressive", "maskgit"] {
            let message = parse(&[&format!("objective={objective}"), "weight_floor=0.5"]).unwrap_err().to_string();
            assert!(message.contains("weight_floor has no effect"), "{message}");
        }
        let old = format!("{TOML}weight_floor = 1e-3\n");
        let message = TrainConfig::parse(&old, "run.toml", &[]).unwrap_err().to_string();
        assert!(message.starts_with("run.toml: optim.weight_floor is now weight_floor at the top level"), "{message}");
    }
}
