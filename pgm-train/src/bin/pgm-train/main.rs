//! The `pgm-train` command.

mod eval;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{anyhow, bail};
use burn::train::Interrupter;
use burn::train::renderer::{MetricsRenderer, tui::TuiMetricsRendererWrapper};
use clap::{Args, Parser, Subcommand, ValueEnum};
use pgm_infer::bench::median;
use pgm_infer::device::{self, DeviceName};
use pgm_model::{BackboneConfig, ModelConfig, Network, PartitionConfig, Projection, Queries, presets};
use pgm_train::bench::{BenchPhase, measure};
use pgm_train::learner::StepOptions;
use pgm_train::{Distill, DistillConfig, Fit, Precision, TrainConfig, TrainEvent, distill, fit};
use serde_json::json;

// Burn's Flex backend allocates a fresh tensor for every result; an allocator that keeps freed memory spares the page
// faults of getting it from the system again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Trains, distils and measures Partition Generative Models and their baselines.
#[derive(Parser)]
#[command(name = "pgm-train", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Trains a model on a prepared data folder
    Fit(FitArgs),
    /// Distils a model in rounds, so that it samples as well in fewer steps
    Distill(DistillArgs),
    /// Measures a model and prints one JSON object
    #[command(subcommand)]
    Eval(eval::EvalCommand),
    /// Measures one step and prints one JSON object
    Bench(BenchArgs),
}

#[derive(Args)]
struct FitArgs {
    /// The run, as TOML
    #[arg(long)]
    config: PathBuf,
    /// A folder made by pgm-data prepare
    #[arg(long)]
    data: PathBuf,
    /// The folder of the run
    #[arg(long)]
    out: PathBuf,
    /// Change a key of the TOML, as in optim.lr=1e-3
    #[arg(long, value_name = "KEY=VALUE", num_args = 1..)]
    set: Vec<String>,
    /// Go on from the newest checkpoint in --out
    #[arg(long)]
    resume: bool,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
}

#[derive(Args)]
struct DistillArgs {
    /// The distillation, as TOML
    #[arg(long)]
    config: PathBuf,
    /// The model folder of the first teacher
    #[arg(long)]
    teacher: PathBuf,
    /// A folder made by pgm-data prepare with the teacher's tokenizer and length
    #[arg(long)]
    data: PathBuf,
    /// The folder of the distillation, one folder a round inside
    #[arg(long)]
    out: PathBuf,
    /// Change a key of the TOML, as in optim.lr=1e-4
    #[arg(long, value_name = "KEY=VALUE", num_args = 1..)]
    set: Vec<String>,
    /// Go on where an earlier run in --out stopped
    #[arg(long)]
    resume: bool,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
}

#[derive(Args)]
struct BenchArgs {
    /// A preset's sizes
    #[arg(long, conflicts_with_all = ["hidden", "heads", "encoder", "decoder", "vocab"])]
    preset: Option<String>,
    /// Width of the residual stream
    #[arg(long, default_value_t = 256)]
    hidden: usize,
    /// Attention heads
    #[arg(long, default_value_t = 4)]
    heads: usize,
    /// Encoder blocks
    #[arg(long, default_value_t = 3)]
    encoder: usize,
    /// Decoder blocks
    #[arg(long, default_value_t = 3)]
    decoder: usize,
    /// Tokens of the vocabulary, the mask included
    #[arg(long, default_value_t = 8192)]
    vocab: usize,
    /// Tokens of a row [default: the preset's, else 256]
    #[arg(long)]
    length: Option<usize>,
    /// Rows
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// What is timed
    #[arg(long, value_enum, default_value = "train")]
    what: WhatArg,
    /// Which network
    #[arg(long, value_enum, default_value = "pgm")]
    model: ModelArg,
    /// Timed runs
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// What the matrix products of training are computed in
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
    /// Compute norms and activations twice instead of keeping them
    #[arg(long)]
    checkpointing: bool,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    /// Accepted for symmetry; the output is always one JSON object on one line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionArg {
    F32,
    Bf16,
}

