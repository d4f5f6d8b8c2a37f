//! `pgm-train eval`: one JSON object a measurement.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use burn::tensor::Device;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use pgm_data::DataFolder;
use pgm_infer::device::{DeviceName, WeightArgs};
use pgm_infer::sample::order::OrderFlags;
use pgm_model::model_folder::TOKENIZER_FILE;
use pgm_model::{ModelConfig, WeightDtype};
use pgm_train::TrainError;
use pgm_train::eval::{self, ChoiceSettings, EvalModel, GenerativeSettings, GreedySettings, PplSettings, ResultLog};
use pgm_train::judge::{self, Gpt2Judge, JudgeSettings, Sample, judge_samples, read_samples, write_samples};
use serde_json::{Value, json};

#[derive(Subcommand)]
pub enum EvalCommand {
    /// Perplexity of a prepared folder: the NELBO, or the exact NLL of an autoregressive model
    Ppl(PplArgs),
    /// Perplexity, entropy and diversity of samples under a judge
    Generative(GenerativeArgs),
    /// Multiple choice by likelihood
    Choice(ChoiceArgs),
    /// The last word of a text, predicted at once
    Greedy(GreedyArgs),
}

#[derive(Args)]
struct Common {
    /// Seed of everything drawn; at one seed all models are asked the same
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A file that keeps what was found, to stop and go on (or, with the same settings, to read again)
    #[arg(long, value_name = "FILE")]
    progress: Option<PathBuf>,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    #[command(flatten)]
    weights: WeightArgs,
}

#[derive(Args)]
pub struct PplArgs {
    /// The model folder
    #[arg(long)]
    model: PathBuf,
    /// A folder made by pgm-data prepare with the model's tokenizer
    #[arg(long)]
    data: PathBuf,
    /// train or validation
    #[arg(long, default_value = "validation")]
    split: String,
    /// Rows, drawn by the seed; 0 takes all
    #[arg(long, default_value_t = 0)]
    rows: usize,
    /// Times drawn for each row, antithetic
    #[arg(short = 'n', long, default_value_t = 8)]
    times: usize,
    /// Rows computed together
    #[arg(long, default_value_t = 8)]
    batch: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub struct GenerativeArgs {
    /// The model folder whose samples are judged
    #[arg(long, required_unless_present = "samples", conflicts_with = "samples")]
    model: Option<PathBuf>,
    /// A file of samples instead: JSON lines with text and, if known, tokens
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// The judge's folder: a GPT-2 (config.json, model.safetensors, tokenizer.json), or an autoregressive model of ours
    #[arg(long)]
    judge: PathBuf,
    /// Samples to draw
    #[arg(short, default_value_t = 1024)]
    n: usize,
    /// Tokens of a sample, BOS included [default: the model's]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    length: usize,
    /// Sampling steps
    #[arg(long, default_value_t = 128)]
    steps: usize,
    #[command(flatten)]
    order: OrderFlags,
    /// Temperature
    #[arg(long, default_value_t = 1.0)]
    temp: f64,
    /// Keep the k most probable tokens; 0 keeps all
    #[arg(long, default_value_t = 0)]
    top_k: usize,
    /// Keep the most probable tokens that hold this probability together
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Tokens to which the public code's counting cuts a text
    #[arg(long, default_value_t = 1024)]
    judge_length: usize,
    /// Samples computed together
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// With --samples: their tokens are the judge's too [with --model: known from the tokenizers]
    #[arg(long)]
    same_tokens: bool,
    /// Write the samples
    #[arg(long, value_name = "FILE")]
    save_samples: Option<PathBuf>,
    /// Real texts, JSON lines with text, for MAUVE; needs a GPT-2 as the judge
    #[arg(long, value_name = "FILE")]
    mauve: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, ValueEnum)]
enum Reduction {
    /// The bound of the whole text
    Sum,
    /// The bound per token, as the public code takes it
    Mean,
}

#[derive(Args)]
pub struct ChoiceArgs {
    /// The model folder
    #[arg(long)]
    model: PathBuf,
    /// The questions: JSON lines with context, choices and label
    #[arg(long)]
    data: PathBuf,
    /// Draws for the bound of each candidate
    #[arg(long, default_value_t = 1024)]
    draws: usize,
    /// How a candidate's score is made
    #[arg(long, value_enum, default_value = "sum")]
    reduction: Reduction,
    /// What is put between context and candidate
    #[arg(long, default_value = " ")]
    separator: String,
    /// Draws computed together
    #[arg(long, default_value_t = 32)]
    batch: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub struct GreedyArgs {
    /// The model folder
    #[arg(long)]
    model: PathBuf,
    /// The texts: JSON lines with text
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    common: Common,
}

static STOP: AtomicBool = AtomicBool::new(false);

pub fn run(command: &EvalCommand) -> anyhow::Result<ExitCode> {
    // Without a handler Ctrl-C ends the program at once, which loses what is not in the progress file yet.
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed));
    let (common, found) = match command {
        EvalCommand::Ppl(args) => (&args.common, run_ppl(args)),
        EvalCommand::Generative(args) => (&args.common, run_generative(args)),
        EvalCommand::Choice(args) => (&args.common, run_choice(args)),
        EvalCommand::Greedy(args) => (&args.common, run_greedy(args)),
    };
    match found {
        Ok(object) => {
            writeln!(std::io::stdout(), "{object}")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if matches!(error.downcast_ref(), Some(TrainError::Stopped)) => {
            let next = match &common.progress {
                Some(path) => format!("the same command goes on from {}", path.display()),
                None => "nothing is kept without --progress".into(),
            };
            let _ = writeln!(std::io::stderr(), "stopped; {next}");
            Ok(ExitCode::from(130))
        }
        Err(error) => Err(error),
    }
}

