//! `pgm-infer generate`.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{anyhow, bail};
use clap::{Args, ValueEnum};
use pgm_infer::device::{DeviceName, WeightArgs};
use pgm_infer::sample::order::OrderFlags;
use pgm_infer::sample::{Curve, Refresh};
use pgm_infer::settings::{Overrides, curve_schedule};
use pgm_infer::text::canvas::{Canvas, Segment};
use pgm_infer::text::template::{self, Part};
use pgm_infer::text::{TextAnimation, TextRow};
use pgm_infer::{SampleRequest, SampleSettings, SamplingPath, Schedule, StepView, TextModel};
use pgm_model::ModelConfig;
use pgm_model::model_folder::{self, write_file};
use serde_json::json;

use crate::devices::{model_path, open_device};
use crate::picture_flags::PictureFlags;
use crate::pictures;

#[derive(Args)]
pub struct GenerateArgs {
    /// The model folder, a training run (RUN, RUN@best, RUN@last, RUN@step-N), or a bundled model: demo or
    /// demo-digits
    #[arg(long, value_parser = model_path)]
    pub model: PathBuf,
    /// Text to continue
    #[arg(long, conflicts_with = "template")]
    prompt: Option<String>,
    /// Text with blanks: {N} is N tokens, {*} is as many as fit, ___ is --blank tokens
    #[arg(long)]
    template: Option<String>,
    /// Tokens of a ___ blank
    #[arg(long, default_value_t = 8)]
    blank: usize,
    /// Number of samples, of pictures for each class; sample i uses --seed + i
    #[arg(short, default_value_t = 1)]
    pub n: usize,
    /// Samples computed together
    #[arg(long, default_value_t = 8)]
    pub batch: usize,
    /// Tokens of the text, BOS included [default: the template's, else the model's]
    #[arg(long)]
    pub length: Option<usize>,
    /// Sampling steps [default: the model's, else 128; 32 for pictures]
    #[arg(long)]
    pub steps: Option<usize>,
    /// How many positions a step decodes, and how the network is run [default: uniform; ancestral for a masked model]
    #[arg(long, value_enum)]
    pub sampler: Option<Sampler>,
    /// Share of the positions that is decoded after a share of the steps: arccos, cosine, linear, square or root
    /// [default: equal shares; arccos for pictures]
    #[arg(long, value_name = "CURVE")]
    pub schedule: Option<Curve>,
    #[command(flatten)]
    pub order: OrderFlags,
    /// Temperature; 0 takes the most probable token [default: the model's, else 1]
    #[arg(long)]
    pub temp: Option<f64>,
    /// Keep the k most probable tokens; 0 keeps all
    #[arg(long)]
    pub top_k: Option<usize>,
    /// Keep the fewest most probable tokens whose probabilities add up to this
    #[arg(long)]
    pub top_p: Option<f64>,
    /// How often the clean tokens of a row are encoded anew: in one of so many network evaluations, or inf for in the first
    /// only. In between, new tokens are encoded against what is kept of the old ones [default: 1; inf for a model that was
    /// trained with ordered sets]
    #[arg(long, value_name = "R|inf")]
    pub refresh: Option<Refresh>,
    /// Seed of the first sample [default: from the clock]
    #[arg(long)]
    pub seed: Option<u64>,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    pub device: DeviceName,
    #[command(flatten)]
    pub weights: WeightArgs,
    /// Print one JSON object for each sample
    #[arg(long)]
    pub json: bool,
    /// Show the text or the first picture on the terminal while it is sampled
    #[arg(long)]
    pub visual: bool,
    #[command(flatten)]
    pub picture: PictureFlags,
    /// Pictures: a .png file (several pictures become a sheet), a folder (one PNG each, with a manifest), or an .npz file
    #[arg(long, help_heading = "Pictures")]
    pub out: Option<PathBuf>,
    /// The first text while it fills, as an animated .svg; of pictures the first ones, as an animated .png
    #[arg(long, value_name = "FILE")]
    pub animate: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Sampler {
    /// The same number in each step; the network sees clean tokens only
    Uniform,
    /// Random numbers from a binomial distribution, as in MDLM; the network sees clean tokens only
    Binomial,
    /// The same number in each step; the network sees the full length, as in training (slow)
    Full,
    /// MDLM's ancestral sampler, the default of a masked model
    Ancestral,
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C end the sampling after the current step. Without it Ctrl-C ends the program at once, and the current batch is
/// lost.
pub fn handle_interrupts() {
    let _ = ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed));
}

