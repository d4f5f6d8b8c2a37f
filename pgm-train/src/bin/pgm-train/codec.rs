//! `pgm-train codec`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;
use pgm_infer::device::DeviceName;
use pgm_train::CodecTrainConfig;
use pgm_train::codec::{CodecLine, FitCodec, RECONSTRUCTIONS_FILE, fit_codec};

use crate::events::{print_event_with, stopped_by_ctrl_c};

#[derive(Args)]
pub struct CodecArgs {
    /// The configuration, a TOML file; `pgm-train config --objective codec` prints one
    #[arg(long)]
    config: PathBuf,
    /// A folder of pixels made by pgm-data images
    #[arg(long)]
    data: PathBuf,
    /// The folder of the run. Its model has a card, README.md; the section card of the configuration completes it
    #[arg(long)]
    out: PathBuf,
    /// Change a key of the TOML, as in codec.levels=[8,8,8]
    #[arg(long, value_name = "KEY=VALUE", num_args = 1..)]
    set: Vec<String>,
    /// Resume from the newest checkpoint in --out
    #[arg(long)]
    resume: bool,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
}

pub fn run(args: &CodecArgs) -> anyhow::Result<ExitCode> {
    let config = CodecTrainConfig::load(&args.config, &args.set)?;
    let (device, _) = args.device.open().map_err(|message| anyhow!(message))?;
    let result = fit_codec(FitCodec {
        config: &config,
        data: &args.data,
        out: &args.out,
        resume: args.resume,
        device: &device,
        interrupter: stopped_by_ctrl_c()?,
        observe: Arc::new(|event| print_event_with(event, "pictures", validation_text)),
    })?;
    let mut out = std::io::stdout().lock();
    let folder = args.out.display();
    if result.complete {
        writeln!(out, "codec: {folder}/codec   originals above reconstructions: {folder}/{RECONSTRUCTIONS_FILE}")?;
        Ok(ExitCode::SUCCESS)
    } else {
        writeln!(out, "stopped after step {} of {}; continue with --resume", result.step, config.steps)?;
        Ok(ExitCode::from(130))
    }
}

/// The figures of a validation with their intervals.
fn validation_text(line: &CodecLine) -> String {
    let with = |value: f64, interval: Option<[f64; 2]>, digits: usize| match interval {
        Some([low, high]) => format!("{value:.digits$} ({low:.digits$} to {high:.digits$})"),
        None => format!("{value:.digits$}"),
    };
    format!(
        "loss {}  PSNR {} dB  SSIM {}  codes in use {} = {:.1} %, perplexity {}",
        with(line.val_loss, line.val_loss_interval, 4),
        with(line.val_psnr, line.val_psnr_interval, 2),
        with(line.val_ssim, line.val_ssim_interval, 4),
        line.val_codes,
        100.0 * line.val_usage,
        with(line.val_code_perplexity, line.val_code_perplexity_interval, 0)
    )
}
