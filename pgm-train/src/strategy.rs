//! The training loop, counted in steps, as a strategy of burn-train's learner.
//!
//! burn-train's own strategies validate, save and resume by epoch. This one does so by step, clips by the global norm,
//! keeps the moving average, and writes everything a resumed run needs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use burn::data::dataloader::Progress;
use burn::lr_scheduler::LrSchedulerRecord;
use burn::module::Module;
use burn::optim::{GradientsAccumulator, OptimizerRecord};
use burn::store::ModuleRecord;
use burn::tensor::{Device, Tensor, Transaction};
use burn::train::{
    EventProcessorTraining, InferenceStep, Learner, LearnerEvent, SupervisedLearningStrategy,
    SupervisedTrainingEventProcessor, TrainLoader, TrainingComponents, TrainingItem, ValidLoader,
};

use crate::TrainError;
use crate::capture::Captured;
use crate::checkpoint::{self, CheckpointRecords, CheckpointState, PendingLoss};
use crate::dashboard::StepFigures;
use crate::fit::TrainEvent;
use crate::gradients::{clip_global_norm, ema_decay, update_average};
use crate::history::{History, Line, TrainLine, ValidationLine};
use crate::learner::{StepOutput, TrainModel};

/// How long a run is, and what happens on the way.
#[derive(Clone, Debug)]
pub(crate) struct LoopSettings {
    pub(crate) steps: usize,
    pub(crate) accumulate: usize,
    pub(crate) log_every: usize,
    pub(crate) validate_every: usize,
    pub(crate) checkpoint_every: usize,
    pub(crate) checkpoint_keep: usize,
    pub(crate) clip: f64,
    pub(crate) ema: f64,
    /// Updates that the average has behind it when the run begins.
    pub(crate) ema_updates: usize,
    /// The settings, kept in checkpoints.
    pub(crate) settings: serde_json::Value,
}

/// Where a run begins, unless it does so from nothing.
pub(crate) struct LoopStart {
    pub(crate) step: usize,
    pub(crate) pending: PendingLoss,
    pub(crate) seconds: f64,
    pub(crate) model: ModuleRecord,
    pub(crate) average: Option<ModuleRecord>,
    /// Absent for a fresh optimiser.
    pub(crate) optimiser: Option<(OptimizerRecord, LrSchedulerRecord)>,
}

impl LoopStart {
    /// Goes on from a checkpoint.
    pub(crate) fn resumed(state: &CheckpointState, records: CheckpointRecords) -> Self {
        Self {
            step: state.step,
            pending: state.pending,
            seconds: state.seconds,
            model: records.model,
            average: records.average,
            optimiser: Some((records.optim, records.scheduler)),
        }
    }
}

/// Everything the loop needs beside what the learner brings.
pub(crate) struct TrainLoop {
    pub(crate) pace: LoopSettings,
    pub(crate) out: PathBuf,
    pub(crate) device: Device,
    /// Identity of the data, kept in checkpoints.
    pub(crate) data: (String, u64),
    pub(crate) start: Mutex<Option<LoopStart>>,
    pub(crate) captured: Mutex<Captured>,
    pub(crate) observe: Arc<dyn Fn(&TrainEvent) + Send + Sync>,
    pub(crate) result: Arc<Mutex<Option<Result<LoopEnd, TrainError>>>>,
}

/// How the loop ended.
#[derive(Clone, Debug)]
pub(crate) struct LoopEnd {
    /// Steps done in all.
    pub(crate) step: usize,
    /// The averaged weights, on the plain device.
    pub(crate) average: TrainModel,
    /// The last validation.
    pub(crate) validation: Option<ValidationLine>,
}

impl SupervisedLearningStrategy<TrainModel> for TrainLoop {
    fn fit(
        &self,
        mut components: TrainingComponents<TrainModel>,
        mut learner: Learner<TrainModel>,
        train: TrainLoader<TrainModel>,
        validation: ValidLoader<TrainModel>,
        _starting_epoch: usize,
    ) -> (TrainModel, SupervisedTrainingEventProcessor<TrainModel>) {
        let result = self.run(&mut components, &mut learner, &train, &validation);
        *self.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        (learner.model(), components.event_processor)
    }
}

/// What the loop carries from step to step.
struct LoopState {
    step: usize,
    average: TrainModel,
    pending: PendingLoss,
    // Sum of losses since the last report, still on the device.
    loss_sum: Tensor<1>,
    grad_norm: Tensor<1>,
    seconds_before: f64,
    start: Instant,
    tokens: usize,
    since: Instant,
    history: History,
}

impl LoopState {
    fn seconds(&self) -> f64 {
        self.seconds_before + self.start.elapsed().as_secs_f64()
    }
}

