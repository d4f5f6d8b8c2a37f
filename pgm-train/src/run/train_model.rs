//! The module that burn-train's learner trains: a network with its loss.

use std::fmt::Debug;
use std::sync::Arc;

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::GradientsParams;
use burn::tensor::{ExecutionError, FloatDType, GradientCheckpointingStrategy, Tensor};
use burn::train::metric::Adaptor;
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use pgm_model::{LossTarget, Network, Positions};

use super::dashboard::StepFigures;
use crate::TrainError;
use crate::batches::{Batch, DistillBatch, NetworkInputs, ObjectiveBatch, ValidationBatch};
use crate::config::{Precision, StepOptions};
use crate::token_nll::{read, token_nll};

/// A loss with targets that are not in the batch, but a teacher's predictions.
pub(crate) trait TaughtLoss<B>: Debug + Send + Sync {
    /// The loss of the student, `[1]` without gradients, and the gradients of its weights.
    fn step(&self, student: &TrainModel, batch: &B) -> (Tensor<1>, GradientsParams);
}

/// A network, the class that its loss leaves out, and how a step is computed.
#[derive(Module, Debug)]
pub struct TrainModel {
    /// The network.
    pub network: Network,
    mask_index: usize,
    #[module(skip)]
    options: StepOptions,
    #[module(skip)]
    distillation: Option<Arc<dyn TaughtLoss<DistillBatch>>>,
    #[module(skip)]
    teacher: Option<Arc<dyn TaughtLoss<ObjectiveBatch>>>,
}

impl TrainModel {
    /// A model that trains on true tokens.
    pub fn new(network: Network, mask_index: usize) -> Self {
        Self { network, mask_index, options: StepOptions::default(), distillation: None, teacher: None }
    }

    /// The same model with other step options.
    pub fn with_options(self, options: StepOptions) -> Self {
        Self { options, ..self }
    }

    /// The same model, as the student of a distillation.
    pub(crate) fn with_distillation(self, loss: Arc<dyn TaughtLoss<DistillBatch>>) -> Self {
        Self { distillation: Some(loss), ..self }
    }

    /// The same model, which trains on true tokens and on what a teacher predicts, if there is one.
    pub(crate) fn with_teacher(self, loss: Option<Arc<dyn TaughtLoss<ObjectiveBatch>>>) -> Self {
        Self { teacher: loss, ..self }
    }

    /// The model for one backward pass, with its options applied to the weights. Gradients of what it computes are
    /// gradients of `self`'s weights.
    pub(crate) fn for_step(&self) -> Self {
        struct Checkpointed;
        impl ModuleMapper for Checkpointed {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|weight| weight.with_gradient_checkpointing_strategy(GradientCheckpointingStrategy::Balanced))
            }
        }
        let mut network = self.network.clone();
        if self.options.checkpointing {
            network = network.map(&mut Checkpointed);
        }
        if self.options.precision == Precision::Bf16 {
            network = network.cast_matmul_weights(FloatDType::BF16);
        }
        Self { network, ..self.clone() }
    }

    /// Sum of weighted cross-entropies, `[1]`.
    ///
    /// # Panics
    /// When the batch is for another kind of network: a programmer's error.
    pub fn loss(&self, batch: ObjectiveBatch) -> Tensor<1> {
        let ObjectiveBatch { inputs, tokens, weights, .. } = batch;
        let mask_index = self.mask_index;
        let target = |targets, weights| LossTarget { targets, weights, mask_index };
        match (&self.network, inputs) {
            (Network::Partition(model), NetworkInputs::Partition(partition)) => {
                model.loss_partition(tokens.clone(), &partition, &target(tokens, weights))
            }
            (Network::Masked(model), NetworkInputs::Masked(masked)) => model.loss(masked, &target(tokens, weights)),
            (Network::MaskGit(model), NetworkInputs::MaskGit(masked, classes)) => {
                model.loss(masked, Some(&classes), &target(tokens, weights))
            }
            (Network::Autoregressive(model), NetworkInputs::Causal) => {
                let n_predicted = tokens.dims()[1] - 1;
                let target = target(tokens.clone().narrow(1, 1, n_predicted), weights.narrow(1, 1, n_predicted));
                model.loss(tokens.narrow(1, 0, n_predicted), &target)
            }
            _ => panic!("the batch is for another kind of network"),
        }
    }
}

