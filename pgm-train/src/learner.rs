//! The module that burn-train's learner trains: a network with its objective.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, ExecutionError, FloatDType, GradientCheckpointingStrategy, Tensor};
use burn::train::metric::Adaptor;
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use pgm_model::{LossTarget, Network};

use crate::TrainError;
use crate::batch::{Batch, NetworkInputs, ObjectiveBatch};
use crate::config::Precision;
use crate::dashboard::StepFigures;

/// A network and the class that its loss leaves out.
#[derive(Module, Debug)]
pub struct TrainModel {
    /// The network.
    pub network: Network,
    mask_index: usize,
    #[module(skip)]
    how: StepOptions,
}

/// How a training step is computed, see [`TrainConfig`](crate::TrainConfig).
#[derive(Clone, Copy, Debug, Default)]
pub struct StepOptions {
    /// What the matrix products are computed in.
    pub precision: Precision,
    /// Whether norms and activations are computed twice instead of kept.
    pub checkpointing: bool,
}

impl StepOptions {
    /// The device that records gradients that way.
    ///
    /// # Errors
    /// [`TrainError::Config`] when the device cannot compute so.
    pub fn training_device(self, device: &Device) -> Result<Device, TrainError> {
        let plain = device.clone().without_autodiff();
        if self.precision == Precision::Bf16 && !plain.supports_dtype(DType::BF16) {
            let problem = "this device has no bfloat16; set precision=\"f32\" or take another --device".to_string();
            return Err(TrainError::Config { origin: "precision = \"bf16\"".to_string(), problem });
        }
        let device = plain.autodiff();
        Ok(if self.checkpointing { device.gradient_checkpointing() } else { device })
    }
}

impl TrainModel {
    /// Wraps a network.
    pub fn new(network: Network, mask_index: usize) -> Self {
        Self { network, mask_index, how: StepOptions::default() }
    }

    /// The same, whose steps are computed so.
    pub fn computed(self, how: StepOptions) -> Self {
        Self { how, ..self }
    }

    // The same for one step: gradients of what is computed with it are those of `self`'s weights.
    pub(crate) fn for_step(&self) -> Self {
        struct Checkpointed;
        impl ModuleMapper for Checkpointed {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                param.map(|weight| weight.with_gradient_checkpointing_strategy(GradientCheckpointingStrategy::Balanced))
            }
        }
        let mut network = self.network.clone();
        if self.how.checkpointing {
            network = network.map(&mut Checkpointed);
        }
        if self.how.precision == Precision::Bf16 {
            network = network.cast_products(FloatDType::BF16);
        }
        Self { network, ..self.clone() }
    }

    /// Sum of weighted cross-entropies, `[1]`.
    ///
    /// # Panics
    /// When the batch was made for the other objective, which is a programmer's error.
    pub fn loss(&self, batch: ObjectiveBatch) -> Tensor<1> {
        let ObjectiveBatch { inputs, tokens, weights, .. } = batch;
        let mask_index = self.mask_index;
        let goal = |targets, weights| LossTarget { targets, weights, mask_index };
        match (&self.network, inputs) {
            (Network::Partition(model), NetworkInputs::Partition(partition)) => {
                model.loss_partition(tokens.clone(), &partition, &goal(tokens, weights))
            }
            (Network::Masked(model), NetworkInputs::Masked(masked)) => model.loss(masked, &goal(tokens, weights)),
            (Network::Autoregressive(model), NetworkInputs::Causal) => {
                let n_predicted = tokens.dims()[1] - 1;
                let goal = goal(tokens.clone().narrow(1, 1, n_predicted), weights.narrow(1, 1, n_predicted));
                model.loss(tokens.narrow(1, 0, n_predicted), &goal)
            }
            _ => panic!("a batch of one objective for the network of the other"),
        }
    }
}

/// What a step hands to the learner's metrics.
#[derive(Clone, Debug)]
pub struct StepOutput {
    /// The loss, off the graph, `[1]`.
    pub loss: Tensor<1>,
    /// The figures of a report; absent until the training loop makes one.
    pub(crate) report: Option<StepFigures>,
}

impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<StepFigures> for StepOutput {
    fn adapt(&self) -> StepFigures {
        self.report.clone().unwrap_or_default()
    }
}

impl TrainModel {
    fn work(&self, work: Batch) -> Tensor<1> {
        match work {
            Batch::Supervised(batch) => self.loss(*batch),
            Batch::Distillation(lesson) => lesson.loss(&self.network),
        }
    }
}

impl TrainStep for TrainModel {
    type Input = Batch;
    type Output = StepOutput;

    fn step(&self, work: Batch) -> TrainOutput<StepOutput> {
        // Dropout draws from the device's generator: seeding it here makes a step independent of what came before.
        match &work {
            Batch::Supervised(batch) => batch.tokens.device().seed(batch.seed),
            Batch::Distillation(lesson) => lesson.device.seed(lesson.seed),
        }
        let loss = self.for_step().work(work);
        let output = StepOutput { loss: loss.clone().inner(), report: None };
        TrainOutput::new(self, loss.backward(), output)
    }
}

impl InferenceStep for TrainModel {
    type Input = Batch;
    type Output = StepOutput;

    fn step(&self, work: Batch) -> StepOutput {
        StepOutput { loss: self.work(work), report: None }
    }
}
