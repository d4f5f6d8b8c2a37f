//! `pgm-infer info`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use pgm_infer::{GenerationConfig, TextModel};
use pgm_model::{EncodedRow, ModelConfig, model_folder};

use crate::devices::{any_device, model_path};

#[derive(Args)]
pub struct InfoArgs {
    /// The model folder, a training run (RUN, RUN@best, RUN@last, RUN@step-N), or a bundled model: demo or
    /// demo-digits
    #[arg(value_parser = model_path)]
    model: PathBuf,
}

/// Prints the configuration, the size, the sampler defaults and the training of a model folder.
pub fn info(args: &InfoArgs) -> anyhow::Result<()> {
    let folder = model_folder::resolve(&args.model)?;
    let config = model_folder::load_config(&folder)?;
    let (n_parameters, generation) = if config.image().is_some() {
        // A model of pictures has no tokenizer.
        let (_, network) = model_folder::load(&folder, &any_device()?)?;
        (network.n_parameters(), GenerationConfig::read(&folder.join(model_folder::GENERATION_FILE))?)
    } else {
        let model = TextModel::load(&folder, &any_device()?)?;
        (model.n_parameters(), model.generation().clone())
    };
    let size = std::fs::metadata(folder.join(model_folder::WEIGHTS_FILE))?.len();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string_pretty(&config)?)?;
    writeln!(out, "parameters: {}", n_parameters)?;
    writeln!(out, "weights: {:.1} MB", size as f64 / 1e6)?;
    let megabytes = n_parameters as f64 * 4.0 / 1e6;
    writeln!(out, "memory: {megabytes:.1} MB of f32 weights on each device of serve, and what --cache-mib allows")?;
    writeln!(out, "sampler defaults: {}", serde_json::to_string(&generation)?)?;
    if let ModelConfig::Partition(config) = &config {
        let n_bytes = EncodedRow::bytes_per_token(config);
        let row = n_bytes * config.backbone.length;
        writeln!(out, "kept encodings (--refresh): {n_bytes} bytes a token, {:.1} MB a row", row as f64 / 1e6)?;
    }
    if folder != args.model {
        writeln!(out, "folder: {}", folder.display())?;
    }
    if let Some(trained) = trained(&folder) {
        writeln!(out, "trained: {trained}")?;
    }
    Ok(())
}

// The step and the validation of a model that was trained here.
fn trained(folder: &Path) -> Option<String> {
    let json = std::fs::read(folder.join(model_folder::TRAINING_FILE)).ok()?;
    let training: serde_json::Value = serde_json::from_slice(&json).ok()?;
    let step = format!("step {} of {}", training["step"].as_u64()?, training["steps"].as_u64()?);
    let validation = &training["validation"];
    Some(match (validation["step"].as_u64(), validation["val_nelbo"].as_f64()) {
        (Some(at), Some(nats)) => format!("{step}; validation {nats:.4} nats per token at step {at}"),
        _ => step,
    })
}