impl TrainLoop {
    fn run(
        &self,
        components: &mut TrainingComponents<TrainModel>,
        learner: &mut Learner<TrainModel>,
        train: &TrainLoader<TrainModel>,
        validation: &ValidLoader<TrainModel>,
    ) -> Result<LoopEnd, TrainError> {
        let pace = &self.pace;
        let plain = self.device.clone().without_autodiff();
        let mut state = self.restore(learner)?;
        learner.fork(&self.device);
        state.average = state.average.fork(&plain).valid();
        self.show_training(components)?;
        let mut batches = train.iter();
        let mut last_validation = None;
        if state.step == 0 {
            last_validation = Some(self.validate(components, validation, &mut state)?);
        }
        let mut stops = components.interrupter.should_stop();
        while state.step < pace.steps && !stops {
            let mut accumulator = GradientsAccumulator::new();
            let mut loss: Option<Tensor<1>> = None;
            for _ in 0..pace.accumulate {
                let batch = batches.next().ok_or_else(|| TrainError::Learner("the batches ran out".to_string()))?;
                let batch = batch.map_err(|error| TrainError::Learner(error.to_string()))?;
                state.tokens += batch.n_valid();
                let output = learner.train_step(batch);
                accumulator.accumulate(&learner.model(), output.grads);
                loss = Some(match loss {
                    Some(loss) => loss + output.item.loss,
                    None => output.item.loss,
                });
            }
            let mut gradients = accumulator.grads();
            state.grad_norm = clip_global_norm(&mut gradients, &learner.model(), pace.clip);
            learner.lr_step();
            learner.optimizer_step(gradients);
            state.step += 1;
            state.pending.steps += 1;
            state.loss_sum = state.loss_sum.clone() + loss.expect("at least one micro-batch");
            let current = learner.model().valid();
            state.average = if pace.ema > 0.0 {
                update_average(state.average, &current, ema_decay(pace.ema, pace.ema_updates + state.step))
            } else {
                current
            };
            let step = state.step;
            let due = |every: usize| step.is_multiple_of(every) || step == pace.steps;
            let (logs, validates) = (due(pace.log_every), due(pace.validate_every));
            if logs || validates {
                self.read_loss(&mut state)?;
            }
            if logs {
                self.log(components, learner, &mut state)?;
            }
            if validates {
                last_validation = Some(self.validate(components, validation, &mut state)?);
            }
            // Asked once, after all that takes time: what ends the loop is also what saves.
            stops = components.interrupter.should_stop();
            if due(pace.checkpoint_every) || stops {
                if !(logs || validates) {
                    self.read_loss(&mut state)?;
                }
                self.save(components, learner, &state)?;
            }
        }
        report(components.event_processor.process_train(LearnerEvent::EndSplit(1)))?;
        if let Some(error) = components.interrupter.error() {
            return Err(TrainError::Learner(error.to_string()));
        }
        Ok(LoopEnd { step: state.step, average: state.average, validation: last_validation })
    }

    // Tells the dashboard that what it counts from here on is training steps.
    fn show_training(&self, components: &mut TrainingComponents<TrainModel>) -> Result<(), TrainError> {
        let start = LearnerEvent::StartSplit { epoch_number: 1, total_items: self.pace.steps };
        report(components.event_processor.process_train(start))
    }

    fn restore(&self, learner: &mut Learner<TrainModel>) -> Result<LoopState, TrainError> {
        let plain = self.device.clone().without_autodiff();
        let start = self.start.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (mut step, mut pending, mut seconds_before) = (0, PendingLoss::default(), 0.0);
        let mut average = None;
        if let Some(start) = start {
            (step, pending, seconds_before) = (start.step, start.pending, start.seconds);
            learner.load_model(start.model);
            if let Some((optim, scheduler)) = start.optimiser {
                learner.load_optim(optim);
                learner.load_scheduler(scheduler);
            }
            average = start.average.map(|record| learner.model().valid().load_record(record));
        }
        let average = average.unwrap_or_else(|| learner.model().valid());
        let now = Instant::now();
        let state = LoopState {
            step,
            average,
            pending,
            loss_sum: Tensor::from_data([pending.loss_sum], &plain),
            grad_norm: Tensor::zeros([1], &plain),
            seconds_before,
            start: now,
            tokens: 0,
            since: now,
            history: History::open(&self.out, step)?,
        };
        Ok(state)
    }

    // Brings loss and norm to the host and refuses to go on with what is not a number, before anything is saved.
    fn read_loss(&self, state: &mut LoopState) -> Result<(), TrainError> {
        let numbers = Transaction::default()
            .register(state.loss_sum.clone())
            .register(state.grad_norm.clone())
            .try_execute()
            .map_err(|error| TrainError::Device(error.to_string()))?;
        let number = |index: usize| numbers[index].iter::<f32>().next().unwrap_or(f32::NAN);
        state.pending.loss_sum = number(0);
        for (what, value) in [("training loss", number(0)), ("gradient norm", number(1))] {
            if !value.is_finite() {
                return Err(TrainError::NotFinite { what, step: state.step });
            }
        }
        Ok(())
    }

