//! The `pgm-infer` command.

mod convert;
mod plot;
#[cfg(feature = "server")]
mod serving;

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{anyhow, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use pgm_infer::bench::{Workload, alternate};
use pgm_infer::denoise::HeadPositions;
use pgm_infer::device::{DeviceName, WeightArgs};
use pgm_infer::sample::order::OrderFlags;
use pgm_infer::settings::Overrides;
use pgm_infer::text::canvas::{Canvas, Segment};
use pgm_infer::text::template::{self, Part};
use pgm_infer::{SampleRequest, SampleSettings, SamplingPath, Schedule, StepView, TextModel};
use pgm_model::{ModelConfig, Network, model_folder, presets};
use serde_json::{Value, json};

// Burn's Flex backend allocates a fresh tensor for every result; an allocator that keeps freed memory spares the page
// faults of getting it from the system again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Writes text with a Partition Generative Model: in parallel, in any order, around any given text.
#[derive(Parser)]
#[command(name = "pgm-infer", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Continues a prompt, fills in a template, or writes freely
    Generate(GenerateArgs),
    /// Shows what a model folder holds
    Info {
        /// The model folder
        model: PathBuf,
    },
    /// Measures sampling speed and prints one JSON object
    Bench(BenchArgs),
    /// Makes a model folder of a published checkpoint
    Import(convert::ImportArgs),
    /// Writes a model folder's weights under the published names
    Export(convert::ExportArgs),
    /// Serves models over HTTP: OpenAI's completions, infilling, a page
    #[cfg(feature = "server")]
    Serve(serving::ServeArgs),
}

