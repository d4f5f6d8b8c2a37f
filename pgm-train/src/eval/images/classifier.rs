//! A small convolutional classifier, trained on labelled pictures in seconds to minutes.
//
// B batch, C channels, H x W pixels, F features, N pictures, K classes

use std::ops::ControlFlow;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::optim::GradientsParams;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_data::{DataFolder, PixelRows, PixelShape, RowOrder};
use serde_json::{Value, json};

use super::saved_classifier::{SavedClassifier, TrainingState};
use crate::TrainError;
use crate::codec::pixels_of_bytes;
use crate::config::OptimSection;
use crate::run::{AdamW, draw_parameters};

/// Pooling ends when a side is at most this.
const SMALLEST_SIDE: usize = 8;
/// Pictures that are classified at a time.
const BATCH: usize = 256;

/// How a classifier is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassifierOptions {
    /// Optimiser steps.
    pub steps: usize,
    /// Pictures of a step.
    pub batch: usize,
    /// Learning rate of the first step; it falls to 0 on a line.
    pub lr: f64,
    /// Channels of the first convolution; each further one has twice as many.
    pub width: usize,
    /// Features: the width of the last layer before the classes.
    pub features: usize,
    /// Seed of weights and order.
    pub seed: u64,
}

impl Default for ClassifierOptions {
    fn default() -> Self {
        Self { steps: 600, batch: 64, lr: 2e-3, width: 16, features: 64, seed: 0 }
    }
}

impl ClassifierOptions {
    /// Identifies the training on the pictures of a data folder, in a [`SavedClassifier`].
    ///
    /// # Errors
    /// As [`DataFolder::identity`].
    pub fn identity(&self, pictures: &DataFolder) -> Result<Value, TrainError> {
        let Self { steps, batch, lr, width, features, seed } = *self;
        let pictures = pictures.identity()?;
        Ok(json!({
            "pictures": pictures, "steps": steps, "batch": batch, "lr": lr, "width": width, "features": features,
            "seed": seed,
        }))
    }
}

/// How far a training is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassifierProgress {
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub steps: usize,
}

/// Features and labels of pictures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Classified {
    /// Features of one picture after the other, `N * F`.
    pub features: Vec<f32>,
    /// The most probable class of each picture.
    pub labels: Vec<u32>,
}

impl Classified {
    /// The share of pictures whose most probable class is the given one.
    ///
    /// # Panics
    /// When there are not as many classes as pictures.
    pub fn agreement(&self, classes: &[u32]) -> f64 {
        assert_eq!(self.labels.len(), classes.len(), "a class for each picture");
        let n_equal = self.labels.iter().zip(classes).filter(|(found, asked)| found == asked).count();
        n_equal as f64 / classes.len() as f64
    }
}

/// A trained classifier.
#[derive(Clone, Debug)]
pub struct Classifier {
    network: ClassifierNetwork,
    shape: PixelShape,
    n_features: usize,
    device: Device,
}

#[derive(Module, Debug)]
struct ClassifierNetwork {
    convolutions: Vec<Conv2d>,
    pool: MaxPool2d,
    features: Linear,
    classes: Linear,
}

impl Classifier {
    /// Trains on labelled pictures. The result is a function of pictures and options.
    ///
    /// # Errors
    /// [`TrainError::Judge`] for pictures without labels and for a loss that is no number, [`TrainError::Data`] for a row that
    /// cannot be read, [`TrainError::Stopped`] when `progress` breaks.
    pub fn train(
        rows: &PixelRows,
        options: &ClassifierOptions,
        device: &Device,
        progress: &mut dyn FnMut(ClassifierProgress) -> ControlFlow<()>,
    ) -> Result<Self, TrainError> {
        Self::train_on(rows, options, device, &mut SavedClassifier::in_memory(), progress)
    }

