//! `pgm-train eval images`: scores of pictures against reference pictures.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use pgm_data::{DataFolder, Split};
use pgm_infer::device::DeviceName;
use pgm_train::eval::images::{
    ClassifierOptions, FeatureLayer, ImageScores, Inception, KidSettings, PictureFeatures, PictureSource,
    Preprocessing, ScoreSettings, own_scores, read_statistics, score, scores_against_statistics, write_statistics,
};
use serde_json::{Value, json};

use super::progress::Progress;

#[derive(Args)]
pub struct ImagesArgs {
    /// Pictures to score: a folder of pictures, samples in an .npz (arr_0), or a data folder of pixels
    #[arg(long)]
    samples: PathBuf,
    /// Reference pictures, as --samples, or their statistics in an .npz (mu and sigma)
    #[arg(long, required_unless_present = "save_statistics")]
    reference: Option<PathBuf>,
    /// Weights of the Inception network: pt_inception-2015-12-05-6726825d.pth of pytorch-fid or torch-fidelity's copy. "own"
    /// trains a classifier on the labelled --reference data folder instead, which needs no file
    #[arg(long, value_name = "FILE|own")]
    features: PathBuf,
    /// Training steps of the classifier of --features own
    #[arg(long, default_value_t = 600)]
    classifier_steps: usize,
    /// How pictures are resized; scores of different ways must not be compared
    #[arg(long, default_value = "pgm", value_parser = ["pgm", "clean-fid", "torch-fidelity", "pytorch-fid"])]
    preprocessing: String,
    /// Width of the layer whose features are compared; the published FID has 2048
    #[arg(long, value_enum, default_value = "2048")]
    layer: LayerArg,
    /// Split of data folders: train or validation
    #[arg(long, default_value = "validation", value_parser = ["train", "validation"])]
    split: String,
    /// Subsets of KID
    #[arg(long, default_value_t = 100)]
    kid_subsets: usize,
    /// Pictures of a subset of KID
    #[arg(long, default_value_t = 1000)]
    kid_subset_size: usize,
    /// Write mean and covariance of the samples' features to this .npz, to use as --reference later
    #[arg(long, value_name = "FILE")]
    save_statistics: Option<PathBuf>,
    /// Pictures of a batch
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Seed of subsets, directions and the order of the parts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
}

#[derive(Clone, Copy, ValueEnum)]
enum LayerArg {
    #[value(name = "64")]
    Pool1,
    #[value(name = "192")]
    Pool2,
    #[value(name = "768")]
    Mixed6,
    #[value(name = "2048")]
    Last,
}

impl ImagesArgs {
    fn layer(&self) -> FeatureLayer {
        match self.layer {
            LayerArg::Pool1 => FeatureLayer::Pool1,
            LayerArg::Pool2 => FeatureLayer::Pool2,
            LayerArg::Mixed6 => FeatureLayer::Mixed6,
            LayerArg::Last => FeatureLayer::Last,
        }
    }

    fn settings(&self) -> ScoreSettings {
        let kid = KidSettings { subsets: self.kid_subsets, subset_size: self.kid_subset_size };
        ScoreSettings { kid, seed: self.seed }
    }

    fn split(&self) -> Split {
        if self.split == "train" { Split::Train } else { Split::Validation }
    }
}