impl Common {
    fn open_device(&self) -> anyhow::Result<(Device, String)> {
        self.device.open().map_err(|message| anyhow!(message))
    }
}

// The report with what it is a report of.
fn object(
    eval: &str,
    subject: &EvalModel,
    model: &std::path::Path,
    device: &str,
    report: impl serde::Serialize,
) -> Value {
    let mut object = json!({ "eval": eval, "folder": model.display().to_string(), "device": device });
    for part in [subject.identity(), serde_json::to_value(report).unwrap_or_default()] {
        if let (Value::Object(all), Value::Object(part)) = (&mut object, part) {
            all.extend(part);
        }
    }
    object
}

fn run_ppl(args: &PplArgs) -> anyhow::Result<Value> {
    let (device, device_name) = args.common.open_device()?;
    let data = DataFolder::open(&args.data)?;
    let subject = EvalModel::load(&args.model, &device)?.with_weight_dtype(args.common.weights.weights())?;
    let settings = PplSettings {
        split: args.split.clone(),
        rows: args.rows,
        times: args.times,
        seed: args.common.seed,
        batch: args.batch,
    };
    let ledger = ResultLog::open(args.common.progress.as_deref(), &eval::ppl::identity(&subject, &data, &settings))?;
    let mut bar = Bar::new("rows");
    let report = eval::ppl(&subject, &data, &settings, ledger, &mut |done, all| bar.update(done, all))?;
    // What narrower weights cost: the same rows and draws with those that were trained.
    let change = if args.common.weights.weights() == WeightDtype::F32 {
        None
    } else {
        drop(bar);
        let subject = EvalModel::load(&args.model, &device)?;
        let progress = args.common.progress.as_ref().map(|path| path.with_extension("f32.jsonl"));
        let ledger = ResultLog::open(progress.as_deref(), &eval::ppl::identity(&subject, &data, &settings))?;
        let mut bar = Bar::new("rows with float32 weights");
        let full = eval::ppl(&subject, &data, &settings, ledger, &mut |done, all| bar.update(done, all))?;
        report.difference(&full)
    };
    let mut object = object("ppl", &subject, &args.model, &device_name, report);
    if let Some(change) = change {
        object["nats_per_token_over_f32"] = serde_json::to_value(change)?;
    }
    object["batch"] = args.batch.into();
    object["data"] = args.data.display().to_string().into();
    Ok(object)
}

