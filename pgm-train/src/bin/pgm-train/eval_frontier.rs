//! `pgm-train eval frontier`: curves of perplexity under a judge against entropy, for several models.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use pgm_data::DataFolder;
use pgm_infer::device::{DeviceName, WeightArgs};
use pgm_infer::sample::Refresh;
use pgm_infer::sample::order::OrderFlags;
use pgm_model::ModelConfig;
use pgm_train::eval::frontier::{FrontierInputs, FrontierJudge, FrontierModel, FrontierProgress, Phase};
use pgm_train::eval::{EvalModel, FrontierSettings, frontier};
use pgm_train::judge::Pooling;

use super::progress::Progress;

#[derive(Args)]
pub struct FrontierArgs {
    /// A model to compare: a model folder or a training run (RUN, RUN@best, RUN@last, RUN@step-N), with a name for tables and
    /// plots if wanted. Give it once for each model; the others are compared with the first
    #[arg(long = "model", value_name = "[NAME=]FOLDER", required = true)]
    models: Vec<String>,
    /// The judge's folder: a GPT-2, or an autoregressive model of pgm-train. Its hidden states are also MAUVE's features
    #[arg(long, value_name = "FOLDER")]
    judge: PathBuf,
    /// Data folder of the models' tokenizer: samples have the length of its rows and are compared with its held-out rows
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Split of the held-out rows
    #[arg(long, default_value = "validation", value_parser = ["train", "validation"])]
    split: String,
    /// Temperatures: the points of a curve
    #[arg(long, visible_alias = "temp", value_name = "T,T,..", value_delimiter = ',', default_values_t = [0.6, 0.7, 0.8, 0.9, 1.0])]
    temperature: Vec<f64>,
    /// Shares of probability that are kept: each has curves of its own, or with one temperature they are a curve's points
    #[arg(long, value_name = "P,P,..", value_delimiter = ',', default_values_t = [1.0])]
    top_p: Vec<f64>,
    /// Numbers of sampling steps; an autoregressive model takes one step a token
    #[arg(long, value_name = "K,K,..", value_delimiter = ',', default_values_t = [16, 32, 64, 128])]
    steps: Vec<usize>,
    /// How often partition models encode clean tokens anew, see `pgm-infer generate`; each interval counts as a model of its
    /// own [default: as each was trained]
    #[arg(long, value_name = "R,R,..", value_delimiter = ',')]
    refresh: Vec<Refresh>,
    #[command(flatten)]
    order: OrderFlags,
    /// Samples of each point, and held-out rows; more of them continue a folder
    #[arg(short, default_value_t = 256)]
    n: usize,
    /// Wall time of a sample at which the models are compared, each with the most steps that fit [default: the least at which
    /// every model has a curve]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Folder for samples, judgements, tables and plots; the same command continues from it after a stop
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Samples of a batch; the wall time of a sample depends on it
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Timed batches of each curve; the curves take turns
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// MAUVE's features: the judge's hidden state of the last token, or the mean over the row
    #[arg(long, value_enum, default_value = "last")]
    mauve_features: PoolingArg,
    /// Clusterings of each MAUVE
    #[arg(long, default_value_t = pgm_train::judge::CLUSTERINGS)]
    clusterings: usize,
    /// Seed of the samples, the choice of rows, the bootstrap and the clusterings
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print the JSON object of frontier.json on one line instead of the tables
    #[arg(long)]
    json: bool,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
    #[command(flatten)]
    weights: WeightArgs,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum PoolingArg {
    /// The hidden state of the last token, as MAUVE's authors do
    Last,
    /// The mean of the hidden states over the row
    Mean,
}

impl PoolingArg {
    pub fn pooling(self) -> Pooling {
        match self {
            Self::Last => Pooling::Last,
            Self::Mean => Pooling::Mean,
        }
    }
}

impl FrontierArgs {
    /// Where the results so far are kept.
    pub fn out(&self) -> &PathBuf {
        &self.out
    }

