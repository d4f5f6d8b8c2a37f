//! `pgm-train bench`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use clap::{Args, ValueEnum};
use pgm_infer::bench::median;
use pgm_infer::device::DeviceName;
use pgm_infer::flops::training_step;
use pgm_model::{BackboneConfig, ModelConfig, Network, PartitionConfig, Projection, Queries, presets};
use pgm_train::bench::{BenchPhase, measure, measure_matmul};
use pgm_train::{Precision, StepOptions};
use serde_json::json;

#[derive(Args)]
pub struct BenchArgs {
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
    what: PhaseArg,
    /// Which network
    #[arg(long, value_enum, default_value = "pgm")]
    model: ModelArg,
    /// Timed steps
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Data type of the matmuls of training
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
    /// Gradient checkpointing: recompute norms and activations in the backward pass
    #[arg(long)]
    checkpointing: bool,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    /// No effect: the output is always one JSON object on one line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PrecisionArg {
    F32,
    Bf16,
}

#[derive(Clone, Copy, ValueEnum)]
enum PhaseArg {
    /// The network without gradients
    Forward,
    /// Forward, backward, clipping, AdamW
    Train,
    /// A product of two square matrices with --hidden rows: what the device reaches
    Matmul,
}

#[derive(Clone, Copy, ValueEnum)]
enum ModelArg {
    /// The Partition Transformer
    Pgm,
    /// The masked baseline; MaskGIT for a preset of images
    Mdlm,
}

pub fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    if args.runs == 0 || args.batch == 0 {
        bail!("--runs and --batch must be at least 1");
    }
    let precision = match args.precision {
        PrecisionArg::F32 => Precision::F32,
        PrecisionArg::Bf16 => Precision::Bf16,
    };
    let phase = match args.what {
        PhaseArg::Forward => BenchPhase::Forward,
        PhaseArg::Train => BenchPhase::Train,
        PhaseArg::Matmul => return matmul(args, precision),
    };
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
            sets: Default::default(),
        }),
    };
    let backbone = config.backbone_mut();
    backbone.length = args.length.unwrap_or(backbone.length);
    backbone.dropout = 0.0;
    config.validate()?;
    if matches!(args.model, ModelArg::Mdlm) {
        config = config.masked_baseline();
    }
    config.validate()?;
    let (device, device_name) = args.device.open().map_err(|message| anyhow!(message))?;
    let options = StepOptions { precision, checkpointing: args.checkpointing };
    let seconds = measure(&config, args.batch, phase, options, args.runs, &device)?;
    let middle = median(&seconds);
    let length = config.backbone().length;
    let passes = if phase == BenchPhase::Train { 1.0 } else { 1.0 / 3.0 };
    let flops = passes * args.batch as f64 * training_step(&config, length);
    let object = json!({
        "model": match config {
            ModelConfig::Masked(_) => "mdlm",
            ModelConfig::MaskGit(_) => "maskgit",
            ModelConfig::Partition(_) | ModelConfig::Autoregressive(_) => "pgm",
        },
        "what": if phase == BenchPhase::Train { "train" } else { "forward" },
        "seconds_median": middle,
        "seconds": seconds,
        "tokens_per_second": (args.batch * length) as f64 / middle,
        "flops": flops,
        "flops_per_second": flops / middle,
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
    Ok(ExitCode::SUCCESS)
}

fn matmul(args: &BenchArgs, precision: Precision) -> anyhow::Result<ExitCode> {
    let (device, device_name) = args.device.open().map_err(|message| anyhow!(message))?;
    let seconds = measure_matmul(args.hidden, precision, args.runs, &device)?;
    let middle = median(&seconds);
    let flops = 2.0 * (args.hidden as f64).powi(3);
    let object = json!({
        "what": "matmul",
        "side": args.hidden,
        "precision": precision,
        "seconds_median": middle,
        "seconds": seconds,
        "flops": flops,
        "flops_per_second": flops / middle,
        "device": device_name,
    });
    writeln!(std::io::stdout(), "{object}")?;
    Ok(ExitCode::SUCCESS)
}

/// Peak resident memory of this process; known on Linux only.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().strip_suffix("kB")?.trim();
    Some(1024 * kib.parse::<u64>().ok()?)
}
