//! `pgm-infer info`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use pgm_infer::TextModel;
use pgm_model::model_folder;

use crate::devices::any_device;

#[derive(Args)]
pub struct InfoArgs {
    /// The model folder
    model: PathBuf,
}

/// Prints the configuration, the size and the sampler defaults of a model folder.
pub fn info(args: &InfoArgs) -> anyhow::Result<()> {
    let model = TextModel::load(&args.model, &any_device()?)?;
    let size = std::fs::metadata(args.model.join(model_folder::WEIGHTS_FILE))?.len();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string_pretty(model.config())?)?;
    writeln!(out, "parameters: {}", model.n_parameters())?;
    writeln!(out, "weights: {:.1} MB", size as f64 / 1e6)?;
    writeln!(out, "sampler defaults: {}", serde_json::to_string(model.generation())?)?;
    Ok(())
}
