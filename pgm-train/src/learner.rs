//! The module that burn-train's learner trains: a network with its objective.

use burn::module::Module;
use burn::tensor::{ExecutionError, Tensor};
use burn::train::metric::Adaptor;
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};
use pgm_model::Network;
use pgm_model::loss::weighted_loss;

use crate::batch::{Batch, Inputs, Work};
use crate::dashboard::Report;

/// A network and the class that its loss leaves out.
#[derive(Module, Debug)]
pub struct Trainee {
    /// The network.
    pub network: Network,
    mask_index: usize,
}

impl Trainee {
    /// Wraps a network.
    pub fn new(network: Network, mask_index: usize) -> Self {
        Self { network, mask_index }
    }

    /// Sum of weighted cross-entropies, `[1]`.
    ///
    /// # Panics
    /// When the batch was made for the other objective, which is a programmer's error.
    pub fn loss(&self, batch: Batch) -> Tensor<1> {
        let logits = match (&self.network, batch.inputs) {
            (Network::Partition(model), Inputs::Partition(partition)) => {
                model.forward_partition(batch.tokens.clone(), &partition)
            }
            (Network::Masked(model), Inputs::Masked(tokens)) => model.forward(tokens),
            (Network::Autoregressive(model), Inputs::Causal) => {
                let n_predicted = batch.tokens.dims()[1] - 1;
                let logits = model.forward(batch.tokens.clone().narrow(1, 0, n_predicted));
                let targets = batch.tokens.narrow(1, 1, n_predicted);
                return weighted_loss(logits, targets, batch.weights.narrow(1, 1, n_predicted), self.mask_index);
            }
            _ => panic!("a batch of one objective for the network of the other"),
        };
        weighted_loss(logits, batch.tokens, batch.weights, self.mask_index)
    }
}

/// What a step hands to the learner's metrics.
#[derive(Clone, Debug)]
pub struct StepOutput {
    /// The loss, off the graph, `[1]`.
    pub loss: Tensor<1>,
    /// The figures of a report; absent until the training loop makes one.
    pub(crate) report: Option<Report>,
}

impl ItemLazy for StepOutput {
    fn sync(self) -> Result<Self, ExecutionError> {
        Ok(self)
    }
}

impl Adaptor<Report> for StepOutput {
    fn adapt(&self) -> Report {
        self.report.clone().unwrap_or_default()
    }
}

impl Trainee {
    fn work(&self, work: Work) -> Tensor<1> {
        match work {
            Work::Supervised(batch) => self.loss(*batch),
            Work::Distillation(lesson) => lesson.loss(&self.network),
        }
    }
}

impl TrainStep for Trainee {
    type Input = Work;
    type Output = StepOutput;

    fn step(&self, work: Work) -> TrainOutput<StepOutput> {
        // Dropout draws from the device's generator: seeding it here makes a step independent of what came before.
        match &work {
            Work::Supervised(batch) => batch.tokens.device().seed(batch.seed),
            Work::Distillation(lesson) => lesson.device.seed(lesson.seed),
        }
        let loss = self.work(work);
        let output = StepOutput { loss: loss.clone().inner(), report: None };
        TrainOutput::new(self, loss.backward(), output)
    }
}

impl InferenceStep for Trainee {
    type Input = Work;
    type Output = StepOutput;

    fn step(&self, work: Work) -> StepOutput {
        StepOutput { loss: self.work(work), report: None }
    }
}
