//! All scores of a set of pictures against references.

use burn::tensor::{Device, Tensor, TensorData};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::inception::{FeatureLayer, Inception};
use super::inception_score::{SPLITS, SplitScore, inception_score};
use super::kid::{KidSettings, SubsetScore, kid};
use super::mind::mind;
use super::picture::Picture;
use super::pictures::PictureSource;
use super::precision_recall::{PrecisionRecall, precision_recall};
use super::resize::{INPUT_SIZE, Preprocessing};
use super::statistics::{FeatureSet, FeatureStatistics, frechet_distance};
use crate::TrainError;
use crate::eval::ResultLog;
use crate::judge::{Observe, report_progress};

/// Neighbours of the published precision and recall.
const NEIGHBOURS: usize = 3;

/// Features of a set of pictures, and their class logits where the layer has them.
#[derive(Clone, Debug)]
pub struct PictureFeatures {
    /// `[N, D]`
    pub features: FeatureSet,
    /// `[N, classes]`
    pub logits: Option<FeatureSet>,
}

/// Features of a batch of pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureBatch {
    /// Pictures.
    pub n: usize,
    /// `[n, D]`
    pub features: Vec<f32>,
    /// `[n, classes]`; empty where the layer has none
    pub logits: Vec<f32>,
}

impl Inception {
    /// Features of every picture of a source, `batch` at a time. Those so far are in the log.
    ///
    /// # Errors
    /// Names the picture that cannot be read; [`TrainError::Device`]; [`TrainError::Stopped`] when `observe` breaks.
    pub fn features(
        &self,
        source: &PictureSource,
        (preprocessing, layer): (Preprocessing, FeatureLayer),
        (batch, device): (usize, &Device),
        mut log: ResultLog<FeatureBatch>,
        observe: &mut Observe,
    ) -> Result<PictureFeatures, TrainError> {
        let n = source.len();
        let start: usize = log.done().iter().map(|batch| batch.n).sum();
        let (mut done, mut waiting) = (start, Vec::new());
        let mut run = |waiting: &mut Vec<Picture>| -> Result<(), TrainError> {
            report_progress(observe, done, n)?;
            let values: Vec<f32> = waiting.iter().flat_map(|picture| preprocessing.input(picture)).collect();
            let shape = [waiting.len(), 3, INPUT_SIZE, INPUT_SIZE];
            let output = self.forward(Tensor::from_data(TensorData::new(values, shape), device), layer);
            let read = |tensor: Tensor<2>| {
                tensor.try_into_vec_as::<f32>().map_err(|error| TrainError::Device(error.to_string()))
            };
            let logits = output.logits.map(read).transpose()?.unwrap_or_default();
            log.push(FeatureBatch { n: waiting.len(), features: read(output.features)?, logits })?;
            done += waiting.len();
            waiting.clear();
            Ok(())
        };
        source.visit(start, &mut |picture| {
            waiting.push(picture);
            if waiting.len() == batch.max(1) { run(&mut waiting) } else { Ok(()) }
        })?;
        if !waiting.is_empty() {
            run(&mut waiting)?;
        }
        report_progress(observe, n, n)?;
        let (mut features, mut logits) = (Vec::new(), Vec::new());
        for part in log.into_done() {
            features.extend(part.features);
            logits.extend(part.logits);
        }
        let n_logits = logits.len() / n.max(1);
        Ok(PictureFeatures {
            features: FeatureSet::new(layer.width(), features)?,
            logits: (n_logits > 0).then(|| FeatureSet::new(n_logits, logits)).transpose()?,
        })
    }
}

/// Settings of [`score`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ScoreSettings {
    /// Subsets of KID.
    pub kid: KidSettings,
    /// Seed of subsets, directions and the order of the parts.
    pub seed: u64,
}

/// The scores. What needs the reference pictures themselves is absent when only their statistics are known.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ImageScores {
    /// The squared Frechet distance of the features.
    pub frechet_distance: f64,
    /// Over random subsets.
    pub kid: Option<SubsetScore>,
    /// Over ten parts; of features that have class logits.
    pub inception_score: Option<SplitScore>,
    /// With three neighbours.
    pub precision_recall: Option<PrecisionRecall>,
    /// Over 1000 directions.
    pub mind: Option<f64>,
    /// Number of pictures that were scored.
    pub n_samples: usize,
    /// Number of reference pictures, where they are known.
    pub n_references: Option<usize>,
}

/// All scores of samples against references.
///
/// # Errors
/// [`TrainError::Judge`] when a set is too small, or features have different widths.
pub fn score(
    samples: &PictureFeatures,
    references: &FeatureSet,
    settings: &ScoreSettings,
) -> Result<ImageScores, TrainError> {
    let features = &samples.features;
    let of_statistics = scores_against_statistics(samples, &references.statistics()?, settings)?;
    Ok(ImageScores {
        kid: Some(kid(features, references, &settings.kid, settings.seed)?),
        precision_recall: Some(precision_recall(features, references, NEIGHBOURS)?),
        mind: Some(mind(features, references, settings.seed)?),
        n_references: Some(references.n_rows()),
        ..of_statistics
    })
}

/// The scores that statistics of the references suffice for.
///
/// # Errors
/// As [`score`].
pub fn scores_against_statistics(
    samples: &PictureFeatures,
    references: &FeatureStatistics,
    settings: &ScoreSettings,
) -> Result<ImageScores, TrainError> {
    let n_samples = samples.features.n_rows();
    // Files are often sorted by class, so a part would have few classes.
    let mut order: Vec<usize> = (0..n_samples).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(settings.seed));
    let of_logits = |logits: &FeatureSet| inception_score(&logits.select(&order), SPLITS.min(n_samples));
    Ok(ImageScores {
        frechet_distance: frechet_distance(&samples.features.statistics()?, references)?,
        kid: None,
        inception_score: samples.logits.as_ref().map(of_logits).transpose()?,
        precision_recall: None,
        mind: None,
        n_samples,
        n_references: None,
    })
}
