//! `pgm-train eval cache`.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use burn::tensor::Device;
use clap::Args;
use pgm_data::DataFolder;
use pgm_infer::OrderKind;
use pgm_infer::bench::{Workload, alternate, median};
use pgm_infer::denoise::HeadPositions;
use pgm_infer::device::{DeviceName, WeightArgs};
use pgm_infer::sample::Refresh;
use pgm_model::model_folder::{resolve, write_file};
use pgm_train::eval::cache::{self, CacheFigures, CacheSettings, CacheSpeed};
use pgm_train::eval::{self, EvalModel, GenerativeSettings, ResultLog};
use pgm_train::judge::{self, JudgeReport, JudgeSettings, Sample, judge_samples};
use serde_json::{Value, json};

use super::progress::Progress;

#[derive(Args)]
pub struct CacheArgs {
    /// Partition model folder, or a training run: RUN, RUN@best, RUN@last or RUN@step-N
    #[arg(long)]
    model: PathBuf,
    /// Data folder, made by pgm-data prepare with the model's tokenizer
    #[arg(long)]
    data: PathBuf,
    /// Refresh intervals to compare, see `pgm-infer generate`
    #[arg(long, value_name = "R,R,...", value_delimiter = ',', default_value = "1,2,4,8,16,inf")]
    refresh: Vec<Refresh>,
    /// Steps in which a row is written
    #[arg(long, default_value_t = 64)]
    steps: usize,
    /// Validation rows, drawn with the seed; 0 takes all
    #[arg(long, default_value_t = 64)]
    rows: usize,
    /// Rows that are sampled together in the measurement of speed
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Timed runs of each interval, in turns
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Also judge samples: a GPT-2's folder, or an autoregressive model of pgm-train
    #[arg(long)]
    judge: Option<PathBuf>,
    /// Samples for the judge
    #[arg(short, default_value_t = 64)]
    n: usize,
    /// Seed of all random draws
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A folder for cache.json, cache.md and cache.svg; the same command continues from what is there
    #[arg(long)]
    out: PathBuf,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    #[command(flatten)]
    weights: WeightArgs,
}

impl CacheArgs {
    /// Where the results so far are.
    pub fn log(&self) -> PathBuf {
        self.out.join("rows.jsonl")
    }
}

pub fn run(args: &CacheArgs) -> anyhow::Result<Value> {
    let (device, device_name) = args.device.open().map_err(|message| anyhow!(message))?;
    let data = DataFolder::open(&args.data)?;
    let model = EvalModel::load(&args.model, &device)?.with_weight_dtype(args.weights.weights())?;
    let judge = args.judge.as_deref().map(|folder| judge::open(folder, &device)).transpose()?;
    if args.judge.is_some() && args.n == 0 {
        bail!("-n is 0; a judge needs at least one sample");
    }
    let (refresh, seed) = (args.refresh.clone(), args.seed);
    let settings = CacheSettings { refresh, rows: args.rows, steps: args.steps, seed };
    cache::check(&model, &data, &settings)?;
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot create {}", args.out.display()))?;
    let log = ResultLog::open(Some(&args.log()), &cache::identity(&model, &data, &settings)?)?;
    let mut progress = Progress::new("rows");
    let figures = cache::cache(&model, &data, &settings, log, &mut |done, all| progress.update(done, all))?;
    drop(progress);
    let length = data.manifest().length;
    let speeds = speeds(args, &model, length, &device)?;
    let judged = match &judge {
        Some(judge) => {
            let folder = args.judge.as_deref().map(resolve).transpose()?;
            let json = data.tokenizer()?.json();
            let same_tokens = folder.map(|folder| eval::same_tokenizer(&folder, json)).transpose()?.unwrap_or_default();
            let judged = |&refresh| judged(args, &model, judge.as_ref(), (refresh, length, same_tokens));
            args.refresh.iter().map(judged).collect()
        }
        None => Ok(Vec::new()),
    };
    let judged: Vec<JudgeReport> = judged?;
    let table = table(&figures, &speeds, &judged);
    let object = json!({
        "eval": "cache", "folder": model.folder().display().to_string(), "device": device_name,
        "subject": model.identity(), "trained_sets": model.text_model().config().sets(), "settings": settings,
        "batch": args.batch, "figures": figures, "speed": speeds, "judge": judged,
    });
    let files = [
        ("cache.json", serde_json::to_string_pretty(&object)?),
        ("cache.md", table),
        ("cache.svg", cache::plot(&figures, &speeds)?),
    ];
    for (name, text) in files {
        write_file(&args.out.join(name), text.as_bytes())?;
    }
    Ok(object)
}

