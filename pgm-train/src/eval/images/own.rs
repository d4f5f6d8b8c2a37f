//! Scores by a classifier that is trained on the reference pictures themselves: nothing is downloaded.

use std::ops::ControlFlow;

use burn::tensor::Device;
use pgm_data::{DataFolder, PixelShape, Split};
use serde::Serialize;

use super::classifier::{Classified, Classifier, ClassifierOptions};
use super::picture::Picture;
use super::pictures::PictureSource;
use super::saved_classifier::SavedClassifier;
use super::score::{ImageScores, PictureFeatures, ScoreSettings, score};
use super::statistics::FeatureSet;
use crate::TrainError;
use crate::judge::metrics::Estimate;
use crate::judge::{Observe, report_progress};

/// Pictures that are classified at a time.
const BATCH: usize = 256;

/// The scores of [`own_scores`]. Their Frechet distance is "FD-own", not FID.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OwnScores {
    /// Share of the held-out reference pictures that the classifier labels as they are: how far its labels can be trusted.
    pub classifier_accuracy: Option<Estimate>,
    /// Share of the samples that the classifier labels as they were asked for, where their classes are known.
    pub label_agreement: Option<Estimate>,
    /// The scores of its features.
    #[serde(flatten)]
    pub scores: ImageScores,
}

/// Trains a classifier on the training rows of `references`, from where `saved` is, and scores samples against its validation
/// rows. `observe` sees the classifier's steps.
///
/// # Errors
/// [`TrainError::Judge`] for references without labels or without a validation split, and for samples of another size.
/// [`TrainError::Stopped`] when `observe` breaks.
pub fn own_scores(
    samples: &PictureSource,
    references: &DataFolder,
    (options, saved, settings): (&ClassifierOptions, &mut SavedClassifier, &ScoreSettings),
    device: &Device,
    observe: &mut Observe,
) -> Result<OwnScores, TrainError> {
    let held_out = references.pixels(Split::Validation)?;
    if held_out.len() < 2 {
        let problem = "the references have no validation rows; prepare them with --val-fraction";
        return Err(TrainError::judge("the classifier", problem));
    }
    let shape = held_out.info().pixels.expect("a folder of pixels has their shape");
    let classifier = Classifier::train_on(&references.pixels(Split::Train)?, options, device, saved, &mut |at| {
        report_progress(observe, at.step, at.steps).map_or(ControlFlow::Break(()), ControlFlow::Continue)
    })?;
    let (of_references, labels) = classifier.classify_rows(&held_out)?;
    let of_samples = classify(&classifier, samples, shape)?;
    let agreement = |found: &Classified, classes: &[u32]| {
        let equal: Vec<f64> = found.labels.iter().zip(classes).map(|(a, b)| f64::from(u8::from(a == b))).collect();
        Estimate::of_mean(&equal, settings.seed)
    };
    let classes = samples.classes(references.class_names())?;
    let features = |found: &Classified| FeatureSet::new(classifier.n_features(), found.features.clone());
    let samples = PictureFeatures { features: features(&of_samples)?, logits: None };
    Ok(OwnScores {
        classifier_accuracy: agreement(&of_references, &labels),
        label_agreement: classes.and_then(|classes| agreement(&of_samples, &classes)),
        scores: score(&samples, &features(&of_references)?, settings)?,
    })
}

fn classify(classifier: &Classifier, samples: &PictureSource, shape: PixelShape) -> Result<Classified, TrainError> {
    let (mut found, mut waiting) = (Classified::default(), Vec::new());
    let mut run = |waiting: &mut Vec<Vec<u8>>| -> Result<(), TrainError> {
        let part = classifier.classify(&waiting.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        found.features.extend(part.features);
        found.labels.extend(part.labels);
        waiting.clear();
        Ok(())
    };
    samples.visit(0, &mut |picture: Picture| {
        if (picture.height(), picture.width()) != (shape.height, shape.width) {
            let sizes = (picture.height(), picture.width(), shape.height, shape.width);
            let problem = format!(
                "a sample of {}x{} pixels is compared with references of {}x{}",
                sizes.0, sizes.1, sizes.2, sizes.3
            );
            return Err(TrainError::judge("the classifier", problem));
        }
        waiting.push(picture.channels(shape.channels));
        if waiting.len() == BATCH { run(&mut waiting) } else { Ok(()) }
    })?;
    if !waiting.is_empty() {
        run(&mut waiting)?;
    }
    Ok(found)
}