/// Whether Ctrl-C ended the sampling.
pub fn was_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

impl GenerateArgs {
    /// A flag of text that was given although the model draws pictures.
    pub fn text_flag(&self) -> Option<&'static str> {
        let given = [
            (self.prompt.is_some(), "--prompt"),
            (self.template.is_some(), "--template"),
            (self.length.is_some(), "--length"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, name)| name)
    }

    /// The schedule that `--sampler` names.
    pub fn sampled_schedule(&self) -> Option<Schedule> {
        match self.sampler? {
            Sampler::Uniform | Sampler::Full => Some(Schedule::Uniform),
            Sampler::Binomial | Sampler::Ancestral => Some(Schedule::Binomial),
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.n == 0 || self.batch == 0 {
            bail!("-n and --batch must be at least 1");
        }
        if self.schedule.is_some() && !matches!(self.sampler, None | Some(Sampler::Full)) {
            bail!("--schedule and --sampler both say how many positions a step decodes; give one of them");
        }
        Ok(())
    }
}

/// Samples texts and prints them, or pictures and writes them.
pub fn generate(args: &GenerateArgs) -> anyhow::Result<()> {
    args.check()?;
    let config = model_folder::load_config(&args.model)?;
    if config.image().is_some() {
        return pictures::generate(args, &config);
    }
    if let Some(flag) = args.picture.given().or(args.out.is_some().then_some("--out")) {
        bail!("{flag} belongs to models of pictures; this model writes text");
    }
    if let Some(path) = args.animate.as_ref().filter(|path| path.extension().is_none_or(|name| name != "svg")) {
        bail!("--animate {}: a text becomes an animated SVG, so the file's name must end with .svg", path.display());
    }
    let (device, device_name) = open_device(&args.device)?;
    let folder = model_folder::resolve(&args.model)?;
    if folder != args.model {
        let _ = writeln!(std::io::stderr(), "note: the model is {}", folder.display());
    }
    let model = TextModel::load(&folder, &device)?.with_weight_dtype(args.weights.weights())?;
    let parts = match (&args.prompt, &args.template) {
        (Some(prompt), _) => vec![Part::Text(prompt.clone())],
        (None, Some(template)) => template::parse(template, args.blank)?,
        (None, None) => Vec::new(),
    };
    check_flags(args, model.config())?;
    let settings = settings(&model, args)?;
    let path = if matches!(args.sampler, Some(Sampler::Full)) { SamplingPath::Full } else { SamplingPath::Clean };
    // An autoregressive model takes a step for each token.
    let steps = (!matches!(model.config(), ModelConfig::Autoregressive(_))).then_some(settings.steps);
    let seed = args.seed.unwrap_or_else(seed_from_clock);
    // All rows have the same layout.
    let row = model.row(&parts, args.length, seed)?;
    let requests: Vec<SampleRequest> = (0..args.n as u64)
        .map(|index| SampleRequest { seed: seed.wrapping_add(index), ..row.request.clone() })
        .collect();
    if let Some(warning) = length_warning(&model, &requests) {
        let _ = writeln!(std::io::stderr(), "note: {warning}");
    }
    handle_interrupts();

    let mut out = std::io::stdout().lock();
    let mut animation = args.animate.as_ref().map(|path| (path, TextAnimation::of_row(&row)));
    for batch in requests.chunks(args.batch) {
        let mut screen = Screen::new(&model, &row, args.visual);
        let start = Instant::now();
        let outcome = model.generate(batch, &settings, path, &mut |view| {
            screen.update(view);
            if let Some((_, animation)) = &mut animation {
                animation.apply(&view.changes[0]);
            }
            if was_interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        let seconds = start.elapsed().as_secs_f64();
        screen.clear();
        if let Some((path, animation)) = animation.take() {
            write_file(path, animation.svg(&model).as_bytes())?;
        }
        for (request, sampled) in batch.iter().zip(&outcome.rows) {
            let text = row.read(&model, sampled)?;
            if args.json {
                let object = json!({
                    "text": text, "tokens": sampled.tokens, "order": sampled.order,
                    "log_probabilities": sampled.log_probabilities, "complete": sampled.complete, "seed": request.seed,
                    "steps": steps, "decoding_order": settings.order, "temperature": settings.draw.temperature,
                    "top_k": settings.draw.top_k, "top_p": settings.draw.top_p, "network_evaluations": outcome.n_evaluations, "batch": batch.len(),
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
        if was_interrupted() {
            break;
        }
    }
    Ok(())
}

// A sentence about rows that are longer than those that the model was trained on.
fn length_warning(model: &TextModel, requests: &[SampleRequest]) -> Option<String> {
    let trained = model.config().backbone().length;
    let length = requests.iter().map(|request| request.length).max()?;
    (length > trained).then(|| {
        format!(
            "{length} tokens are {:.1} times the {trained} of the rows that the model was trained on; expect worse text the \
             longer it is",
            length as f64 / trained as f64
        )
    })
}

// The model's settings, overridden by the flags.
fn settings(model: &TextModel, args: &GenerateArgs) -> anyhow::Result<SampleSettings> {
    let defaults = SampleSettings::for_model(model);
    let order = args.order.kind_or(defaults.order).map_err(|message| anyhow!(message))?;
    let schedule = args.schedule.map(|curve| curve_schedule(curve, order)).or(args.sampled_schedule());
    let overrides = Overrides {
        steps: args.steps,
        schedule,
        order: Some(order),
        temperature: args.temp,
        top_k: args.top_k,
        top_p: args.top_p,
        refresh: args.refresh,
        ..Overrides::default()
    };
    Ok(overrides.apply(defaults))
}

// Refuses flags that this kind of model cannot follow.
fn check_flags(args: &GenerateArgs, config: &ModelConfig) -> anyhow::Result<()> {
    if args.refresh.is_some() && !matches!(config, ModelConfig::Partition(_)) {
        bail!("--refresh does not apply: only a partition model keeps what it has encoded of the clean tokens");
    }
    match (args.sampler, config) {
        (Some(Sampler::Full), ModelConfig::Masked(_) | ModelConfig::MaskGit(_)) => {
            bail!("--sampler full is the partition model's training path; this model is masked")
        }
        (Some(_), ModelConfig::Autoregressive(_)) => {
            bail!("--sampler does not apply: this model is autoregressive and decodes from left to right")
        }
        (_, ModelConfig::Autoregressive(_)) if args.order.order.is_some() => {
            bail!("--order does not apply: this model is autoregressive and decodes from left to right")
        }
        (_, ModelConfig::Autoregressive(_)) if args.schedule.is_some() => {
            bail!("--schedule does not apply: this model is autoregressive and decodes one token per step")
        }
        (_, ModelConfig::Autoregressive(_)) if args.steps.is_some() => {
            bail!("--steps does not apply: this model is autoregressive and decodes one token per step")
        }
        _ => Ok(()),
    }
}

/// A seed that is another one each time.
pub fn seed_from_clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_nanos() as u64)
}

/// Shows the first row of a batch while it is sampled: its text, or the number of steps. Without a terminal it shows nothing.
struct Screen<'a> {
    model: &'a TextModel,
    canvas: Canvas,
    visual: bool,
    terminal: bool,
}

impl<'a> Screen<'a> {
    fn new(model: &'a TextModel, row: &TextRow, visual: bool) -> Self {
        Self { model, canvas: Canvas::of_row(row), visual, terminal: std::io::stderr().is_terminal() }
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

    // The text so far, with a shaded block for each open token.
    fn text(&self) -> String {
        let show = |segment| match segment {
            Segment::Given { text } | Segment::Decoded { text } | Segment::New { text } => text,
            Segment::Open { n } => "░".repeat(n),
        };
        self.canvas.segments(self.model).into_iter().map(show).collect()
    }

    fn clear(&self) {
        if self.terminal {
            self.show(if self.visual { "\x1b[2J\x1b[H" } else { "\r\x1b[K" });
        }
    }

    // A closed terminal does not end the sampling.
    fn show(&self, text: &str) {
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}