    /// As [`train`](Self::train), from where the saved training is. A stopped training and its continuation give what an
    /// unbroken one gives.
    ///
    /// # Errors
    /// As [`train`](Self::train), and [`TrainError::File`] when the training cannot be kept.
    pub fn train_on(
        rows: &PixelRows,
        options: &ClassifierOptions,
        device: &Device,
        saved: &mut SavedClassifier,
        progress: &mut dyn FnMut(ClassifierProgress) -> ControlFlow<()>,
    ) -> Result<Self, TrainError> {
        let shape = rows.info().pixels.expect("rows of pixels have a shape");
        let n_classes = rows.info().class_names.len();
        if n_classes < 2 {
            let problem =
                "a classifier needs pictures with labels of at least 2 classes; prepare the data with --labels";
            return Err(TrainError::judge("the classifier", problem));
        }
        let plain = device.clone().without_autodiff();
        let training_device = plain.clone().autodiff();
        plain.seed(options.seed);
        let network = ClassifierNetwork::new(shape, n_classes, options, &plain);
        draw_parameters(&network);
        let mut optimiser = AdamW::from_config(&OptimSection { weight_decay: 1e-2, ..OptimSection::default() });
        let (network, first) = match saved.take_start() {
            Some(start) => {
                optimiser = optimiser.load_record(start.optimiser);
                let unfit = |error| TrainError::judge("the saved classifier", format!("is another network: {error}"));
                (network.try_load_record(start.network).map_err(unfit)?, start.step)
            }
            None => (network, 0),
        };
        let mut network = network.train();
        let order = RowOrder::new(options.seed, rows.len());
        let loss = CrossEntropyLossConfig::new().init(&training_device);
        for step in first..options.steps {
            let indices = order.step(step as u64, options.batch);
            let pictures: Vec<Vec<u8>> = indices.iter().map(|&index| rows.pixels(index)).collect::<Result<_, _>>()?;
            let labels: Vec<i32> = indices
                .iter()
                .map(|&index| Ok(rows.label(index)?.unwrap_or(0) as i32))
                .collect::<Result<_, pgm_data::DataError>>()?;
            let pixels = pixels_of(pictures.iter().map(Vec::as_slice), shape, &training_device);
            let labels = Tensor::<1, Int>::from_data(TensorData::new(labels, [indices.len()]), &training_device);
            let (_, logits) = network.forward(pixels);
            let loss = loss.forward(logits, labels);
            let gradients = GradientsParams::from_grads(loss.backward(), &network);
            let rate = options.lr * (1.0 - step as f64 / options.steps as f64);
            network = optimiser.step(rate, network, gradients);
            if step + 1 == options.steps {
                let last =
                    loss.inner().try_into_scalar::<f32>().map_err(|error| TrainError::Device(error.to_string()))?;
                if !last.is_finite() {
                    let problem = "its loss is not finite; lower the learning rate";
                    return Err(TrainError::judge("the classifier", problem));
                }
            }
            let done = ClassifierProgress { step: step + 1, steps: options.steps };
            let stops = progress(done).is_break();
            if stops || done.step == done.steps || saved.is_due() {
                saved.write(|| TrainingState {
                    step: done.step,
                    network: network.clone().into_record(),
                    optimiser: optimiser.to_record(),
                })?;
            }
            if stops {
                return Err(TrainError::Stopped);
            }
        }
        Ok(Self { network: network.valid(), shape, n_features: options.features, device: plain })
    }

    /// Features of a picture.
    pub fn n_features(&self) -> usize {
        self.n_features
    }