impl TrainModel {
    /// The weighted sum of cross-entropies of each row of a batch. The head runs over some positions at a time, and the
    /// sums are in float64.
    ///
    /// # Errors
    /// [`TrainError::Device`] when the device fails.
    ///
    /// # Panics
    /// When the batch is for another kind of network: a programmer's error.
    pub(crate) fn row_sums(&self, batch: ObjectiveBatch) -> Result<Vec<f64>, TrainError> {
        let ObjectiveBatch { inputs, tokens, weights, .. } = batch;
        let [n_rows, length] = tokens.dims();
        let (hidden, targets, weights) = match (&self.network, inputs) {
            (Network::Partition(model), NetworkInputs::Partition(partition)) => {
                (model.hidden_partition(tokens.clone(), &partition), tokens, weights)
            }
            (Network::Masked(model), NetworkInputs::Masked(masked)) => {
                let all = Positions::all(n_rows, length, &masked.device());
                (model.hidden_at(masked, &all), tokens, weights)
            }
            (Network::MaskGit(model), NetworkInputs::MaskGit(masked, classes)) => {
                (model.hidden(masked, Some(&classes)), tokens, weights)
            }
            (Network::Autoregressive(model), NetworkInputs::Causal) => {
                let n_predicted = length - 1;
                let hidden = model.hidden(tokens.clone().narrow(1, 0, n_predicted));
                (hidden, tokens.narrow(1, 1, n_predicted), weights.narrow(1, 1, n_predicted))
            }
            _ => panic!("the batch is for another kind of network"),
        };
        let n_positions = targets.dims()[1];
        let nll = read(token_nll(|hidden| self.network.logits(hidden), hidden, targets, self.mask_index))?;
        let weights = read(weights)?;
        // A weight of 0 leaves a token out, even where its cross-entropy is infinite.
        let weighted =
            |(&nll, &weight): (&f32, &f32)| if weight == 0.0 { 0.0 } else { f64::from(nll) * f64::from(weight) };
        let row_sum = |(nll, weights): (&[f32], &[f32])| nll.iter().zip(weights).map(weighted).sum();
        Ok(nll.chunks(n_positions).zip(weights.chunks(n_positions)).map(row_sum).collect())
    }
}

/// The output of a step for the learner's metrics.
#[derive(Clone, Debug)]
pub struct StepOutput {
    /// The loss without gradients, `[1]`.
    pub loss: Tensor<1>,
    /// Figures for the dashboard; the training loop adds them to some outputs.
    pub(crate) figures: Option<StepFigures>,
}

impl StepOutput {
    /// The output of a step without figures.
    pub(crate) fn of_loss(loss: Tensor<1>) -> Self {
        Self { loss, figures: None }
    }
}

impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<StepFigures> for StepOutput {
    fn adapt(&self) -> StepFigures {
        self.figures.clone().unwrap_or_default()
    }
}

impl TrainStep for TrainModel {
    type Input = Batch;
    type Output = StepOutput;

    /// # Panics
    /// For a batch of a distillation where the model is no student: a programmer's error.
    fn step(&self, batch: Batch) -> TrainOutput<StepOutput> {
        // Dropout draws from the device's generator. It is seeded here, so a step does not depend on those before it.
        match batch {
            Batch::Objective(batch) => {
                batch.tokens.device().seed(batch.seed);
                if let Some(teacher) = &self.teacher {
                    let (loss, grads) = teacher.step(self, &batch);
                    return TrainOutput { grads, item: StepOutput::of_loss(loss) };
                }
                let loss = self.for_step().loss(*batch);
                let output = StepOutput { loss: loss.clone().inner(), figures: None };
                TrainOutput::new(self, loss.backward(), output)
            }
            Batch::Distill(batch) => {
                batch.device.seed(batch.seed);
                let objective = self.distillation.as_ref().expect("only a student is given batches of a distillation");
                let (loss, grads) = objective.step(self, &batch);
                TrainOutput { grads, item: StepOutput { loss, figures: None } }
            }
        }
    }
}

impl InferenceStep for TrainModel {
    type Input = ValidationBatch;
    type Output = StepOutput;

    fn step(&self, batch: ValidationBatch) -> StepOutput {
        StepOutput { loss: self.loss(batch.batch), figures: None }
    }
}
