//! The module that burn-train's learner trains: an autoencoder with its loss.

use burn::module::Module;
use burn::tensor::{Int, Tensor};
use burn::train::{InferenceStep, TrainOutput, TrainStep};
use pgm_model::codec::Autoencoder;
use serde::{Deserialize, Serialize};

use super::loader::PictureBatch;
use super::validation::{CodecLine, CodecSums};
use crate::TrainError;
use crate::config::ReconstructionLoss;
use crate::run::{Gauge, LoopModel, StepFigures, StepOutput};

/// An autoencoder and its loss.
#[derive(Module, Debug)]
pub(super) struct CodecModel {
    pub(super) network: Autoencoder,
    #[module(skip)]
    loss: ReconstructionLoss,
    /// Codes of a picture.
    n_places: usize,
    /// Size of the codebook.
    n_codes: usize,
}

impl CodecModel {
    pub(super) fn new(network: Autoencoder, loss: ReconstructionLoss, [n_places, n_codes]: [usize; 2]) -> Self {
        Self { network, loss, n_places, n_codes }
    }

    /// The loss of a batch, `[1]`.
    fn loss(&self, batch: PictureBatch) -> Tensor<1> {
        let reconstruction = self.network.reconstruct(batch.pixels.clone());
        let difference = reconstruction.pixels - batch.pixels;
        let loss = match self.loss {
            ReconstructionLoss::L1 => difference.abs().mean(),
            ReconstructionLoss::L2 => difference.square().mean(),
        };
        let loss = match reconstruction.codebook_loss {
            Some(codebook) => loss + codebook,
            None => loss,
        };
        loss * batch.scale
    }
}

/// The values of pixels, one picture after the other.
pub(super) fn read_pixels(pixels: Tensor<4>) -> Result<Vec<f32>, TrainError> {
    pixels.try_into_vec_as::<f32>().map_err(|error| TrainError::Device(error.to_string()))
}

fn read_codes(codes: Tensor<2, Int>) -> Result<Vec<u32>, TrainError> {
    let data = codes.try_into_data().map_err(|error| TrainError::Device(error.to_string()))?;
    Ok(data.iter::<i64>().map(|code| code as u32).collect())
}

impl TrainStep for CodecModel {
    type Input = PictureBatch;
    type Output = StepOutput;

    fn step(&self, batch: PictureBatch) -> TrainOutput<StepOutput> {
        let loss = self.loss(batch);
        let output = StepOutput::of_loss(loss.clone().inner());
        TrainOutput::new(self, loss.backward(), output)
    }
}

impl InferenceStep for CodecModel {
    type Input = PictureBatch;
    type Output = StepOutput;

    fn step(&self, batch: PictureBatch) -> StepOutput {
        StepOutput::of_loss(self.loss(batch))
    }
}

/// A batch of pictures with what their codes give.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MeasuredPictures {
    original: Vec<f32>,
    reconstruction: Vec<f32>,
    codes: Vec<u32>,
    /// Channels, height and width.
    shape: [usize; 3],
    n_places: usize,
    n_codes: usize,
    loss: ReconstructionLoss,
}

impl LoopModel for CodecModel {
    type Measured = MeasuredPictures;
    type Sums = CodecSums;
    type Line = CodecLine;

    fn n_counted(batch: &PictureBatch) -> usize {
        batch.pixels.dims()[0]
    }

    fn measure(&self, batch: PictureBatch) -> Result<MeasuredPictures, TrainError> {
        let [_, channels, height, width] = batch.pixels.dims();
        let codes = self.network.encode(batch.pixels.clone());
        let reconstruction = read_pixels(self.network.decode(codes.clone()))?;
        let (original, codes) = (read_pixels(batch.pixels)?, read_codes(codes)?);
        let (shape, n_places, n_codes) = ([channels, height, width], self.n_places, self.n_codes);
        Ok(MeasuredPictures { original, reconstruction, codes, shape, n_places, n_codes, loss: self.loss })
    }

    fn add(sums: &mut CodecSums, measured: MeasuredPictures) {
        let MeasuredPictures { original, reconstruction, codes, shape, n_places, n_codes, loss } = measured;
        let n: usize = shape.iter().product();
        let pictures = original.chunks(n).zip(reconstruction.chunks(n)).zip(codes.chunks(n_places));
        for ((original, reconstruction), codes) in pictures {
            sums.add([original, reconstruction], shape, (codes, n_codes), loss);
        }
    }

    fn line(sums: &CodecSums, step: usize) -> Option<CodecLine> {
        sums.line(step)
    }

    fn figures(line: &CodecLine) -> StepFigures {
        StepFigures { loss: line.val_loss, ..StepFigures::default() }
    }

    fn gauges() -> Vec<Gauge> {
        vec![Gauge::new("Validation loss", false, |figures| figures.loss)]
    }
}
