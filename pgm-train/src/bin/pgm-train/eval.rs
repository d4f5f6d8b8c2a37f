//! `pgm-train eval`: prints one JSON object per evaluation, of a frontier its tables.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use burn::tensor::Device;
use clap::{Args, Subcommand, ValueEnum};
use pgm_data::DataFolder;
use pgm_infer::device::{DeviceName, WeightArgs};
use pgm_infer::sample::Refresh;
use pgm_infer::sample::order::OrderFlags;
use pgm_model::model_folder::{TOKENIZER_FILE, resolve};
use pgm_model::{ModelConfig, Sets, WeightDtype};
use pgm_train::eval::choice::Reduction;
use pgm_train::eval::{self, ChoiceSettings, EvalModel, GenerativeSettings, GreedySettings, PplSettings, ResultLog};
use pgm_train::judge::{self, JudgeSettings, Sample, judge_samples, read_samples, write_samples};
use pgm_train::{NelboEstimator, TrainError};
use serde_json::{Value, json};

use super::eval_cache::{self, CacheArgs};
use super::eval_frontier::{self, FrontierArgs, PoolingArg};
use super::eval_images::{self, ImagesArgs};
use super::progress::{Progress, stop_on_ctrl_c};

#[derive(Subcommand)]
pub enum EvalCommand {
    /// Perplexity of a data folder: by the NELBO, or by the exact NLL of an autoregressive model
    Ppl(PplArgs),
    /// Perplexity, entropy and diversity of samples under a judge
    Generative(GenerativeArgs),
    /// Curves of perplexity under a judge against entropy, of several models at equal wall time
    Frontier(FrontierArgs),
    /// Multiple choice by likelihood
    Choice(ChoiceArgs),
    /// The last word of a text, all its tokens predicted at once
    Greedy(GreedyArgs),
    /// What a partition model loses and gains when it keeps what it has encoded, over refresh intervals
    Cache(CacheArgs),
    /// FID, KID, Inception Score, precision and recall, MIND of a model's pictures, or of others
    Images(ImagesArgs),
}

#[derive(Args)]
struct Common {
    /// Seed of all random draws; with one seed, all models get the same rows and hidden tokens
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A file for the results so far; the same command continues from it after a stop
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
    /// Model folder, or a training run: RUN, RUN@best, RUN@last or RUN@step-N
    #[arg(long)]
    model: PathBuf,
    /// Data folder, made by pgm-data prepare with the model's tokenizer
    #[arg(long)]
    data: PathBuf,
    /// Split: train or validation
    #[arg(long, default_value = "validation")]
    split: String,
    /// Number of rows, drawn with the seed; 0 takes all
    #[arg(long, default_value_t = 0)]
    rows: usize,
    /// Draws of hidden tokens per row
    #[arg(short = 'n', long, visible_alias = "draws", default_value_t = 8)]
    times: usize,
    /// How the NELBO is estimated; an autoregressive model has an exact likelihood
    #[arg(long, value_enum, default_value = "any-order")]
    estimator: EstimatorArg,
    /// How the tokens that are not hidden are divided into ordered sets: one, mix or a number [default: as in training]
    #[arg(long, value_name = "one|mix|N", conflicts_with = "one_pass")]
    sets: Option<Sets>,
    /// Score all tokens of a row in one pass: a draw is the likelihood in one random order, as a partition model writes it that
    /// encodes each token once
    #[arg(long)]
    one_pass: bool,
    /// Rows of a batch
    #[arg(long, default_value_t = 8)]
    batch: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub struct GenerativeArgs {
    /// Model folder, or a training run (RUN, RUN@best, RUN@last, RUN@step-N); its samples are judged
    #[arg(long, required_unless_present = "samples", conflicts_with = "samples")]
    model: Option<PathBuf>,
    /// A file of samples instead of a model: JSON lines with text and, if known, tokens
    #[arg(long, value_name = "FILE")]
    samples: Option<PathBuf>,
    /// The judge's folder: a GPT-2 (config.json, model.safetensors, tokenizer.json), or an autoregressive model of pgm-train
    #[arg(long)]
    judge: PathBuf,
    /// Number of samples
    #[arg(short, default_value_t = 1024)]
    n: usize,
    /// Length of a sample, BOS included [default: the model's]
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
    /// Keep the most probable tokens that together have this probability
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// How often a partition model encodes clean tokens anew, see `pgm-infer generate` [default: the model's]
    #[arg(long, value_name = "R|inf")]
    refresh: Option<Refresh>,
    /// Tokens to which texts are cut for the public code's perplexity
    #[arg(long, default_value_t = 1024)]
    judge_length: usize,
    /// Samples of a batch
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// With --samples: their tokens are in the judge's vocabulary [with --model this follows from the tokenizers]
    #[arg(long)]
    same_tokens: bool,
    /// Write the samples to this file
    #[arg(long, value_name = "FILE")]
    save_samples: Option<PathBuf>,
    /// Reference texts for MAUVE, JSON lines with text
    #[arg(long, value_name = "FILE")]
    mauve: Option<PathBuf>,
    /// MAUVE's features: the judge's hidden state of the last token, or the mean over the text
    #[arg(long, value_enum, default_value = "last", requires = "mauve")]
    mauve_features: PoolingArg,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, ValueEnum)]