#[derive(Clone, Copy, ValueEnum)]
enum WhatArg {
    /// The network without gradients
    Forward,
    /// Forward, backward, clipping, AdamW
    Train,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModelArg {
    /// The Partition Transformer
    Pgm,
    /// The masked baseline
    Mdlm,
}

fn main() -> ExitCode {
    device::restore_through_the_cpu();
    let result = match Cli::parse().command {
        Command::Fit(args) => run_fit(&args),
        Command::Distill(args) => run_distill(&args),
        Command::Eval(command) => eval::run(&command),
        Command::Bench(args) => run_bench(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "pgm-train: {error:#}");
        ExitCode::FAILURE
    })
}

fn run_fit(args: &FitArgs) -> anyhow::Result<ExitCode> {
    let config = TrainConfig::load(&args.config, &args.set)?;
    let (device, _) = args.device.open().map_err(|message| anyhow!(message))?;
    let interrupter = Interrupter::new();
    let on_signal = interrupter.clone();
    ctrlc::set_handler(move || on_signal.stop(Some("interrupted")))?;
    let terminal = std::io::stdout().is_terminal();
    let renderer: Option<Box<dyn MetricsRenderer>> =
        terminal.then(|| Box::new(TuiMetricsRendererWrapper::new(interrupter.clone(), None)) as _);
    let notices = Arc::new(Mutex::new(Vec::new()));
    let observe: Arc<dyn Fn(&TrainEvent) + Send + Sync> = if terminal {
        let notices = notices.clone();
        Arc::new(move |event| {
            keep_ctrl_c_a_signal();
            if let TrainEvent::Notice(text) = event {
                notices.lock().unwrap_or_else(PoisonError::into_inner).push(text.clone());
            }
        })
    } else {
        Arc::new(print_event)
    };
    let finished = fit(Fit {
        config: &config,
        data: &args.data,
        out: &args.out,
        resume: args.resume,
        device: &device,
        interrupter,
        renderer,
        observe,
    });
    // What the dashboard covered.
    for notice in notices.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let _ = writeln!(std::io::stderr(), "note: {notice}");
    }
    let finished = finished?;
    let mut out = std::io::stdout().lock();
    let out_folder = args.out.display();
    if let Some(validation) = &finished.validation {
        writeln!(out, "validation: {:.4} nats per token, perplexity {:.3}", validation.val_nelbo, validation.val_ppl)?;
    }
    if finished.complete {
        writeln!(out, "model: {out_folder}/model   curve: {out_folder}/loss.svg")?;
        Ok(ExitCode::SUCCESS)
    } else {
        writeln!(out, "stopped after step {} of {}; continue with --resume", finished.step, config.steps)?;
        Ok(ExitCode::from(130))
    }
}

fn run_distill(args: &DistillArgs) -> anyhow::Result<ExitCode> {
    let config = DistillConfig::load(&args.config, &args.set)?;
    let (device, _) = args.device.open().map_err(|message| anyhow!(message))?;
    let interrupter = Interrupter::new();
    let on_signal = interrupter.clone();
    ctrlc::set_handler(move || on_signal.stop(Some("interrupted")))?;
    let distilled = distill(Distill {
        config: &config,
        teacher: &args.teacher,
        data: &args.data,
        out: &args.out,
        resume: args.resume,
        device: &device,
        interrupter,
        observe: Arc::new(print_event),
    })?;
    let mut out = std::io::stdout().lock();
    for model in &distilled.models {
        writeln!(out, "model: {}", model.display())?;
    }
    if let Some(step) = distilled.stopped_at {
        let round = distilled.models.len() + 1;
        writeln!(out, "stopped in round {round} after step {step}; continue with --resume")?;
        return Ok(ExitCode::from(130));
    }
    Ok(ExitCode::SUCCESS)
}