#[derive(Args)]
struct GenerateArgs {
    /// The model folder
    #[arg(long)]
    model: PathBuf,
    /// Text to continue
    #[arg(long, conflicts_with = "template")]
    prompt: Option<String>,
    /// Text with blanks: {N} is N tokens, ___ is --blank tokens
    #[arg(long)]
    template: Option<String>,
    /// Tokens of a ___ blank
    #[arg(long, default_value_t = 8)]
    blank: usize,
    /// Samples; sample i uses --seed + i
    #[arg(short, default_value_t = 1)]
    n: usize,
    /// Samples computed together
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Tokens in all, BOS included [default: the template's, else the model's]
    #[arg(long)]
    length: Option<usize>,
    /// Sampling steps [default: the model's, else 128]
    #[arg(long)]
    steps: Option<usize>,
    /// How many positions a step decodes, and by which path
    #[arg(long, value_enum)]
    sampler: Option<Sampler>,
    #[command(flatten)]
    order: OrderFlags,
    /// Temperature; 0 takes the most probable token [default: the model's, else 1]
    #[arg(long)]
    temp: Option<f64>,
    /// Keep the k most probable tokens; 0 keeps all
    #[arg(long)]
    top_k: Option<usize>,
    /// Keep the most probable tokens that hold this probability together
    #[arg(long)]
    top_p: Option<f64>,
    /// Seed of the first sample [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    #[command(flatten)]
    weights: WeightArgs,
    /// Print one JSON object a sample
    #[arg(long)]
    json: bool,
    /// Redraw the text on the terminal as it fills
    #[arg(long)]
    visual: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Sampler {
    /// Equal shares, clean tokens only
    Uniform,
    /// Binomial counts as in MDLM
    Binomial,
    /// Equal shares by the training path over the full length (slow)
    Full,
    /// MDLM's ancestral sampler, the masked baseline's default
    Ancestral,
}

#[derive(Args)]
struct BenchArgs {
    /// A preset with fresh weights
    #[arg(long, conflicts_with = "model", required_unless_present = "model")]
    preset: Option<String>,
    /// A model folder
    #[arg(long)]
    model: Option<PathBuf>,
    /// Tokens of a row [default: the model's]
    #[arg(long)]
    length: Option<usize>,
    /// Rows
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Sampling steps
    #[arg(long, default_value_t = 32)]
    steps: usize,
    /// Timed runs, in alternation with the baseline's
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Runs before the timed ones
    #[arg(long, default_value_t = 1)]
    warmup: usize,
    /// Also measure a masked model of as many blocks
    #[arg(long, value_enum)]
    baseline: Option<Baseline>,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    #[command(flatten)]
    weights: WeightArgs,
    /// Draw the time of each step against its floating-point operations
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Accepted for symmetry; the output is always one JSON object on one line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Baseline {
    /// The masked diffusion model, its head at every still masked position as in MDLM's sampler
    Mdlm,
    /// The same with the head only where a token is decoded: the same law at less cost
    MdlmLean,
}

static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Generate(args) => generate(&args),
        Command::Info { model } => info(&model),
        Command::Bench(args) => bench(&args),
        Command::Import(args) => any_device().and_then(|device| convert::import(&args, &device)),
        Command::Export(args) => any_device().and_then(|device| convert::export(&args, &device)),
        #[cfg(feature = "server")]
        Command::Serve(args) => serving::serve(&args),
    };
    match result {
        Ok(()) if STOP.load(Ordering::Relaxed) => ExitCode::from(130),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "pgm-infer: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn open_device(name: &DeviceName) -> anyhow::Result<(burn::tensor::Device, String)> {
    name.open().map_err(|message| anyhow!(message))
}

/// A device for work that is only reading and writing.
fn any_device() -> anyhow::Result<burn::tensor::Device> {
    Ok(open_device(&"auto".parse().map_err(|message: String| anyhow!(message))?)?.0)
}

fn generate(args: &GenerateArgs) -> anyhow::Result<()> {
    if args.n == 0 || args.batch == 0 {
        bail!("-n and --batch must be at least 1");
    }
    let (device, device_name) = open_device(&args.device)?;
    let model = TextModel::load(&args.model, &device)?.with_weight_dtype(args.weights.weights())?;
    let parts = match (&args.prompt, &args.template) {
        (Some(prompt), _) => vec![Part::Text(prompt.clone())],
        (None, Some(template)) => template::parse(template, args.blank)?,
        (None, None) => Vec::new(),
    };
    let schedule = args.sampler.map(|sampler| match sampler {
        Sampler::Uniform | Sampler::Full => Schedule::Uniform,
        Sampler::Binomial | Sampler::Ancestral => Schedule::Binomial,
    });
    let route = if matches!(args.sampler, Some(Sampler::Full)) { SamplingPath::Full } else { SamplingPath::Clean };
    match (args.sampler, model.config()) {
        (Some(Sampler::Full), ModelConfig::Masked(_)) => {
            bail!("--sampler full is the partition model's training path; this model is masked")
        }
        (Some(_), ModelConfig::Autoregressive(_)) => {
            bail!("--sampler chooses an order; this model is autoregressive and has only one")
        }
        (_, ModelConfig::Autoregressive(_)) if args.order.order.is_some() => {
            bail!("--order chooses an order; this model is autoregressive and has only one")
        }
        (_, ModelConfig::Autoregressive(_)) if args.steps.is_some() => {
            bail!("--steps decodes tokens in parallel; this model is autoregressive and decodes one after the other")
        }
        _ => {}
    }
    let order = args.order.kind().map_err(|message| anyhow!(message))?;
    let overrides = Overrides {
        steps: args.steps,
        schedule,
        order: Some(order),
        temperature: args.temp,
        top_k: args.top_k,
        top_p: args.top_p,
        alternatives: None,
    };
    let settings = overrides.apply(SampleSettings::for_model(&model));
    let draw = settings.draw;
    // An autoregressive model takes a step for each token.
    let steps = (!matches!(model.config(), ModelConfig::Autoregressive(_))).then_some(settings.steps);
    let seed = args.seed.unwrap_or_else(clock_seed);
    let requests = (0..args.n as u64)
        .map(|index| model.request(&parts, args.length, seed.wrapping_add(index)))
        .collect::<Result<Vec<_>, _>>()?;
    // Without a handler Ctrl-C ends the program at once, which loses nothing either.
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));

    let mut out = std::io::stdout().lock();
    for batch in requests.chunks(args.batch) {
        let mut screen = Screen::new(&model, batch, args.visual);
        let start = Instant::now();
        let outcome = model.generate(batch, &settings, route, &mut |view| {
            screen.update(view);
            if STOP.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let seconds = start.elapsed().as_secs_f64();
        screen.clear();
        for (request, row) in batch.iter().zip(&outcome.rows) {
            let text = model.decode(&row.tokens[1..])?;
            if args.json {
                let object = json!({
                    "text": text, "tokens": row.tokens, "order": row.order,
                    "log_probabilities": row.log_probabilities, "complete": row.complete, "seed": request.seed,
                    "steps": steps, "decoding_order": settings.order, "temperature": draw.temperature, "top_k": draw.top_k,
                    "top_p": draw.top_p, "network_evaluations": outcome.n_evaluations, "batch": batch.len(),
                    "seconds": seconds, "device": device_name, "weights": args.weights.weights().name(),
                });
                writeln!(out, "{object}")?;
            } else {
                if args.n > 1 {
                    writeln!(out, "=== seed {} ===", request.seed)?;
                }
                writeln!(out, "{text}")?;
            }
        }
        if STOP.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(())
}

fn clock_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_nanos() as u64)
}

