//! `pgm-train eval cache`.

use std::path::PathBuf;

use anyhow::{anyhow, bail};
use clap::Args;
use pgm_data::DataFolder;
use pgm_infer::device::{DeviceName, WeightArgs};
use pgm_infer::sample::Refresh;
use pgm_model::model_folder::{resolve, write_file};
use pgm_train::eval::cache::{CacheInputs, CacheSettings, measure};
use pgm_train::eval::{EvalModel, same_tokenizer};
use pgm_train::judge;
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
    let same_tokens = match &args.judge {
        Some(folder) => same_tokenizer(&resolve(folder)?, data.tokenizer()?.json())?,
        None => false,
    };
    let (refresh, seed) = (args.refresh.clone(), args.seed);
    let settings = CacheSettings { refresh, rows: args.rows, steps: args.steps, seed };
    let inputs = CacheInputs {
        model: &model,
        data: &data,
        judge: judge.as_deref().map(|judge| (judge, same_tokens)),
        samples: args.n,
        batch: args.batch,
        runs: args.runs,
        device: &device,
        out: &args.out,
    };
    let (mut unit, mut progress) = ("rows", Progress::new("rows"));
    let report = measure(&inputs, &settings, &mut |now, done, all| {
        if now != unit {
            (unit, progress) = (now, Progress::new(now));
        }
        progress.update(done, all)
    })?;
    drop(progress);
    let object = json!({
        "eval": "cache", "folder": model.folder().display().to_string(), "device": device_name,
        "subject": model.identity(), "trained_sets": model.text_model().config().sets(), "settings": settings,
        "batch": args.batch, "figures": report.figures, "speed": report.speed, "judge": report.judge,
    });
    let files = [
        ("cache.json", serde_json::to_string_pretty(&object)?),
        ("cache.md", report.table()),
        ("cache.svg", report.plot()?),
    ];
    for (name, text) in files {
        write_file(&args.out.join(name), text.as_bytes())?;
    }
    Ok(object)
}
