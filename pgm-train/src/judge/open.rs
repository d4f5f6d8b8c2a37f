//! Opens a judge's folder of either kind.

use std::path::Path;

use burn::tensor::Device;
use pgm_model::model_folder::{self, TOKENIZER_FILE, WEIGHTS_FILE};
use serde_json::{Value, json};

use super::gpt2::Gpt2Judge;
use super::language_model::Judge;
use super::own::OwnJudge;
use crate::{TrainError, files};

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

/// Identifies a judge in results: the checksums of its weights and its tokenizer.
///
/// # Errors
/// Names the file that cannot be read.
pub fn identity(folder: &Path) -> Result<Value, TrainError> {
    let folder = model_folder::resolve(folder)?;
    let checksum = |name: &str| {
        let path = folder.join(name);
        let (_, crc32) = files::fingerprint(&path).map_err(|error| TrainError::file("read", &path, error))?;
        Ok::<_, TrainError>(format!("{crc32:08x}"))
    };
    Ok(json!({ "weights_crc32": checksum(WEIGHTS_FILE)?, "tokenizer_crc32": checksum(TOKENIZER_FILE)? }))
}

/// Whether a folder holds a model of this project: its `config.json` has our format.
pub fn is_own(folder: &Path) -> bool {
    model_folder::load_config(folder).is_ok()
}
