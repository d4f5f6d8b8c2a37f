//! The file of `pgm-train distill`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Table;

use super::card::CardSection;
use super::optim::{OptimSection, check_number};
use super::run::{RunConfig, at_least_one};
use super::toml_file::{self, ConfigFile};
use crate::TrainError;

/// The divergence of student and teacher at a position; the class of the mask is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Divergence {
    /// KL(student, teacher): the student drops what the teacher finds improbable.
    #[default]
    BackwardKl,
    /// KL(teacher, student): the student covers what the teacher finds probable.
    ForwardKl,
    /// Total variation distance: half the sum of absolute differences of probabilities.
    Tvd,
    /// Mean squared difference of log-probabilities.
    Mse,
}

/// Which groups of a row are predicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetGroups {
    /// Group 1, as in the paper.
    #[default]
    One,
    /// Each group in turn: group 0 is masked at time 1 - t.
    Both,
}

/// Which weights of a round's student teach the next round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TeacherWeights {
    /// The moving average, which then starts anew.
    #[default]
    Ema,
    /// The weights of the optimiser; the average continues.
    Raw,
}

/// A distillation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DistillConfig {
    /// Rounds; fewer when `min_steps` ends them.
    pub rounds: usize,
    /// Optimiser steps of each round.
    pub round_steps: usize,
    /// Sampling steps of the first teacher: one of its steps is `1 / teacher_steps` of the time.
    #[serde(default = "default::teacher_steps")]
    pub teacher_steps: usize,
    /// Temperature of the sampling that is distilled: teacher and student predict at it.
    #[serde(default = "default::temperature")]
    pub temperature: f64,
    /// Teacher steps that the student learns to do in one. Each round multiplies the teacher's step by this number.
    #[serde(default = "default::steps_at_once")]
    pub steps_at_once: usize,
    /// No round begins whose student would sample in fewer steps.
    #[serde(default = "default::min_steps")]
    pub min_steps: usize,
    /// How the predictions of student and teacher are compared.
    #[serde(default)]
    pub divergence: Divergence,
    /// Which groups of a row are predicted.
    #[serde(default)]
    pub targets: TargetGroups,
    /// Which weights of a round's student teach the next round.
    #[serde(default)]
    pub teacher_weights: TeacherWeights,
    /// Whether each round begins with a new optimiser and a new warm-up.
    #[serde(default)]
    pub restart_optimiser: bool,
    /// Keys that a training run has, too.
    #[serde(flatten)]
    pub run: RunConfig,
}

mod default {
    pub(super) fn teacher_steps() -> usize {
        1024
    }
    pub(super) fn temperature() -> f64 {
        1.0
    }
    pub(super) fn steps_at_once() -> usize {
        2
    }
    pub(super) fn min_steps() -> usize {
        8
    }
}

impl DistillConfig {
    /// Reads a TOML file and puts `settings` (`key=value`, dotted keys) on top.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming the file or the setting, the key and what is wrong with it.
    pub fn load(path: &Path, settings: &[String]) -> Result<Self, TrainError> {
        toml_file::load(path, settings, &Table::new())
    }

    /// As [`load`](Self::load), from a text; `origin` names it in errors.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str, origin: &str, settings: &[String]) -> Result<Self, TrainError> {
        toml_file::parse(text, origin, settings, &Table::new())
    }

    /// Sampling steps of the teacher and of the student in each round.
    pub fn schedule(&self) -> Vec<(usize, usize)> {
        let mut teacher = self.teacher_steps;
        let mut rounds = Vec::new();
        while rounds.len() < self.rounds && teacher / self.steps_at_once >= self.min_steps {
            let student = teacher / self.steps_at_once;
            rounds.push((teacher, student));
            teacher = student;
        }
        rounds
    }

    /// Sentences about values that are allowed but hardly meant, for the user to read before the run.
    pub fn warnings(&self) -> Vec<String> {
        let (n_rounds, each) = (self.schedule().len(), self.round_steps);
        let rounds = (n_rounds < self.rounds).then(|| {
            format!(
                "only {n_rounds} of rounds = {} fit: each round divides the sampling steps by steps_at_once = {}, from \
                 teacher_steps = {}, and no student has fewer than min_steps = {} steps; raise teacher_steps or lower \
                 min_steps for more rounds",
                self.rounds, self.steps_at_once, self.teacher_steps, self.min_steps
            )
        });
        let warmup = if self.restart_optimiser {
            self.run.warmup_warning("round_steps", each)
        } else {
            self.run.warmup_warning("round_steps times rounds", n_rounds * each)
        };
        rounds.into_iter().chain(warmup).collect()
    }

    /// Keys that a resumed distillation may change.
    pub(crate) fn free_keys(&self) -> Vec<&'static str> {
        RunConfig::FREE_ON_RESUME.to_vec()
    }

    /// Steps over which the learning rate's schedule runs: those of a round, or of all rounds.
    pub(crate) fn schedule_steps(&self) -> usize {
        let n_rounds = if self.restart_optimiser { 1 } else { self.schedule().len() };
        n_rounds * self.round_steps
    }
}