    fn settings(&self) -> anyhow::Result<FrontierSettings> {
        Ok(FrontierSettings {
            temperatures: self.temperature.clone(),
            top_ps: self.top_p.clone(),
            steps: self.steps.clone(),
            samples: self.n,
            order: self.order.kind().map_err(|message| anyhow!(message))?,
            split: self.split.clone(),
            seed: self.seed,
            batch: self.batch,
            runs: self.runs,
            seconds: self.seconds,
            pooling: self.mauve_features.pooling(),
            clusterings: self.clusterings,
        })
    }
}

/// Measures a frontier and returns what is printed.
pub fn run(args: &FrontierArgs) -> anyhow::Result<String> {
    let settings = args.settings()?;
    let (device, device_name) = args.device.open().map_err(|message| anyhow!(message))?;
    // All is opened first, so that a wrong folder fails before hours of sampling.
    let data = DataFolder::open(&args.data)?;
    let judge = FrontierJudge::open(&args.judge, &data, &device)?;
    let load = |text: &String, refresh: Option<Refresh>| {
        let (name, folder) = named(text);
        let model = EvalModel::load(&folder, &device)?.with_weight_dtype(args.weights.weights())?;
        let is_partition = matches!(model.text_model().config(), ModelConfig::Partition(_));
        let (name, refresh) = match refresh.filter(|_| is_partition) {
            Some(refresh) => (format!("{name} (R = {refresh})"), Some(refresh)),
            None => (name, None),
        };
        anyhow::Ok(FrontierModel { name, model, refresh })
    };
    let mut models: Vec<FrontierModel> = Vec::new();
    for text in &args.models {
        let first = load(text, args.refresh.first().copied())?;
        let others = args.refresh.iter().skip(1).filter(|_| first.refresh.is_some());
        let others = others.map(|&refresh| load(text, Some(refresh))).collect::<anyhow::Result<Vec<_>>>()?;
        models.push(first);
        models.extend(others);
    }
    let inputs = FrontierInputs { models: &models, judge: &judge, data: &data, device_name: &device_name };
    let mut shown: Option<(Phase, Progress)> = None;
    let mut observe = |progress: &FrontierProgress| -> ControlFlow<()> {
        let phase = progress.phase;
        if shown.as_ref().is_none_or(|(before, _)| *before != phase) {
            shown = Some((phase, Progress::with_name(phase.unit())));
        }
        let Some((_, bar)) = &mut shown else { return ControlFlow::Continue(()) };
        bar.update_named(progress.done, progress.all, progress.seconds_left, progress.name)
    };
    let found = frontier(&inputs, &settings, &args.out, &mut observe)?;
    drop(shown);
    let _ = writeln!(
        std::io::stderr(),
        "written: frontier.svg, wall-time.svg, frontier.md, frontier.csv and frontier.json in {}",
        args.out.display()
    );
    if args.json { Ok(serde_json::to_string(&found)?) } else { Ok(found.text().trim_end().to_string()) }
}

// The name and the folder of a --model. Without a name it is that of the run: the folder above `model`, and the distillation's
// of a round.
fn named(text: &str) -> (String, PathBuf) {
    if let Some((name, folder)) = text.split_once('=')
        && !name.contains(['/', '\\'])
        && !Path::new(text).exists()
    {
        return (name.to_string(), PathBuf::from(folder));
    }
    let folder = PathBuf::from(text);
    let parts: Vec<String> = folder
        .components()
        .filter(|part| matches!(part, std::path::Component::Normal(_)))
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    let parts = match parts.as_slice() {
        [before @ .., last] if last == "model" && !before.is_empty() => before,
        all => all,
    };
    let name = match parts {
        [.., before, last] if last.starts_with("round-") => format!("{before}/{last}"),
        [.., last] => last.clone(),
        [] => "model".to_string(),
    };
    (name, folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_the_name_that_is_given_or_that_of_their_run() {
        let cases = [
            ("pgm=runs/a/model", "pgm", "runs/a/model"),
            ("runs/a/model", "a", "runs/a/model"),
            ("runs/a", "a", "runs/a"),
            ("runs/a@best", "a@best", "runs/a@best"),
            ("runs/students/round-3/model", "students/round-3", "runs/students/round-3/model"),
            ("runs/x=y/model", "x=y", "runs/x=y/model"),
            ("model", "model", "model"),
            (".", "model", "."),
            ("=runs/a", "", "runs/a"),
        ];
        for (text, name, folder) in cases {
            assert_eq!(named(text), (name.to_string(), PathBuf::from(folder)), "{text}");
        }
    }
}
