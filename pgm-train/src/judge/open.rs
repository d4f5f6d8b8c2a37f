//! Opens a judge's folder of either kind.

use std::path::Path;

use burn::tensor::Device;
use pgm_model::model_folder;

use super::gpt2::Gpt2Judge;
use super::language_model::Judge;
use super::own::OwnJudge;
use crate::TrainError;

/// Opens a judge's folder: a GPT-2, or an autoregressive model of this project.
///
/// # Errors
/// As [`Gpt2Judge::load`] and [`OwnJudge::load`].
pub fn open(folder: &Path, device: &Device) -> Result<Box<dyn Judge>, TrainError> {
    if is_own(folder) {
        Ok(Box::new(OwnJudge::load(folder, device)?))
    } else {
        Ok(Box::new(Gpt2Judge::load(folder, device)?))
    }
}

/// Whether a folder holds a model of this project: its `config.json` has our format.
pub fn is_own(folder: &Path) -> bool {
    model_folder::load_config(folder).is_ok()
}