impl ConfigFile for DistillConfig {
    const EXAMPLE: &str = "rounds = 5\nround_steps = 1000\nbatch = 16\n";

    fn known_keys() -> Table {
        let mut all = Self::example();
        all.run.card = CardSection::example();
        Table::try_from(all).expect("a configuration always serialises")
    }

    fn rename_keys(table: &mut Table) -> Result<(), String> {
        OptimSection::rename_keys(table)
    }

    fn moved_key(table: &Table) -> Option<String> {
        let in_optim = table.get("optim").and_then(toml::Value::as_table);
        let key = match in_optim.is_some_and(|optim| optim.contains_key("weight_floor")) {
            true => "optim.weight_floor",
            false if table.contains_key("weight_floor") => "weight_floor",
            false => return None,
        };
        Some(format!("{key} has no effect in a distillation, whose loss has no such weight; remove it"))
    }

    fn unused_key(&self, _table: &Table) -> Option<String> {
        None
    }

    fn validate(&self) -> Result<(), String> {
        at_least_one(&[
            ("rounds", self.rounds),
            ("round_steps", self.round_steps),
            ("teacher_steps", self.teacher_steps),
            ("steps_at_once", self.steps_at_once),
            ("min_steps", self.min_steps),
        ])?;
        check_number("temperature", self.temperature, self.temperature > 0.0, "must be positive")?;
        self.run.validate()?;
        if self.schedule().is_empty() {
            return Err(format!(
                "teacher_steps = {} leaves the first student fewer than min_steps = {} steps",
                self.teacher_steps, self.min_steps
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOML: &str = "rounds = 5\nround_steps = 4\nbatch = 2\n";

    fn parse(settings: &[&str]) -> Result<DistillConfig, TrainError> {
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_string()).collect();
        DistillConfig::parse(TOML, "test", &settings)
    }

    #[test]
    fn rounds_halve_the_steps_until_there_are_too_few() {
        let schedule = |settings: &[&str]| parse(settings).map(|config| config.schedule());
        assert_eq!(schedule(&[]).unwrap(), [(1024, 512), (512, 256), (256, 128), (128, 64), (64, 32)]);
        assert_eq!(schedule(&["teacher_steps=32"]).unwrap(), [(32, 16), (16, 8)]);
        assert_eq!(schedule(&["teacher_steps=64", "steps_at_once=4"]).unwrap(), [(64, 16)]);
        assert_eq!(schedule(&["rounds=2", "steps_at_once=1"]).unwrap(), [(1024, 1024); 2]);
        let message = schedule(&["teacher_steps=15"]).unwrap_err().to_string();
        assert!(message.contains("teacher_steps = 15"), "{message}");
    }

    #[test]
    fn rounds_that_do_not_fit_and_a_long_warm_up_get_a_warning() {
        let warnings = |settings: &[&str]| parse(settings).unwrap().warnings();
        assert!(warnings(&["optim.warmup=20"]).is_empty());
        let capped = warnings(&["rounds=20", "optim.warmup=0"]);
        assert_eq!(capped.len(), 1);
        assert!(
            capped[0].starts_with("only 7 of rounds = 20 fit: ") && capped[0].contains("min_steps = 8"),
            "{capped:?}"
        );
        assert!(warnings(&["optim.warmup=21"])[0].starts_with("round_steps times rounds = 20 is less than"));
        assert!(warnings(&["optim.warmup=5", "restart_optimiser=true"])[0].starts_with("round_steps = 4 is less than"));
    }

    #[test]
    fn a_temperature_is_positive() {
        assert_eq!(parse(&["temperature=0.5"]).unwrap().temperature, 0.5);
        let message = parse(&["temperature=0.0"]).unwrap_err().to_string();
        assert!(message.contains("temperature = 0 must be positive"), "{message}");
    }

    #[test]
    fn a_weight_floor_is_refused() {
        for setting in ["optim.weight_floor=1e-3", "weight_floor=1e-3"] {
            let message = parse(&[setting]).unwrap_err().to_string();
            assert!(message.contains("weight_floor has no effect in a distillation"), "{setting}: {message}");
        }
        assert!(parse(&["objective=masked"]).unwrap_err().to_string().contains("unknown key objective"));
    }
}