// The intervals take turns, so that what else the machine does meets them all.
fn speeds(args: &CacheArgs, model: &EvalModel, length: usize, device: &Device) -> anyhow::Result<Vec<CacheSpeed>> {
    let model = model.text_model();
    let mut seconds = vec![Vec::new(); args.refresh.len()];
    let mut progress = Progress::new("timed runs");
    for round in 0..args.runs.max(1) {
        for (index, (&refresh, seconds)) in args.refresh.iter().zip(&mut seconds).enumerate() {
            let workload = Workload {
                length,
                batch: args.batch.max(1),
                steps: args.steps,
                warmup: usize::from(round == 0),
                runs: 1,
                head_at: HeadPositions::Decoded,
                order: OrderKind::Uniform,
                guidance: 0.0,
                refresh: Some(refresh),
            };
            let measured = alternate(&[(model.network(), model.config())], device, &workload)?;
            seconds.push(measured[0].seconds_median());
            let (done, all) = (round * args.refresh.len() + index + 1, args.runs.max(1) * args.refresh.len());
            if progress.update(done, all).is_break() {
                return Err(pgm_train::TrainError::Stopped.into());
            }
        }
    }
    let n_tokens = args.batch.max(1) * length;
    Ok(seconds.iter().map(|seconds| CacheSpeed::new(n_tokens, median(seconds))).collect())
}

fn judged(
    args: &CacheArgs,
    model: &EvalModel,
    judge: &dyn judge::Judge,
    (refresh, length, same_tokens): (Refresh, usize, bool),
) -> anyhow::Result<JudgeReport> {
    let settings = GenerativeSettings {
        samples: args.n,
        length,
        steps: args.steps,
        refresh: Some(refresh),
        seed: args.seed,
        ..GenerativeSettings::default()
    };
    let path = args.out.join(format!("samples-{refresh}.jsonl"));
    let log = ResultLog::open(Some(&path), &eval::generative::identity(model, &settings))?;
    let mut progress = Progress::new("samples");
    let batches = eval::sample_texts(model, &settings, log, &mut |done, all| progress.update(done, all))?;
    let samples: Vec<Sample> = batches.into_iter().flat_map(|batch| batch.samples).collect();
    let settings = JudgeSettings { length: 1024, batch: 8, seed: args.seed, same_tokens };
    Ok(judge_samples(judge, &samples, &settings, &mut |done, all| progress.update(done, all))?)
}

// A Markdown table.
fn table(figures: &[CacheFigures], speeds: &[CacheSpeed], judged: &[JudgeReport]) -> String {
    let estimate = |estimate: Option<judge::metrics::Estimate>, digits: usize| match estimate {
        Some(estimate) => match estimate.interval {
            Some([low, high]) => format!("{:.digits$} ({low:.digits$} to {high:.digits$})", estimate.value),
            None => format!("{:.digits$}", estimate.value),
        },
        None => "-".to_string(),
    };
    let mut lines = vec![
        "| refresh | nats per token | over R = 1 | KL per token | tokens/s | judge perplexity | entropy |".to_string(),
        "|---|---|---|---|---|---|---|".to_string(),
    ];
    for (index, (figures, speed)) in figures.iter().zip(speeds).enumerate() {
        let report = judged.get(index);
        let cells = [
            figures.refresh.to_string(),
            estimate(figures.nats_per_token, 3),
            estimate(figures.nats_over_anew, 4),
            estimate(figures.kl_per_token, 4),
            format!("{:.0}", speed.tokens_per_second),
            estimate(report.and_then(|report| report.paper.perplexity), 1),
            estimate(report.and_then(|report| report.entropy_model_tokens), 3),
        ];
        lines.push(format!("| {} |", cells.join(" | ")));
    }
    lines.join("\n") + "\n"
}
