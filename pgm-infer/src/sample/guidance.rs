//! Classifier-free guidance: how much a row's class counts in a step.
//!
//! With weight w the logits are `(1 + w) * logits of the class - w * logits of no class`. Both come from one evaluation of
//! the network, in which a guided row stands twice; a row of weight 0 stands once.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::InferError;

/// How much a row's class counts, over the steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guidance {
    /// The weight; 0 is none.
    pub weight: f64,
    /// How the weight changes from step to step.
    pub schedule: GuidanceSchedule,
}

/// How the weight of guidance changes from step to step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuidanceSchedule {
    /// The same in every step, as in the public sampler of MaskGIT.
    #[default]
    Constant,
    /// From 0 in the first step to the weight in the last, as in the public samplers of PGM.
    Linear,
}

impl GuidanceSchedule {
    /// Names, as the command takes them.
    pub const NAMES: [&'static str; 2] = ["constant", "linear"];

    /// The schedule's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Linear => "linear",
        }
    }
}

impl FromStr for GuidanceSchedule {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "constant" => Ok(Self::Constant),
            "linear" => Ok(Self::Linear),
            _ => Err(format!("{name} is not a schedule of guidance; they are {}", Self::NAMES.join(", "))),
        }
    }
}

/// The largest weight: logits times more than this are no numbers any more.
pub const MAX_WEIGHT: f64 = 1000.0;

impl Guidance {
    /// The weight in step `step` (from 0) of `n_steps`. A single step has the whole weight.
    pub fn weight_at(&self, step: usize, n_steps: usize) -> f64 {
        match self.schedule {
            GuidanceSchedule::Linear if n_steps > 1 => self.weight * (step as f64 / (n_steps - 1) as f64).min(1.0),
            GuidanceSchedule::Constant | GuidanceSchedule::Linear => self.weight,
        }
    }

    /// Checks the range.
    ///
    /// # Errors
    /// [`InferError::Setting`] naming the flag.
    pub fn validate(&self) -> Result<(), InferError> {
        if (0.0..=MAX_WEIGHT).contains(&self.weight) {
            return Ok(());
        }
        let (name, value) = ("--cfg", self.weight.to_string());
        Err(InferError::Setting { name, value, problem: "must lie between 0 and 1000" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_weight_rises_from_zero_and_one_step_has_all_of_it() {
        let weights = |schedule, n_steps: usize| -> Vec<f64> {
            (0..n_steps).map(|step| Guidance { weight: 2.0, schedule }.weight_at(step, n_steps)).collect()
        };
        assert_eq!(weights(GuidanceSchedule::Linear, 5), [0.0, 0.5, 1.0, 1.5, 2.0]);
        assert_eq!(weights(GuidanceSchedule::Linear, 1), [2.0]);
        assert_eq!(weights(GuidanceSchedule::Constant, 3), [2.0; 3]);
        let late = Guidance { weight: 2.0, schedule: GuidanceSchedule::Linear };
        assert_eq!(late.weight_at(9, 5), 2.0, "steps after the planned ones");
        for name in GuidanceSchedule::NAMES {
            let json = serde_json::to_value(name.parse::<GuidanceSchedule>().unwrap()).unwrap();
            assert_eq!((json, name.parse::<GuidanceSchedule>().unwrap().name()), (name.into(), name));
        }
        for weight in [-0.1, f64::NAN, f64::INFINITY] {
            assert!(Guidance { weight, ..late }.validate().unwrap_err().to_string().contains("--cfg"));
        }
    }
}