fn run_generative(args: &GenerativeArgs) -> anyhow::Result<Value> {
    let (device, device_name) = args.common.open_device()?;
    if args.mauve.is_some() && judge::is_own(&args.judge) {
        bail!("--mauve compares features of a GPT-2; {} is one of ours", args.judge.display());
    }
    // Before hours of sampling: whether there is someone to judge.
    let judge = judge::open(&args.judge, &device)?;
    let mut object = json!({
        "eval": "generative", "device": device_name, "judge": args.judge.display().to_string(), "batch": args.batch,
    });
    let mut same_tokens = args.same_tokens;
    let samples: Vec<Sample> = match (&args.samples, &args.model) {
        (Some(path), _) => {
            object["samples_file"] = path.display().to_string().into();
            read_samples(path)?
        }
        (None, Some(folder)) => {
            let subject = EvalModel::load(folder, &device)?.with_weight_dtype(args.common.weights.weights())?;
            let settings = GenerativeSettings {
                samples: args.n,
                length: args.length,
                steps: args.steps,
                order: args.order.kind().map_err(|message| anyhow!(message))?,
                temperature: args.temp,
                top_k: args.top_k,
                top_p: args.top_p,
                seed: args.common.seed,
                batch: args.batch,
            };
            let identity = eval::generative::identity(&subject, &settings);
            let ledger = ResultLog::open(args.common.progress.as_deref(), &identity)?;
            let mut bar = Bar::new("samples");
            let batches = eval::sample_texts(&subject, &settings, ledger, &mut |done, all| bar.update(done, all))?;
            drop(bar);
            let tokenizer = args.judge.join(TOKENIZER_FILE);
            let json =
                std::fs::read(&tokenizer).map_err(|error| anyhow!("cannot read {}: {error}", tokenizer.display()))?;
            same_tokens = eval::same_tokenizer(folder, &json)?;
            object["folder"] = folder.display().to_string().into();
            object["subject"] = subject.identity();
            object["sampling"] = serde_json::to_value(&settings)?;
            object["sampling"]["sampler"] = match subject.model().config() {
                ModelConfig::Partition(_) => "uniform".into(),
                ModelConfig::Masked(_) => "ancestral".into(),
                ModelConfig::Autoregressive(_) => "left to right".into(),
            };
            let seconds: f64 = batches.iter().map(|batch| batch.seconds).sum();
            object["sampling_seconds"] = seconds.into();
            batches.into_iter().flat_map(|batch| batch.samples).collect()
        }
        (None, None) => bail!("give --model or --samples"),
    };
    if let Some(path) = &args.save_samples {
        write_samples(path, &samples)?;
    }
    let settings = JudgeSettings { length: args.judge_length, batch: args.batch, seed: args.common.seed, same_tokens };
    let mut bar = Bar::new("judged");
    let report = judge_samples(judge.as_ref(), &samples, &settings, &mut |done, all| bar.update(done, all))?;
    object["report"] = serde_json::to_value(report)?;
    if let Some(path) = &args.mauve {
        let judge = Gpt2Judge::load(&args.judge, &device)?;
        let mut features = |samples: &[Sample]| {
            judge.features(samples, args.judge_length, args.batch, &mut |done, all| bar.update(done, all))
        };
        let (of_samples, of_texts) = (features(&samples)?, features(&read_samples(path)?)?);
        let mauve = judge::mauve(&of_samples, &of_texts, args.common.seed)?;
        object["mauve"] = serde_json::to_value(mauve)?;
        object["mauve_texts"] = path.display().to_string().into();
    }
    Ok(object)
}

fn run_choice(args: &ChoiceArgs) -> anyhow::Result<Value> {
    let (device, device_name) = args.common.open_device()?;
    let questions = eval::choice::read_questions(&args.data)?;
    let subject = EvalModel::load(&args.model, &device)?.with_weight_dtype(args.common.weights.weights())?;
    let settings = ChoiceSettings {
        draws: args.draws,
        reduction: match args.reduction {
            Reduction::Sum => eval::choice::Reduction::Sum,
            Reduction::Mean => eval::choice::Reduction::Mean,
        },
        separator: args.separator.clone(),
        seed: args.common.seed,
        batch: args.batch,
    };
    let identity = eval::choice::identity(&subject, &questions, &settings);
    let ledger = ResultLog::open(args.common.progress.as_deref(), &identity)?;
    let mut bar = Bar::new("questions");
    let report = eval::choice(&subject, &questions, &settings, ledger, &mut |done, all| bar.update(done, all))?;
    let mut object = object("choice", &subject, &args.model, &device_name, report);
    object["batch"] = args.batch.into();
    object["data"] = args.data.display().to_string().into();
    Ok(object)
}

fn run_greedy(args: &GreedyArgs) -> anyhow::Result<Value> {
    let (device, device_name) = args.common.open_device()?;
    let items = eval::greedy::read_last_words(&args.data)?;
    let subject = EvalModel::load(&args.model, &device)?.with_weight_dtype(args.common.weights.weights())?;
    let settings = GreedySettings { seed: args.common.seed };
    let identity = eval::greedy::identity(&subject, &items, &settings);
    let ledger = ResultLog::open(args.common.progress.as_deref(), &identity)?;
    let mut bar = Bar::new("texts");
    let report = eval::greedy(&subject, &items, &settings, ledger, &mut |done, all| bar.update(done, all))?;
    let mut object = object("greedy", &subject, &args.model, &device_name, report);
    object["data"] = args.data.display().to_string().into();
    Ok(object)
}

/// A bar on a terminal, otherwise a plain line every few seconds.
struct Bar {
    bar: ProgressBar,
    what: &'static str,
    plain: bool,
    start: Instant,
    last: Instant,
    first: Option<usize>,
}

impl Bar {
    fn new(what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let template = format!("{{bar:30}} {{pos}}/{{len}} {what}  {{per_sec}}  {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        let now = Instant::now();
        Self { bar, what, plain: !std::io::stderr().is_terminal(), start: now, last: now, first: None }
    }

    fn update(&mut self, done: usize, all: usize) -> ControlFlow<()> {
        let first = *self.first.get_or_insert(done);
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
        if self.plain && done > first && self.last.elapsed() > Duration::from_secs(5) {
            self.last = Instant::now();
            let rate = (done - first) as f64 / self.start.elapsed().as_secs_f64();
            let left = (all - done) as f64 / rate;
            let _ = writeln!(std::io::stderr(), "{done} of {all} {}  {rate:.2}/s  {left:.0} s left", self.what);
        }
        if STOP.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