fn print_event(event: &TrainEvent) {
    let line = match event {
        TrainEvent::Round { round, n_rounds, teacher_steps, student_steps } => {
            format!("round {round} of {n_rounds}: the student learns to do {teacher_steps} steps in {student_steps}")
        }
        TrainEvent::Started { step, parameters, rows } => {
            format!("{parameters} parameters, {rows} training rows, from step {step}")
        }
        TrainEvent::Trained { line, steps } => {
            let rate = line.step as f64 / line.seconds;
            let left = (steps - line.step) as f64 / rate;
            format!(
                "step {}/{steps}  loss {:.4}  lr {:.2e}  grad {:.3}  {:.0} tokens/s  {} left",
                line.step,
                line.train_loss,
                line.lr,
                line.grad_norm,
                line.tokens_per_second,
                clock(left)
            )
        }
        TrainEvent::Validated(line) => {
            format!(
                "step {}  validation {:.4} nats per token, perplexity {:.3}",
                line.step, line.val_nelbo, line.val_ppl
            )
        }
        TrainEvent::Saved { step } => format!("step {step}  saved"),
        TrainEvent::Notice(text) => format!("note: {text}"),
    };
    // A reader that has gone away, as `| head` does, is no reason to end a training.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The dashboard puts the terminal into raw mode, where Ctrl-C is a key like any other; this makes it a signal again.
/// The dashboard sets its mode on a thread of its own, so this is called with every event.
fn keep_ctrl_c_a_signal() {
    #[cfg(unix)]
    {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let stdin = std::io::stdin();
        if let Ok(mut mode) = tcgetattr(&stdin)
            && !mode.local_modes.contains(LocalModes::ISIG)
        {
            mode.local_modes.insert(LocalModes::ISIG);
            // Where the terminal refuses, q in the dashboard still stops the run.
            let _ = tcsetattr(&stdin, OptionalActions::Now, &mode);
        }
    }
}

fn clock(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match seconds / 3600 {
        0 => format!("{}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

/// The most memory that this process has held, where the system says so (Linux).
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?.trim();
    Some(1024 * kib.parse::<u64>().ok()?)
}

fn run_bench(args: &BenchArgs) -> anyhow::Result<()> {
    if args.runs == 0 || args.batch == 0 {
        bail!("--runs and --batch must be at least 1");
    }
    let mut config = match &args.preset {
        Some(name) => presets::by_name(name).ok_or_else(|| {
            let known: Vec<&str> = presets::ALL.iter().map(|(name, _)| *name).collect();
            anyhow!("--preset {name} is none of {}", known.join(", "))
        })?,
        None => ModelConfig::Partition(PartitionConfig {
            backbone: BackboneConfig::new(args.vocab, args.hidden, args.heads, 256),
            encoder_blocks: args.encoder,
            decoder_blocks: args.decoder,
            queries: Queries::default(),
            projection: Projection::default(),
        }),
    };
    let backbone = config.backbone_mut();
    backbone.length = args.length.unwrap_or(backbone.length);
    backbone.dropout = 0.0;
    if matches!(args.model, ModelArg::Mdlm) {
        config = ModelConfig::Masked(config.masked_baseline());
    }
    config.validate()?;
    let (device, device_name) = args.device.open().map_err(|message| anyhow!(message))?;
    let what = match args.what {
        WhatArg::Forward => BenchPhase::Forward,
        WhatArg::Train => BenchPhase::Train,
    };
    let precision = match args.precision {
        PrecisionArg::F32 => Precision::F32,
        PrecisionArg::Bf16 => Precision::Bf16,
    };
    let how = StepOptions { precision, checkpointing: args.checkpointing };
    let seconds = measure(&config, args.batch, what, how, args.runs, &device)?;
    let middle = median(&seconds);
    let length = config.backbone().length;
    let object = json!({
        "model": if matches!(config, ModelConfig::Masked(_)) { "mdlm" } else { "pgm" },
        "what": if what == BenchPhase::Train { "train" } else { "forward" },
        "seconds_median": middle,
        "seconds": seconds,
        "tokens_per_second": (args.batch * length) as f64 / middle,
        "parameters": Network::new(&config, &device).n_parameters(),
        "threads": std::thread::available_parallelism().map_or(1, usize::from),
        "length": length,
        "batch": args.batch,
        "precision": precision,
        "checkpointing": args.checkpointing,
        "peak_memory_bytes": peak_memory(),
        "device": device_name,
    });
    writeln!(std::io::stdout(), "{object}")?;
    Ok(())
}