enum EstimatorArg {
    /// A stratified count k of the n tokens is hidden, with the weight n/k
    AnyOrder,
    /// MDLM's: each token is hidden with the probability of a time t, with the weight 1/t
    Mdlm,
}

impl EstimatorArg {
    fn estimator(self) -> NelboEstimator {
        match self {
            Self::AnyOrder => NelboEstimator::AnyOrder,
            Self::Mdlm => NelboEstimator::Mdlm,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum ReductionArg {
    /// Minus the NELBO
    Sum,
    /// Minus the NELBO per token, as in the public code
    Mean,
}

#[derive(Args)]
pub struct ChoiceArgs {
    /// Model folder, or a training run: RUN, RUN@best, RUN@last or RUN@step-N
    #[arg(long)]
    model: PathBuf,
    /// Questions: JSON lines with context, choices and label
    #[arg(long)]
    data: PathBuf,
    /// Draws for the NELBO of each choice
    #[arg(long, default_value_t = 1024)]
    draws: usize,
    /// How the NELBO is estimated; an autoregressive model has an exact likelihood
    #[arg(long, value_enum, default_value = "any-order")]
    estimator: EstimatorArg,
    /// How the score of a choice is computed
    #[arg(long, value_enum, default_value = "sum")]
    reduction: ReductionArg,
    /// Text between context and choice
    #[arg(long, default_value = " ")]
    separator: String,
    /// Draws of a batch
    #[arg(long, default_value_t = 32)]
    batch: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
pub struct GreedyArgs {
    /// Model folder, or a training run: RUN, RUN@best, RUN@last or RUN@step-N
    #[arg(long)]
    model: PathBuf,
    /// Texts: JSON lines with text
    #[arg(long)]
    data: PathBuf,
    #[command(flatten)]
    common: Common,
}

pub fn run(command: &EvalCommand) -> anyhow::Result<ExitCode> {
    // Without a handler, Ctrl-C would end the program at once and lose results that are not in the progress file yet.
    stop_on_ctrl_c();
    let cache_log;
    let (log, result) = match command {
        EvalCommand::Ppl(args) => (args.common.progress.as_ref(), printed(run_ppl(args))),
        EvalCommand::Generative(args) => (args.common.progress.as_ref(), printed(run_generative(args))),
        EvalCommand::Frontier(args) => (Some(args.out()), eval_frontier::run(args)),
        EvalCommand::Choice(args) => (args.common.progress.as_ref(), printed(run_choice(args))),
        EvalCommand::Greedy(args) => (args.common.progress.as_ref(), printed(run_greedy(args))),
        EvalCommand::Cache(args) => {
            cache_log = args.log();
            (Some(&cache_log), printed(eval_cache::run(args)))
        }
        EvalCommand::Images(args) => (args.progress.as_ref(), printed(eval_images::run(args))),
    };
    match result {
        Ok(text) => {
            writeln!(std::io::stdout(), "{text}")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if matches!(error.downcast_ref(), Some(TrainError::Stopped)) => {
            let next = match log {
                Some(path) => format!("the same command continues from {}", path.display()),
                None => "without --progress the results so far are lost".into(),
            };
            let _ = writeln!(std::io::stderr(), "stopped; {next}");
            Ok(ExitCode::from(130))
        }
        Err(error) => Err(error),
    }
}

fn printed(object: anyhow::Result<Value>) -> anyhow::Result<String> {
    Ok(object?.to_string())
}

impl Common {
    fn open_device(&self) -> anyhow::Result<(Device, String)> {
        self.device.open().map_err(|message| anyhow!(message))
    }
}

// The report, with the evaluation's name, the model and the device.
fn object(eval: &str, model: &EvalModel, device: &str, report: impl serde::Serialize) -> Value {
    let mut object = json!({ "eval": eval, "folder": model.folder().display().to_string(), "device": device });
    for part in [model.identity(), serde_json::to_value(report).unwrap_or_default()] {
        if let (Value::Object(all), Value::Object(part)) = (&mut object, part) {
            all.extend(part);
        }
    }
    object
}

fn run_ppl(args: &PplArgs) -> anyhow::Result<Value> {
    let (device, device_name) = args.common.open_device()?;
    let data = DataFolder::open(&args.data)?;
    let model = EvalModel::load(&args.model, &device)?.with_weight_dtype(args.common.weights.weights())?;
    let settings = PplSettings {
        split: args.split.clone(),
        rows: args.rows,
        times: args.times,
        estimator: args.estimator.estimator(),
        sets: args.sets,
        one_pass: args.one_pass,
        seed: args.common.seed,
        batch: args.batch,
    };
    let log = ResultLog::open(args.common.progress.as_deref(), &eval::ppl::identity(&model, &data, &settings)?)?;
    let mut progress = Progress::new("rows");
    let report = eval::ppl(&model, &data, &settings, log, &mut |done, all| progress.update(done, all))?;
    // The loss by the weights' dtype: the same rows and draws with the float32 weights.
    let difference = if args.common.weights.weights() == WeightDtype::F32 {
        None
    } else {
        drop(progress);
        let model = EvalModel::load(&args.model, &device)?;
        let log_path = args.common.progress.as_ref().map(|path| path.with_extension("f32.jsonl"));
        let log = ResultLog::open(log_path.as_deref(), &eval::ppl::identity(&model, &data, &settings)?)?;
        let mut progress = Progress::new("rows with float32 weights");
        let full = eval::ppl(&model, &data, &settings, log, &mut |done, all| progress.update(done, all))?;
        report.difference(&full)
    };
    let mut object = object("ppl", &model, &device_name, report);
    if let Some(difference) = difference {
        object["nats_per_token_over_f32"] = serde_json::to_value(difference)?;
    }
    object["batch"] = args.batch.into();
    object["data"] = args.data.display().to_string().into();
    Ok(object)
}

fn run_generative(args: &GenerativeArgs) -> anyhow::Result<Value> {
    let (device, device_name) = args.common.open_device()?;
    // Tried first, so that a wrong folder fails before hours of sampling.
    if let Some(path) = &args.save_samples
        && path.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir())
    {
        bail!("cannot write --save-samples {}: its folder does not exist; make it first", path.display());
    }
    let judge = judge::open(&args.judge, &device)?;
    let references = args.mauve.as_deref().map(read_samples).transpose()?;
    let mut object = json!({
        "eval": "generative", "device": device_name, "judge": args.judge.display().to_string(), "batch": args.batch,
    });
    let (samples, same_tokens) = match (&args.samples, &args.model) {
        (Some(path), _) => {
            object["samples_file"] = path.display().to_string().into();
            (read_samples(path)?, args.same_tokens)
        }
        (None, Some(folder)) => draw_samples(args, folder, &device, &mut object)?,
        (None, None) => bail!("give --model or --samples"),
    };
    if let Some(path) = &args.save_samples {
        write_samples(path, &samples)?;
    }
    let settings = JudgeSettings { length: args.judge_length, batch: args.batch, seed: args.common.seed, same_tokens };
    let mut progress = Progress::new("judged");
    let report = judge_samples(judge.as_ref(), &samples, &settings, &mut |done, all| progress.update(done, all))?;
    object["report"] = serde_json::to_value(report)?;
    if let (Some(path), Some(texts)) = (&args.mauve, references) {
        let pooling = args.mauve_features.pooling();
        // Both sets by their texts, as the references have no tokens.
        let by_text = JudgeSettings { same_tokens: false, ..settings };
        let mut features = |samples: &[Sample]| {
            let observe = &mut |done, all| progress.update(done, all);
            judge::features(judge.as_ref(), samples, &by_text, pooling, observe)
        };
        let (of_samples, of_texts) = (features(&samples)?, features(&texts)?);
        let mauve = judge::mauve(&of_samples, &of_texts, args.common.seed, judge::CLUSTERINGS)?;
        object["mauve"] = serde_json::to_value(mauve)?;
        object["mauve_features"] = judge::feature_name(judge.as_ref(), pooling).into();
        object["mauve_texts"] = path.display().to_string().into();
    }
    Ok(object)
}

// Samples of a model, and whether their tokens are the judge's. Adds the model and the settings to `object`.
fn draw_samples(
    args: &GenerativeArgs,
    folder: &Path,
    device: &Device,
    object: &mut Value,
) -> anyhow::Result<(Vec<Sample>, bool)> {
    let model = EvalModel::load(folder, device)?.with_weight_dtype(args.common.weights.weights())?;
    let settings = GenerativeSettings {
        samples: args.n,
        length: args.length,
        steps: args.steps,
        order: args.order.kind().map_err(|message| anyhow!(message))?,
        temperature: args.temp,
        top_k: args.top_k,
        top_p: args.top_p,
        refresh: args.refresh,
        seed: args.common.seed,
        batch: args.batch,
    };
    let identity = eval::generative::identity(&model, &settings);
    let log = ResultLog::open(args.common.progress.as_deref(), &identity)?;
    let mut progress = Progress::new("samples");
    let batches = eval::sample_texts(&model, &settings, log, &mut |done, all| progress.update(done, all))?;
    drop(progress);
    let tokenizer = resolve(&args.judge)?.join(TOKENIZER_FILE);
    let json = std::fs::read(&tokenizer).map_err(|error| anyhow!("cannot read {}: {error}", tokenizer.display()))?;
    let same_tokens = eval::same_tokenizer(model.folder(), &json)?;
    object["folder"] = model.folder().display().to_string().into();
    object["subject"] = model.identity();
    object["sampling"] = serde_json::to_value(&settings)?;
    object["sampling"]["sampler"] = match model.text_model().config() {
        ModelConfig::Partition(_) => "uniform".into(),
        ModelConfig::Masked(_) => "ancestral".into(),
        ModelConfig::MaskGit(_) => "uniform".into(),
        ModelConfig::Autoregressive(_) => "left to right".into(),
    };
    let seconds: f64 = batches.iter().map(|batch| batch.seconds).sum();
    object["sampling_seconds"] = seconds.into();
    Ok((batches.into_iter().flat_map(|batch| batch.samples).collect(), same_tokens))
}

fn run_choice(args: &ChoiceArgs) -> anyhow::Result<Value> {
    let (device, device_name) = args.common.open_device()?;
    let questions = eval::choice::read_questions(&args.data)?;
    let model = EvalModel::load(&args.model, &device)?.with_weight_dtype(args.common.weights.weights())?;
    let settings = ChoiceSettings {
        draws: args.draws,
        estimator: args.estimator.estimator(),
        reduction: match args.reduction {
            ReductionArg::Sum => Reduction::Sum,
            ReductionArg::Mean => Reduction::Mean,
        },
        separator: args.separator.clone(),
        seed: args.common.seed,
        batch: args.batch,
    };
    let identity = eval::choice::identity(&model, &questions, &settings);
    let log = ResultLog::open(args.common.progress.as_deref(), &identity)?;
    let mut progress = Progress::new("questions");
    let report = eval::choice(&model, &questions, &settings, log, &mut |done, all| progress.update(done, all))?;
    let mut object = object("choice", &model, &device_name, report);
    object["batch"] = args.batch.into();
    object["data"] = args.data.display().to_string().into();
    Ok(object)
}

fn run_greedy(args: &GreedyArgs) -> anyhow::Result<Value> {
    let (device, device_name) = args.common.open_device()?;
    let texts = eval::greedy::read_last_words(&args.data)?;
    let model = EvalModel::load(&args.model, &device)?.with_weight_dtype(args.common.weights.weights())?;
    let settings = GreedySettings { seed: args.common.seed };
    let identity = eval::greedy::identity(&model, &texts, &settings);
    let log = ResultLog::open(args.common.progress.as_deref(), &identity)?;
    let mut progress = Progress::new("texts");
    let report = eval::greedy(&model, &texts, &settings, log, &mut |done, all| progress.update(done, all))?;
    let mut object = object("greedy", &model, &device_name, report);
    object["data"] = args.data.display().to_string().into();
    Ok(object)
}