    /// Features and labels of pictures, each with its channels side by side.
    ///
    /// # Errors
    /// [`TrainError::Judge`] for a picture of another size, [`TrainError::Device`] when the device fails.
    pub fn classify(&self, pictures: &[&[u8]]) -> Result<Classified, TrainError> {
        let PixelShape { height, width, channels } = self.shape;
        if let Some(picture) = pictures.iter().find(|picture| picture.len() != self.shape.len()) {
            let problem = format!(
                "a picture of {} values is not one of {height} x {width} pixels with {channels} channels",
                picture.len()
            );
            return Err(TrainError::judge("the classifier", problem));
        }
        let failed = |error: &dyn std::fmt::Display| TrainError::Device(error.to_string());
        let mut found = Classified::default();
        for batch in pictures.chunks(BATCH) {
            let pixels = pixels_of(batch.iter().copied(), self.shape, &self.device);
            let (features, logits) = self.network.forward(pixels);
            found.features.extend(features.try_into_vec_as::<f32>().map_err(|error| failed(&error))?);
            let labels = logits.argmax(1).try_into_data().map_err(|error| failed(&error))?;
            found.labels.extend(labels.iter::<i64>().map(|label| label as u32));
        }
        Ok(found)
    }

    /// As [`classify`](Self::classify), of all rows of a split; the labels of the data beside.
    ///
    /// # Errors
    /// As [`classify`](Self::classify), and [`TrainError::Data`].
    pub fn classify_rows(&self, rows: &PixelRows) -> Result<(Classified, Vec<u32>), TrainError> {
        let (mut found, mut labels) = (Classified::default(), Vec::new());
        let indices: Vec<usize> = (0..rows.len()).collect();
        for block in indices.chunks(BATCH) {
            let pictures: Vec<Vec<u8>> = block.iter().map(|&index| rows.pixels(index)).collect::<Result<_, _>>()?;
            let part = self.classify(&pictures.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
            found.features.extend(part.features);
            found.labels.extend(part.labels);
            for &index in block {
                labels.push(rows.label(index)?.unwrap_or(0));
            }
        }
        Ok((found, labels))
    }
}

impl ClassifierNetwork {
    fn new(shape: PixelShape, n_classes: usize, options: &ClassifierOptions, device: &Device) -> Self {
        let (mut sides, mut channels, mut width) = ([shape.height, shape.width], shape.channels, options.width);
        let mut convolutions = Vec::new();
        while convolutions.is_empty() || sides.iter().all(|&side| side > SMALLEST_SIDE) {
            let conv = Conv2dConfig::new([channels, width], [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
            convolutions.push(conv.init(device));
            // A side of one pixel stays.
            sides = sides.map(|side| (side / 2).max(1));
            (channels, width) = (width, 2 * width);
        }
        let flat = channels * sides[0] * sides[1];
        Self {
            convolutions,
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            features: LinearConfig::new(flat, options.features).init(device),
            classes: LinearConfig::new(options.features, n_classes).init(device),
        }
    }

    /// Features `[B, F]` and logits `[B, K]` of pixels `[B, C, H, W]`.
    fn forward(&self, pixels: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
        let pooled = |x: Tensor<4>, conv: &Conv2d| self.pool.forward(relu(conv.forward(x)));
        let x: Tensor<2> = self.convolutions.iter().fold(pixels, pooled).flatten(1, 3);
        let features = relu(self.features.forward(x));
        (features.clone(), self.classes.forward(features))
    }
}

// [B, C, H, W] in -1 to 1
fn pixels_of<'a>(pictures: impl Iterator<Item = &'a [u8]>, shape: PixelShape, device: &Device) -> Tensor<4> {
    let values: Vec<f32> = pictures.flat_map(|picture| pixels_of_bytes(picture, shape.channels)).collect();
    let PixelShape { height, width, channels } = shape;
    let n = values.len() / shape.len();
    Tensor::from_data(TensorData::new(values, [n, channels, height, width]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgm_data::{ImageFolderWriter, ImageInfo, Split};

    // Bright in one of three thirds, on a noisy ground.
    fn rows(folder: &std::path::Path, classes: usize) -> DataFolder {
        let shape = PixelShape { height: 9, width: 18, channels: 3 };
        let names = (0..classes).map(|class| format!("third {class}")).collect();
        let out = folder.join(format!("data-{classes}"));
        let mut writer = ImageFolderWriter::create(&out, ImageInfo::of_pixels(shape, names)).unwrap();
        for index in 0..120_usize {
            let class = index % 3;
            let value = |place: usize| {
                let column = place / 3 % 18;
                let noise = (index * 31 + place * 17) % 60;
                if column / 6 == class { 180 + noise as u8 } else { noise as u8 }
            };
            let picture: Vec<u8> = (0..shape.len()).map(value).collect();
            let split = if index < 90 { Split::Train } else { Split::Validation };
            writer.push_pixels(split, &picture, (classes > 0).then_some(class as u32)).unwrap();
        }
        writer.finish().unwrap();
        DataFolder::open(&out).unwrap()
    }

    #[test]
    fn it_learns_classes_and_refuses_other_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let data = rows(folder.path(), 3);
        let options = ClassifierOptions {
            steps: 80,
            batch: 16,
            lr: 5e-3,
            width: 8,
            features: 16,
            ..ClassifierOptions::default()
        };
        let device = Device::flex();
        let mut seen = Vec::new();
        let train = data.pixels(Split::Train).unwrap();
        let classifier = Classifier::train(&train, &options, &device, &mut |progress| {
            seen.push(progress.step);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(seen, (1..=80).collect::<Vec<_>>());
        let held_out = data.pixels(Split::Validation).unwrap();
        let (found, labels) = classifier.classify_rows(&held_out).unwrap();
        assert_eq!((found.features.len(), found.labels.len()), (30 * classifier.n_features(), 30));
        assert!(found.agreement(&labels) > 0.95, "{:?}", found.labels);
        assert!(found.agreement(&[0; 30]) < 0.5);
        let stopped = Classifier::train(&train, &options, &device, &mut |_| ControlFlow::Break(()));
        assert!(matches!(stopped, Err(TrainError::Stopped)));
        let message = classifier.classify(&[&[0; 12]]).unwrap_err().to_string();
        assert!(message.contains("12 values") && message.contains("9 x 18"), "{message}");

        // Stopped twice, and read when it is finished: the same classifier.
        let path = folder.path().join("progress.classifier");
        let resume = |stop_at: usize, options: &ClassifierOptions| {
            let mut saved = SavedClassifier::open(&path, options.identity(&data)?)?;
            let mut steps = Vec::new();
            let trained = Classifier::train_on(&train, options, &device, &mut saved, &mut |at| {
                steps.push(at.step);
                if at.step == stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            trained.map(|classifier| (classifier, steps))
        };
        for stop_at in [30, 55] {
            assert!(matches!(resume(stop_at, &options), Err(TrainError::Stopped)));
        }
        let (continued, steps) = resume(0, &options).unwrap();
        assert_eq!(steps, (56..=80).collect::<Vec<_>>());
        assert_eq!(continued.classify_rows(&held_out).unwrap().0, found, "to the digit");
        let (read, steps) = resume(0, &options).unwrap();
        assert_eq!((read.classify_rows(&held_out).unwrap().0, steps), (found, Vec::new()));

        let written = std::fs::read(&path).unwrap();
        let says = |options: &ClassifierOptions| resume(0, options).unwrap_err().to_string();
        let other = says(&ClassifierOptions { seed: 9, ..options });
        assert!(other.contains("seed was 0 and is now 9"), "{other}");
        assert_eq!(std::fs::read(&path).unwrap(), written, "a refused file stays");
        std::fs::write(&path, &written[..written.len() - 7]).unwrap();
        assert!(says(&options).contains("damaged"));
        std::fs::write(&path, "precious").unwrap();
        assert!(says(&options).contains("not the training of a classifier"));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");

        let unlabelled = rows(folder.path(), 0).pixels(Split::Train).unwrap();
        let refused = Classifier::train(&unlabelled, &options, &device, &mut |_| ControlFlow::Continue(()));
        assert!(refused.unwrap_err().to_string().contains("--labels"));
    }
}
