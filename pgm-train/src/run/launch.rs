//! One training on burn-train's learner: the learner, its metrics and the training loop put together.

use std::path::Path;
use std::sync::Arc;

use burn::data::dataloader::DataLoader;
use burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::tensor::Device;
use burn::train::renderer::MetricsRenderer;
use burn::train::{InferenceStep, Interrupter, Learner, SupervisedTraining, TrainStep, TrainingStrategy};

use super::capture::{Always, captures};
use super::dashboard::{Gauge, NoLog, Quiet};
use super::event::TrainEvent;
use super::loop_model::LoopModel;
use super::loop_settings::LoopSettings;
use super::model_files::ModelFiles;
use super::optim::{AdamW, LrSchedule};
use super::resume::{LoopStart, RunIdentity};
use super::start_together::start_of_first;
use super::train_loop::{LoopEnd, TrainLoop};
use super::train_model::TrainModel;
use crate::TrainError;
use crate::config::OptimSection;
use crate::world::World;

/// A training: a whole run of [`fit`](super::fit::fit()), a round of a distillation, or a codec's.
pub(crate) struct Training<'a, M: LoopModel = TrainModel> {
    pub(crate) model: M,
    pub(crate) settings: LoopSettings,
    pub(crate) optim: &'a OptimSection,
    /// Steps over which the learning rate decays.
    pub(crate) schedule_steps: usize,
    pub(crate) out: &'a Path,
    pub(crate) device: &'a Device,
    /// Stored in checkpoints.
    pub(crate) identity: RunIdentity,
    /// What makes checkpoints model folders; absent for a codec.
    pub(crate) files: Option<ModelFiles>,
    /// Absent for a run that starts with `model` as it is.
    pub(crate) start: Option<LoopStart>,
    pub(crate) interrupter: Interrupter,
    pub(crate) renderer: Option<Box<dyn MetricsRenderer>>,
    pub(crate) observe: Arc<dyn Fn(&TrainEvent<M::Line>) + Send + Sync>,
    pub(crate) world: World,
}

impl<M: LoopModel> Training<'_, M> {
    /// Trains to the last step, or until the interrupter stops it.
    ///
    /// # Errors
    /// Whatever ended the training loop.
    pub(crate) fn launch(
        self,
        train: Arc<dyn DataLoader<<M as TrainStep>::Input>>,
        validation: Arc<dyn DataLoader<<M as InferenceStep>::Input>>,
    ) -> Result<LoopEnd<M>, TrainError> {
        let start = start_of_first(&self.world, self.start, &self.model)?;
        let schedule = ModuleLrScheduler::new(LrSchedule::new(self.optim, self.schedule_steps));
        let mut learner = Learner::new(self.model, AdamW::from_config(self.optim), schedule);
        let mut counters = Default::default();
        let mut average = None;
        if let Some(start) = start {
            counters = start.counters;
            learner.load_model(start.model);
            if let Some((optim, scheduler)) = start.optimiser {
                learner.load_optim(optim);
                learner.load_scheduler(scheduler);
            }
            average = start.average.map(|stored| stored.apply(learner.model().valid())).transpose()?;
        }
        let average = average.unwrap_or_else(|| learner.model().valid());
        let ((model_capture, optim_capture, scheduler_capture), captured) = captures();
        // burn-train holds its strategy in an `Arc`, but uses it on this thread only.
        #[allow(clippy::arc_with_non_send_sync)]
        let train_loop = Arc::new(TrainLoop {
            settings: self.settings,
            out: self.out.to_path_buf(),
            device: self.device.clone(),
            identity: self.identity,
            files: self.files,
            counters,
            average,
            captured,
            observe: self.observe,
            world: self.world,
            end: Default::default(),
        });
        let training = SupervisedTraining::new(self.out, train, validation)
            .with_training_strategy(TrainingStrategy::Custom(train_loop.clone()))
            .with_interrupter(self.interrupter)
            .with_application_logger(None)
            .with_metric_logger(NoLog)
            .with_custom_checkpointers(model_capture, optim_capture, scheduler_capture)
            .with_checkpointing_strategy(Always)
            .renderer(self.renderer.unwrap_or_else(|| Box::new(Quiet)))
            .metric_train_numeric(Gauge::new("Loss", false, |figures| figures.loss))
            .metric_train_numeric(Gauge::new("Gradient norm", false, |figures| figures.grad_norm))
            .metric_train_numeric(Gauge::new("Learning rate", false, |figures| figures.lr))
            .metric_train_numeric(Gauge::new("Tokens per second", true, |figures| figures.tokens_per_second))
            .num_epochs(1);
        let training = M::gauges().into_iter().fold(training, |training, gauge| training.metric_valid_numeric(gauge));
        training.launch(learner);
        train_loop.end.take().unwrap_or_else(|| Err(TrainError::Learner("the training loop did not run".to_string())))
    }
}