/// The first row's text as it fills, or a line that counts steps; nothing when not on a terminal.
struct Screen<'a> {
    model: &'a TextModel,
    canvas: Canvas,
    visual: bool,
    terminal: bool,
}

impl<'a> Screen<'a> {
    fn new(model: &'a TextModel, requests: &[SampleRequest], visual: bool) -> Self {
        let canvas = Canvas::new(&requests[0].given, requests[0].length);
        Self { model, canvas, visual, terminal: std::io::stderr().is_terminal() }
    }

    fn update(&mut self, view: &StepView) {
        if !self.terminal {
            return;
        }
        self.canvas.apply(&view.changes[0]);
        if self.visual {
            self.show(&format!("\x1b[2J\x1b[Hstep {} of {}\n\n{}\n", view.step, view.n_steps, self.text()));
        } else {
            self.show(&format!("\rstep {} of {}", view.step, view.n_steps));
        }
    }

    // What is written, and a shaded block for each open token.
    fn text(&self) -> String {
        let text = |segment| match segment {
            Segment::Given { text } | Segment::Decoded { text } | Segment::New { text } => text,
            Segment::Open { n } => "░".repeat(n),
        };
        self.canvas.segments(self.model).into_iter().map(text).collect()
    }

    fn clear(&self) {
        if self.terminal {
            self.show(if self.visual { "\x1b[2J\x1b[H" } else { "\r\x1b[K" });
        }
    }

    // A terminal that has gone away ends nothing.
    fn show(&self, text: &str) {
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

fn info(folder: &std::path::Path) -> anyhow::Result<()> {
    let model = TextModel::load(folder, &any_device()?)?;
    let size = std::fs::metadata(folder.join(model_folder::WEIGHTS_FILE))?.len();
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string_pretty(model.config())?)?;
    writeln!(out, "parameters: {}", model.n_parameters())?;
    writeln!(out, "weights: {:.1} MB", size as f64 / 1e6)?;
    writeln!(out, "sampler defaults: {}", serde_json::to_string(model.generation())?)?;
    Ok(())
}

fn bench(args: &BenchArgs) -> anyhow::Result<()> {
    if args.runs == 0 || args.batch == 0 {
        bail!("--runs and --batch must be at least 1");
    }
    let (device, device_name) = open_device(&args.device)?;
    let weights = args.weights.weights();
    let (name, config, n_parameters, network) = match (&args.preset, &args.model) {
        (_, Some(folder)) => {
            let (config, network) = model_folder::load(folder, &device)?;
            (folder.display().to_string(), config, network.n_parameters(), network.folded().with_weight_dtype(weights)?)
        }
        (Some(preset), None) => {
            let config = presets::by_name(preset).ok_or_else(|| {
                let known: Vec<&str> = presets::ALL.iter().map(|(name, _)| *name).collect();
                anyhow!("--preset {preset} is none of {}", known.join(", "))
            })?;
            let network = Network::new(&config, &device);
            (preset.clone(), config, network.n_parameters(), network.folded().with_weight_dtype(weights)?)
        }
        (None, None) => bail!("give --preset or --model"),
    };
    let length = args.length.unwrap_or(config.backbone().length);
    if length < 2 {
        bail!("--length {length} leaves nothing to decode, it must be at least 2");
    }
    let head_at = match args.baseline {
        Some(Baseline::Mdlm) => HeadPositions::Masked,
        Some(Baseline::MdlmLean) | None => HeadPositions::Decoded,
    };
    let workload =
        Workload { length, batch: args.batch, steps: args.steps, warmup: args.warmup, runs: args.runs, head_at };
    let baseline = args.baseline.map(|_| {
        let config = ModelConfig::Masked(config.masked_baseline());
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
