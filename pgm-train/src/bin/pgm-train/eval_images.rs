//! `pgm-train eval images`: scores of pictures against reference pictures.

use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use pgm_data::{DataFolder, Split};
use pgm_infer::device::DeviceName;
use pgm_infer::sample::order::OrderFlags;
use pgm_infer::sample::{Curve, GuidanceSchedule};
use pgm_infer::settings::ImageOverrides;
use pgm_infer::{ImageModel, SampleSettings};
use pgm_train::eval::ResultLog;
use pgm_train::eval::images::{
    ClassifierOptions, FeatureBatch, FeatureLayer, ImageSampleSettings, ImageScores, Inception, KidSettings,
    PictureFeatures, PictureSource, Preprocessing, SampledPictures, SavedClassifier, ScoreSettings, open_image_model,
    own_scores, read_statistics, score, scores_against_statistics, weights_identity, write_statistics,
};
use serde_json::{Value, json};

use super::progress::Progress;

#[derive(Args)]
pub struct ImagesArgs {
    /// Model folder, or a training run (RUN, RUN@best, RUN@last, RUN@step-N); the pictures it draws are scored
    #[arg(long, required_unless_present = "samples", conflicts_with = "samples")]
    model: Option<PathBuf>,
    /// Pictures to score instead: a folder of pictures, samples in an .npz (arr_0), or a data folder of pixels
    #[arg(long)]
    samples: Option<PathBuf>,
    #[command(flatten)]
    sampling: SamplingArgs,
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
    /// A file for the results so far (beside it FILE.samples and FILE.reference hold features, FILE.classifier the classifier of
    /// --features own); the same command continues from it after a stop
    #[arg(long, value_name = "FILE")]
    pub progress: Option<PathBuf>,
    /// Seed of the pictures, of subsets, directions and the order of the parts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// auto, flex, ndarray, wgpu[:n], vulkan[:n], metal or cuda[:n]
    #[arg(long, default_value = "auto")]
    device: DeviceName,
}

/// How a model draws the pictures. Equally many of each class are drawn.
#[derive(Args)]
struct SamplingArgs {
    /// With --model: number of pictures
    #[arg(short, default_value_t = 1024)]
    n: usize,
    /// With --model: the codec of its codes; a model whose tokens are pixels needs none
    #[arg(long, value_name = "FOLDER")]
    codec: Option<PathBuf>,
    /// With --model: sampling steps [default: the model's, else 32]
    #[arg(long)]
    steps: Option<usize>,
    #[command(flatten)]
    order: OrderFlags,
    /// With --model: how many cells a step decodes: arccos, cosine, linear, square or root [default: arccos]
    #[arg(long, value_name = "NAME")]
    schedule: Option<Curve>,
    /// With --model: how much the class counts; 0 is not guided
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true)]
    cfg: Option<f64>,
    /// With --model: the weight in all steps, or rising linearly from 0: constant or linear [default: constant]
    #[arg(long, value_name = "NAME")]
    cfg_schedule: Option<GuidanceSchedule>,
    /// With --model: temperature [default: the model's, else 1]
    #[arg(long)]
    temp: Option<f64>,
    /// With --model: keep the k most probable codes; 0 keeps all [default: the model's, else 0]
    #[arg(long)]
    top_k: Option<usize>,
    /// With --model: sample as the public sampler of the model and the order (halton or confidence) does, with its mistakes;
    /// see docs/image-sampling.md
    #[arg(long)]
    as_published: bool,
    /// With --as-published: halves the logits in the first steps [default: 0]
    #[arg(long, value_name = "STEPS")]
    temp_warmup: Option<usize>,
    /// With --model: pictures that are sampled together
    #[arg(long, default_value_t = 16)]
    sample_batch: usize,
}

impl SamplingArgs {
    // The settings of a model, overridden by the flags.
    fn settings(&self, model: &ImageModel) -> anyhow::Result<SampleSettings> {
        let default = SampleSettings::for_image_model(model).order;
        let overrides = ImageOverrides {
            steps: self.steps,
            curve: self.schedule,
            order: Some(self.order.kind_or(default).map_err(|message| anyhow!(message))?),
            temperature: self.temp,
            top_k: self.top_k,
            cfg: self.cfg,
            cfg_schedule: self.cfg_schedule,
            has_class: model.image().n_classes > 0,
            as_published: self.as_published,
            temp_warmup: self.temp_warmup,
            ..ImageOverrides::default()
        };
        Ok(overrides.settings(model)?)
    }
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

