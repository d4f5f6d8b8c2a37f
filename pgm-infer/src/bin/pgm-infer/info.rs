//! `pgm-infer info`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use pgm_infer::{GenerationConfig, TextModel};
use pgm_model::model_folder;

use crate::devices::any_device;

#[derive(Args)]
pub struct InfoArgs {
    /// The model folder
    model: PathBuf,
}

/// Prints the configuration, the size and the sampler defaults of a model folder.
pub fn info(args: &InfoArgs) -> anyhow::Result<()> {
    let config = model_folder::load_config(&args.model)?;
    let (n_parameters, generation) = if config.image().is_some() {
        // A model of pictures has no tokenizer.
        let (_, network) = model_folder::load(&args.model, &any_device()?)?;
        (network.n_parameters(), GenerationConfig::read(&args.model.join(model_folder::GENERATION_FILE))?)
    } else {
        let model = TextModel::load(&args.model, &any_device()?)?;
        (model.n_parameters(), model.generation().clone())
    };
    let size = std::fs::metadata(args.model.join(model_folder::WEIGHTS_FILE))?.len();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string_pretty(&config)?)?;
    writeln!(out, "parameters: {}", n_parameters)?;
    writeln!(out, "weights: {:.1} MB", size as f64 / 1e6)?;
    writeln!(out, "sampler defaults: {}", serde_json::to_string(&generation)?)?;
    Ok(())
}
