//! `pgm-infer bench`.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{anyhow, bail};
use clap::{Args, ValueEnum};
use pgm_infer::bench::{Workload, alternate};
use pgm_infer::denoise::HeadPositions;
use pgm_infer::device::{DeviceName, WeightArgs};
use pgm_infer::sample::order::OrderKind;
use pgm_infer::sample::{Guidance, Refresh};
use pgm_model::config::MAX_LENGTH;
use pgm_model::{ModelConfig, Network, Sets, model_folder, presets};
use serde_json::{Value, json};

use crate::devices::{model_path, open_device};
use crate::plot;

#[derive(Args)]
pub struct BenchArgs {
    /// A preset with fresh weights
    #[arg(long, conflicts_with = "model", required_unless_present = "model")]
    preset: Option<String>,
    /// The model folder, a training run (RUN, RUN@best, RUN@last, RUN@step-N), or a bundled model: demo or
    /// demo-digits
    #[arg(long, value_parser = model_path)]
    model: Option<PathBuf>,
    /// Tokens of a row, at least 2 [default: the model's]
    #[arg(long)]
    length: Option<usize>,
    /// Rows of a batch
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Sampling steps
    #[arg(long, default_value_t = 32)]
    steps: usize,
    /// Timed runs; model and baseline take turns
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Runs before the timed ones
    #[arg(long, default_value_t = 1)]
    warmup: usize,
    /// Also measure a masked model with the same number of blocks
    #[arg(long, value_enum)]
    baseline: Option<Baseline>,
    /// Pictures: which cells a step decodes, uniform or halton
    #[arg(long, default_value = "uniform")]
    order: OrderKind,
    /// Pictures: how much the class counts; 0 is not guided
    #[arg(long, value_name = "WEIGHT", default_value_t = 0.0, allow_negative_numbers = true)]
    cfg: f64,
    /// How often the clean tokens of a row are encoded anew, see `generate` [default: the model's]
    #[arg(long, value_name = "R|inf")]
    refresh: Option<Refresh>,
    /// Take the network as one that was trained with ordered sets: mix, or a number of sets
    #[arg(long, value_name = "mix|N")]
    sets: Option<Sets>,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    #[command(flatten)]
    weights: WeightArgs,
    /// Plot the time of each step against its floating-point operations
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Accepted and ignored: the output is always one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Baseline {
    /// The masked model (MDLM, of images MaskGIT) with its head at every masked position, as in MDLM's sampler
    Mdlm,
    /// The same with its head only at the positions to decode: the same samples at less cost
    MdlmLean,
}

/// Measures sampling speed and prints one JSON object.
pub fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    for (flag, value, least) in
        [("--batch", args.batch, 1), ("--steps", args.steps, 1), ("--runs", args.runs, 1), ("--warmup", args.warmup, 0)]
    {
        if value < least || value > MAX_LENGTH {
            bail!("{flag} is {value}; it must lie between {least} and {MAX_LENGTH}");
        }
    }
    let (device, device_name) = open_device(&args.device)?;
    let weights = args.weights.weights();
    let (name, mut config, n_parameters, network) = match (&args.preset, &args.model) {
        (_, Some(folder)) => {
            let (config, network) = model_folder::load(folder, &device)?;
            (folder.display().to_string(), config, network.n_parameters(), network.folded().with_weight_dtype(weights)?)
        }
        (Some(preset), None) => {
            let config = presets::by_name(preset).ok_or_else(|| {
                let known: Vec<&str> = presets::ALL.iter().map(|(name, _)| *name).collect();
                anyhow!("--preset {preset} is unknown; the presets are {}", known.join(", "))
            })?;
            let network = Network::new(&config, &device);
            (preset.clone(), config, network.n_parameters(), network.folded().with_weight_dtype(weights)?)
        }
        (None, None) => bail!("--preset or --model is missing"),
    };
    match &mut config {
        ModelConfig::Partition(config) => config.sets = args.sets.unwrap_or(config.sets),
        _ if args.sets.is_some() || args.refresh.is_some() => {
            bail!("--sets and --refresh are for partition models; this is a {} one", model_kind(&config))
        }
        _ => (),
    }
    let length = args.length.unwrap_or(config.backbone().length);
    if config.image().is_some() && length != config.backbone().length {
        bail!(
            "--length {length} is not the length of this model of images, {}; leave it out",
            config.backbone().length
        );
    }
    if !matches!(args.order, OrderKind::Uniform | OrderKind::Halton { .. }) {
        bail!("--order {} looks at more positions than it decodes; bench counts uniform and halton", args.order.name());
    }
    if config.image().is_none() && (args.order != OrderKind::Uniform || args.cfg != 0.0) {
        bail!("--order and --cfg are for models of images; this is one of text");
    }
    Guidance { weight: args.cfg, ..Guidance::default() }.validate()?;
    if length < 2 {
        bail!("--length {length} leaves nothing to decode; it must be at least 2");
    }
    if length > MAX_LENGTH {
        bail!("--length is {length}, a row has at most {MAX_LENGTH} tokens");
    }
    if length * args.batch > MAX_LENGTH {
        bail!("--batch {} rows of {length} tokens are too many; a batch has at most {MAX_LENGTH} tokens", args.batch);
    }
    let head_at = match args.baseline {
        Some(Baseline::Mdlm) => HeadPositions::Masked,
        Some(Baseline::MdlmLean) | None => HeadPositions::Decoded,
    };
    let workload = Workload {
        length,
        batch: args.batch,
        steps: args.steps,
        warmup: args.warmup,
        runs: args.runs,
        head_at,
        order: args.order,
        guidance: args.cfg,
        refresh: args.refresh,
    };
    let baseline = args.baseline.map(|_| {
        let config = config.masked_baseline();
        let network = Network::new(&config, &device);
        anyhow::Ok((network.n_parameters(), network.folded().with_weight_dtype(weights)?, config))
    });
    let baseline = baseline.transpose()?;
    let mut models = vec![(&network, &config)];
    models.extend(baseline.as_ref().map(|(_, network, config)| (network, config)));
    let n_parameters: Vec<usize> =
        std::iter::once(n_parameters).chain(baseline.as_ref().map(|(n_parameters, ..)| *n_parameters)).collect();
    let measured = alternate(&models, &device, &workload)?;
    let figures = |index: usize| -> serde_json::Map<String, Value> {
        let measured = &measured[index];
        let seconds = measured.seconds_median();
        let Value::Object(map) = json!({
            "seconds_median": seconds,
            "seconds": measured.seconds,
            "tokens_per_second": (args.batch * length) as f64 / seconds,
            "rows_per_second": args.batch as f64 / seconds,
            "network_evaluations": measured.network_evaluations,
            "parameters": n_parameters[index],
            "flops": measured.flops(),
        }) else {
            return serde_json::Map::new();
        };
        map
    };
    let mut object = figures(0);
    object.insert("model".into(), name.clone().into());
    object.insert("refresh".into(), args.refresh.unwrap_or(Refresh::of_model(&config)).to_string().into());
    object.insert("device".into(), device_name.into());
    object.insert("weights".into(), weights.name().into());
    object.insert("threads".into(), std::thread::available_parallelism().map_or(1, usize::from).into());
    for (key, value) in [("length", length), ("batch", args.batch), ("steps", args.steps), ("runs", args.runs)] {
        object.insert(key.into(), value.into());
    }
    if measured.len() > 1 {
        let ratio = measured[1].seconds_median() / measured[0].seconds_median();
        object.insert("baseline".into(), Value::Object(figures(1)));
        object.insert("ratio".into(), ratio.into());
        object.insert("flops_ratio".into(), (measured[1].flops() / measured[0].flops()).into());
    }
    if let Some(cost) = measured[0].step_cost() {
        let cost = json!({
            "fixed_seconds": cost.fixed_seconds, "fixed_share": cost.fixed_share,
            "flops_per_second": cost.flops_per_second,
        });
        object.insert("step_cost".into(), cost);
    }
    if let Some(path) = &args.plot {
        let mut series = vec![(name.as_str(), &measured[0])];
        series.extend(measured.get(1).map(|measured| ("masked baseline", measured)));
        plot::draw(path, &series)?;
    }
    writeln!(std::io::stdout(), "{}", Value::Object(object))?;
    Ok(())
}

fn model_kind(config: &ModelConfig) -> &'static str {
    match config {
        ModelConfig::Partition(_) => "partition",
        ModelConfig::Masked(_) => "masked",
        ModelConfig::Autoregressive(_) => "autoregressive",
        ModelConfig::MaskGit(_) => "maskgit",
    }
}
