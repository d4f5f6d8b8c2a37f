//! The section `[teacher]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::objective::Objective;
use super::optim::check_number;

/// A masked model whose predictions the partition model learns beside the true tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherSection {
    /// The masked model: a model folder, or a training run: RUN, RUN@best, RUN@last or RUN@step-N.
    #[serde(default)]
    pub model: PathBuf,
    /// Weight of KL(teacher, model) at each position; the cross-entropy of the true token has weight 1.
    #[serde(default = "one")]
    pub weight: f64,
    /// Temperature T of both distributions in the KL, which is then multiplied by T squared.
    #[serde(default = "one")]
    pub temperature: f64,
}

fn one() -> f64 {
    1.0
}

impl TeacherSection {
    /// The section as `pgm-train config` prints it.
    pub(super) fn example() -> Self {
        Self { model: PathBuf::from("mdlm"), weight: one(), temperature: one() }
    }

    pub(super) fn validate(&self, objective: Objective) -> Result<(), String> {
        if objective != Objective::Partition {
            return Err(format!(
                "[teacher] has no effect with objective = \"{}\", only with partition; remove it",
                objective.name()
            ));
        }
        if self.model.as_os_str().is_empty() {
            return Err("teacher.model is missing; name the masked model that teaches, or remove [teacher]".to_string());
        }
        check_number(
            "teacher.weight",
            self.weight,
            self.weight > 0.0,
            "must be positive; without a teacher, remove [teacher]",
        )?;
        check_number("teacher.temperature", self.temperature, self.temperature > 0.0, "must be positive")
    }
}