pub fn run(args: &ImagesArgs) -> anyhow::Result<Value> {
    let (device, device_name) = args.device.open().map_err(|message| anyhow!(message))?;
    if args.features.as_os_str() == "own" {
        return run_own(args, &device, &device_name);
    }
    let preprocessing: Preprocessing = args.preprocessing.parse().map_err(|message: String| anyhow!(message))?;
    // Both are opened first, so that a wrong name fails before hours of work.
    let samples = PictureSource::open(&args.samples, args.split())?;
    let reference = args.reference.as_deref().map(|path| Reference::open(path, args.split())).transpose()?;
    let network = Inception::load(&args.features, &device)?;
    let features = |source: &PictureSource, what| -> anyhow::Result<PictureFeatures> {
        let mut progress = Progress::new(what);
        let how = (preprocessing, args.layer());
        Ok(network.features(source, how, (args.batch, &device), &mut |done, all| progress.update(done, all))?)
    };
    let of_samples = features(&samples, "pictures")?;
    if let Some(path) = &args.save_statistics {
        write_statistics(path, &of_samples.features.statistics()?)?;
    }
    let settings = args.settings();
    let scores = match &reference {
        None => None,
        Some(Reference::Statistics(statistics)) => Some(scores_against_statistics(&of_samples, statistics, &settings)?),
        Some(Reference::Pictures(source)) => {
            let of_references = features(source, "reference pictures")?;
            Some(score(&of_samples, &of_references.features, &settings)?)
        }
    };
    let mut object = report(args, &device_name, scores.as_ref())?;
    if let Some(path) = &args.save_statistics {
        object["statistics"] = path.display().to_string().into();
    }
    Ok(object)
}

fn run_own(args: &ImagesArgs, device: &Device, device_name: &str) -> anyhow::Result<Value> {
    if args.save_statistics.is_some() {
        bail!(
            "--save-statistics needs the features of a file, not --features own: every run trains another classifier"
        );
    }
    let path = args.reference.as_deref().ok_or_else(|| anyhow!("--features own needs --reference, a data folder"))?;
    let samples = PictureSource::open(&args.samples, args.split())?;
    let references = DataFolder::open(path)?;
    let options = ClassifierOptions { steps: args.classifier_steps, seed: args.seed, ..ClassifierOptions::default() };
    let mut progress = Progress::new("steps of the classifier");
    let settings = (&options, &args.settings());
    let scores = own_scores(&samples, &references, settings, device, &mut |done, all| progress.update(done, all))?;
    let mut object = json!({
        "eval": "images", "samples": args.samples.display().to_string(), "device": device_name, "features": "own",
        "reference": path.display().to_string(), "seed": args.seed, "classifier_steps": args.classifier_steps,
    });
    let Value::Object(values) = serde_json::to_value(&scores)? else { bail!("scores are an object") };
    for (name, value) in values {
        object[if name == "frechet_distance" { "fd_own".to_string() } else { name }] = value;
    }
    Ok(object)
}

// Named after the features: only those of the last layer make an FID.
fn report(args: &ImagesArgs, device: &str, scores: Option<&ImageScores>) -> anyhow::Result<Value> {
    let width = args.layer().width();
    let mut object = json!({
        "eval": "images", "samples": args.samples.display().to_string(), "device": device,
        "features": format!("inception-{width}"), "weights": args.features.display().to_string(),
        "preprocessing": args.preprocessing, "seed": args.seed,
    });
    let Some(scores) = scores else { return Ok(object) };
    object["reference"] = args.reference.as_ref().map(|path| path.display().to_string()).into();
    let Value::Object(values) = serde_json::to_value(scores)? else { bail!("scores are an object") };
    for (name, value) in values {
        let name = match name.as_str() {
            "frechet_distance" if args.layer() == FeatureLayer::Last => "fid".to_string(),
            _ => name,
        };
        object[name] = value;
    }
    Ok(object)
}

enum Reference {
    Statistics(pgm_train::eval::images::FeatureStatistics),
    Pictures(PictureSource),
}

impl Reference {
    // An .npz holds statistics, or samples as --samples does.
    fn open(path: &Path, split: Split) -> anyhow::Result<Self> {
        if !path.is_file() {
            return Ok(Self::Pictures(PictureSource::open(path, split)?));
        }
        match read_statistics(path) {
            Ok(statistics) => Ok(Self::Statistics(statistics)),
            Err(of_statistics) => match PictureSource::open(path, split) {
                Ok(source) => Ok(Self::Pictures(source)),
                Err(_) => Err(of_statistics.into()),
            },
        }
    }
}
