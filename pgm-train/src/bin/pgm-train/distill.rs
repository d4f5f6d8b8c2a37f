//! `pgm-train distill`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use burn::train::Interrupter;
use clap::Args;
use pgm_infer::device::DeviceName;
use pgm_train::{Distill, DistillConfig, World, distill};

use crate::events::{print_event, stopped_by_signals};
use crate::ranks::RankArgs;

#[derive(Args)]
pub struct DistillArgs {
    /// The configuration, a TOML file; `pgm-train config --objective distill` prints one
    #[arg(long)]
    config: PathBuf,
    /// The model folder of the first teacher, or a training run: RUN, RUN@best, RUN@last or RUN@step-N
    #[arg(long)]
    teacher: PathBuf,
    /// A folder made by pgm-data prepare with the teacher's tokenizer and length
    #[arg(long)]
    data: PathBuf,
    /// The folder of the distillation, with one folder per round. Its models have a card, README.md; the section card of
    /// the configuration completes it
    #[arg(long)]
    out: PathBuf,
    /// Change a key of the TOML, as in optim.lr=1e-4
    #[arg(long, value_name = "KEY=VALUE", num_args = 1..)]
    set: Vec<String>,
    /// Resume an earlier distillation in --out
    #[arg(long)]
    resume: bool,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    #[command(flatten)]
    ranks: RankArgs,
}

pub fn run(args: &DistillArgs) -> anyhow::Result<ExitCode> {
    let interrupter = stopped_by_signals()?;
    args.ranks.run(|world| distill_in(args, world, interrupter))
}

fn distill_in(args: &DistillArgs, world: &World, interrupter: Interrupter) -> anyhow::Result<ExitCode> {
    let config = DistillConfig::load(&args.config, &args.set)?;
    let device = args.ranks.open_device(&args.device, world)?;
    let result = distill(Distill {
        config: &config,
        teacher: &args.teacher,
        data: &args.data,
        out: &args.out,
        resume: args.resume,
        device: &device,
        interrupter,
        observe: Arc::new(print_event),
        world: world.clone(),
    })?;
    if !world.is_first() {
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    for model in &result.models {
        writeln!(out, "model: {}", model.display())?;
    }
    if let Some(step) = result.stopped_at {
        let round = result.models.len() + 1;
        writeln!(out, "stopped in round {round} after step {step}; continue with --resume")?;
        return Ok(ExitCode::from(130));
    }
    Ok(ExitCode::SUCCESS)
}
