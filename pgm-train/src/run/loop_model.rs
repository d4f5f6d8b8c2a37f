//! What the training loop asks of the model that it trains.

use std::path::Path;

use burn::module::Module;
use burn::train::{InferenceStep, LearnerModel, TrainStep};
use pgm_model::{Network, model_folder};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::dashboard::{Gauge, StepFigures};
use super::history::{ValidationFigures, ValidationLine};
use super::parameters::with_values;
use super::train_model::{StepOutput, TrainModel};
use super::validation::{MeasuredRows, ValidationSums};
use crate::TrainError;
use crate::batches::{Batch, ValidationBatch};

/// A model that the training loop can train and validate.
pub(crate) trait LoopModel:
    LearnerModel + TrainStep<Output = StepOutput> + InferenceStep<Output = StepOutput>
{
    /// What a batch of a validation gives.
    type Measured: Serialize + DeserializeOwned;
    /// What is collected over the batches of a validation.
    type Sums: Default;
    /// The figures of a validation.
    type Line: ValidationFigures;

    /// Tokens of a batch that count.
    fn n_counted(batch: &<Self as TrainStep>::Input) -> usize;

    /// Measures a batch of a validation.
    ///
    /// # Errors
    /// [`TrainError::Device`] when the device fails.
    fn measure(&self, batch: <Self as InferenceStep>::Input) -> Result<Self::Measured, TrainError>;

    /// Adds a batch, in the order of the batches.
    fn add(sums: &mut Self::Sums, measured: Self::Measured);

    /// The figures of a whole validation; absent when they are not finite.
    fn line(sums: &Self::Sums, step: usize) -> Option<Self::Line>;

    /// The figures of a validation for the dashboard.
    fn figures(line: &Self::Line) -> StepFigures;

    /// The figures of a validation that the dashboard shows.
    fn gauges() -> Vec<Gauge>;

    /// The network whose model folder every checkpoint is; absent for a model whose checkpoints are records only.
    fn network(&self) -> Option<&Network> {
        None
    }

    /// The model with the weights of a model folder. Its parameters keep their ids.
    ///
    /// # Errors
    /// [`TrainError::Model`] when the folder cannot be read, [`TrainError::NoCheckpoint`] for a model without
    /// [`network`](Self::network).
    fn with_weights_of(self, folder: &Path) -> Result<Self, TrainError> {
        let problem = "it is a checkpoint of another kind of model".to_string();
        Err(TrainError::NoCheckpoint { path: folder.to_path_buf(), problem })
    }
}

impl LoopModel for TrainModel {
    type Measured = MeasuredRows;
    type Sums = ValidationSums;
    type Line = ValidationLine;

    fn n_counted(batch: &Batch) -> usize {
        batch.n_valid()
    }

    fn measure(&self, batch: ValidationBatch) -> Result<MeasuredRows, TrainError> {
        Ok(MeasuredRows { rows: batch.rows, tokens: batch.tokens, nats: self.row_sums(batch.batch)? })
    }

    fn add(sums: &mut ValidationSums, measured: MeasuredRows) {
        sums.add(&measured);
    }

    fn line(sums: &ValidationSums, step: usize) -> Option<ValidationLine> {
        sums.line(step)
    }

    fn figures(line: &ValidationLine) -> StepFigures {
        StepFigures { loss: line.val_nelbo, perplexity: line.val_ppl, ..StepFigures::default() }
    }

    fn gauges() -> Vec<Gauge> {
        vec![
            Gauge::new("NELBO", false, |figures| figures.loss),
            Gauge::new("Perplexity", false, |figures| figures.perplexity),
        ]
    }

    fn network(&self) -> Option<&Network> {
        Some(&self.network)
    }

    fn with_weights_of(mut self, folder: &Path) -> Result<Self, TrainError> {
        let device = self.devices().into_iter().next().unwrap_or_default();
        let (_, network) = model_folder::load(folder, &device)?;
        self.network = with_values(self.network, &network);
        Ok(self)
    }
}