    fn log(
        &self,
        components: &mut TrainingComponents<TrainModel>,
        learner: &Learner<TrainModel>,
        state: &mut LoopState,
    ) -> Result<(), TrainError> {
        let grad_norm = state.grad_norm.clone().try_into_scalar::<f32>();
        let line = TrainLine {
            step: state.step,
            train_loss: f64::from(state.pending.loss_sum) / state.pending.steps as f64,
            lr: learner.lr_current().base(),
            grad_norm: f64::from(grad_norm.map_err(|error| TrainError::Device(error.to_string()))?),
            tokens_per_second: state.tokens as f64 / state.since.elapsed().as_secs_f64(),
            seconds: state.seconds(),
        };
        let figures = StepFigures {
            loss: line.train_loss,
            perplexity: line.train_loss.exp(),
            lr: line.lr,
            grad_norm: line.grad_norm,
            tokens_per_second: line.tokens_per_second,
        };
        let item = self.item(state, state.step, self.pace.steps, figures, Some(learner));
        report(components.event_processor.process_train(LearnerEvent::ProcessedItem(item)))?;
        (self.observe)(&TrainEvent::Trained { line: line.clone(), steps: self.pace.steps });
        state.history.push(&Line::Train(line))?;
        state.pending = PendingLoss::default();
        state.loss_sum = state.loss_sum.zeros_like();
        (state.tokens, state.since) = (0, Instant::now());
        Ok(())
    }

    fn item(
        &self,
        state: &LoopState,
        done: usize,
        total: usize,
        report: StepFigures,
        learner: Option<&Learner<TrainModel>>,
    ) -> TrainingItem<StepOutput> {
        let output = StepOutput { loss: state.loss_sum.clone(), report: Some(report) };
        let progress = Progress::new(done, total, Some("steps".to_string()));
        TrainingItem::new(output, progress, Some(state.step), learner.map(Learner::lr_current))
    }

    fn validate(
        &self,
        components: &mut TrainingComponents<TrainModel>,
        loader: &ValidLoader<TrainModel>,
        state: &mut LoopState,
    ) -> Result<ValidationLine, TrainError> {
        let pause = Instant::now();
        let (mut sum, mut n_tokens) = (0.0, 0);
        let n_batches = loader.num_items();
        let start = LearnerEvent::StartSplit { epoch_number: 1, total_items: n_batches };
        report(components.event_processor.process_valid(start))?;
        for batch in loader.iter() {
            let batch = batch.map_err(|error| TrainError::Learner(error.to_string()))?;
            n_tokens += batch.n_valid();
            let loss = InferenceStep::step(&state.average, batch).loss;
            sum += loss.try_into_scalar::<f64>().map_err(|error| TrainError::Device(error.to_string()))?;
        }
        let val_nelbo = sum / n_tokens as f64;
        if !val_nelbo.is_finite() {
            return Err(TrainError::NotFinite { what: "validation loss", step: state.step });
        }
        let line = ValidationLine { step: state.step, val_nelbo, val_ppl: val_nelbo.exp() };
        let figures = StepFigures { loss: val_nelbo, perplexity: line.val_ppl, ..StepFigures::default() };
        let item = self.item(state, n_batches, n_batches, figures, None);
        report(components.event_processor.process_valid(LearnerEvent::ProcessedItem(item)))?;
        report(components.event_processor.process_valid(LearnerEvent::EndSplit(1)))?;
        (self.observe)(&TrainEvent::Validated(line.clone()));
        state.history.push(&Line::Validation(line.clone()))?;
        self.show_training(components)?;
        // The time of a validation is none of the training's rate.
        state.since += pause.elapsed();
        Ok(line)
    }

    fn save(
        &self,
        components: &mut TrainingComponents<TrainModel>,
        learner: &Learner<TrainModel>,
        state: &LoopState,
    ) -> Result<(), TrainError> {
        let lost = || TrainError::Learner("the learner gave no record to save".to_string());
        let captured = self.captured.lock().unwrap_or_else(PoisonError::into_inner);
        let checkpointer = components.checkpointer.as_mut().ok_or_else(lost)?;
        checkpointer.checkpoint(learner, state.step, &components.event_store);
        let average = (self.pace.ema > 0.0).then(|| state.average.clone().into_record());
        let records = CheckpointRecords {
            model: captured.model.recv().map_err(|_| lost())?,
            average,
            optim: captured.optim.recv().map_err(|_| lost())?,
            scheduler: captured.scheduler.recv().map_err(|_| lost())?,
        };
        let saved = CheckpointState::new(
            state.step,
            state.seconds(),
            state.pending,
            self.pace.settings.clone(),
            self.data.clone(),
        );
        checkpoint::write(&self.out, saved, records, self.pace.checkpoint_keep)?;
        (self.observe)(&TrainEvent::Saved { step: state.step });
        Ok(())
    }
}

fn report(result: Result<(), burn::train::EventProcessorError>) -> Result<(), TrainError> {
    result.map_err(|error| TrainError::Learner(error.to_string()))
}