    // The pictures to score, drawn first if they are a model's, and what identifies them.
    fn source(&self, device: &Device) -> anyhow::Result<(PictureSource, Value)> {
        let Some(folder) = &self.model else {
            let path = self.samples.as_deref().ok_or_else(|| anyhow!("--model or --samples is missing"))?;
            let source = PictureSource::open(path, self.split())?;
            let identity = json!({ "pictures": source.identity()? });
            return Ok((source, identity));
        };
        let (model, identity) = open_image_model(folder, self.sampling.codec.as_deref(), device)?;
        let settings = ImageSampleSettings {
            samples: self.sampling.n,
            sampling: self.sampling.settings(&model)?,
            seed: self.seed,
            batch: self.sampling.sample_batch,
        };
        let identity = settings.identity(&identity);
        let log = ResultLog::open(self.progress.as_deref(), &identity)?;
        let mut progress = Progress::new("drawn");
        let samples = SampledPictures::draw(model, &settings, log, &mut |done, all| progress.update(done, all))?;
        Ok((PictureSource::Sampled(Box::new(samples)), identity))
    }

    // The log of the features of some pictures.
    fn feature_log(&self, pictures: &Value, ending: &str) -> anyhow::Result<ResultLog<FeatureBatch>> {
        let identity = json!({
            "eval": "features", "pictures": pictures, "layer": self.layer().width(), "preprocessing": self.preprocessing,
            "weights": weights_identity(&self.features)?,
        });
        Ok(ResultLog::open(self.progress_file(ending).as_deref(), &identity)?)
    }

    // The file beside that of the results with this ending.
    fn progress_file(&self, ending: &str) -> Option<PathBuf> {
        let mut name = self.progress.as_ref()?.as_os_str().to_owned();
        name.push(ending);
        Some(PathBuf::from(name))
    }

    // What was scored, as a report names it.
    fn subject(&self) -> (&'static str, String) {
        match (&self.model, &self.samples) {
            (Some(folder), _) => ("folder", folder.display().to_string()),
            (None, samples) => {
                ("samples", samples.as_ref().map_or_else(String::new, |path| path.display().to_string()))
            }
        }
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
    // All is opened first, so that a wrong name fails before hours of work.
    let reference = args.reference.as_deref().map(|path| Reference::open(path, args.split())).transpose()?;
    let network = Inception::load(&args.features, &device)?;
    let reference_log = match &reference {
        Some(Reference::Pictures(source)) => {
            Some(args.feature_log(&json!({ "pictures": source.identity()? }), ".reference")?)
        }
        _ => None,
    };
    let (samples, identity) = args.source(&device)?;
    let features = |source: &PictureSource, log, what| -> anyhow::Result<PictureFeatures> {
        let mut progress = Progress::new(what);
        let how = (preprocessing, args.layer());
        Ok(network.features(source, how, (args.batch, &device), log, &mut |done, all| progress.update(done, all))?)
    };
    let of_samples = features(&samples, args.feature_log(&identity, ".samples")?, "pictures")?;
    if let Some(path) = &args.save_statistics {
        write_statistics(path, &of_samples.features.statistics()?)?;
    }
    let settings = args.settings();
    let scores = match &reference {
        None => None,
        Some(Reference::Statistics(statistics)) => Some(scores_against_statistics(&of_samples, statistics, &settings)?),
        Some(Reference::Pictures(source)) => {
            let log = reference_log.ok_or_else(|| anyhow!("the reference pictures have no log"))?;
            let of_references = features(source, log, "reference pictures")?;
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
    let references = DataFolder::open(path)?;
    let options = ClassifierOptions { steps: args.classifier_steps, seed: args.seed, ..ClassifierOptions::default() };
    // Opened first, so that a wrong file fails before the pictures are drawn.
    let mut saved = match args.progress_file(".classifier") {
        Some(path) => SavedClassifier::open(&path, options.identity(&references)?)?,
        None => SavedClassifier::in_memory(),
    };
    let (samples, _) = args.source(device)?;
    let mut progress = Progress::new("steps of the classifier");
    let settings = (&options, &mut saved, &args.settings());
    let scores = own_scores(&samples, &references, settings, device, &mut |done, all| progress.update(done, all))?;
    let mut object = json!({
        "eval": "images", "device": device_name, "features": "own",
        "reference": path.display().to_string(), "seed": args.seed, "classifier_steps": args.classifier_steps,
    });
    let (key, subject) = args.subject();
    object[key] = subject.into();
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
        "eval": "images", "device": device,
        "features": format!("inception-{width}"), "weights": args.features.display().to_string(),
        "preprocessing": args.preprocessing, "seed": args.seed,
    });
    let (key, subject) = args.subject();
    object[key] = subject.into();
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
