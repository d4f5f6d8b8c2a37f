//! The training loop, counted in steps, as a strategy of burn-train's learner.
//!
//! burn-train's own strategies validate, save and resume by epoch. This one does so by step, clips by the global norm,
//! keeps the moving average, stops when validations no longer fall, and writes everything that a resumed run needs.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use burn::data::dataloader::Progress;
use burn::data::dataset::DatasetError;
use burn::optim::GradientsAccumulator;
use burn::tensor::{Device, Tensor};
use burn::train::{
    EventProcessorTraining, Learner, LearnerEvent, SupervisedLearningStrategy, SupervisedTrainingEventProcessor,
    TrainLoader, TrainingComponents, TrainingItem, ValidLoader,
};

use super::best::BestValidation;
use super::capture::Captured;
use super::checkpoint::{self, CheckpointParts, CheckpointState, CheckpointWriter, FolderParts, PendingLoss};
use super::dashboard::StepFigures;
use super::event::TrainEvent;
use super::exchange::{ExchangeCost, OwnPart, WholeStep, check_weights, exchange_step, number_of_first};
use super::history::{History, Line, TrainLine, ValidationFigures, WorldLine, read_lines};
use super::loop_model::LoopModel;
use super::loop_settings::LoopSettings;
use super::model_files::ModelFiles;
use super::optim::{clip_to, ema_decay, global_norm, update_average, weight_norm};
use super::resume::{Counters, RunIdentity};
use super::train_model::{StepOutput, TrainModel};
use super::watch::{Divergence, StepWatch};
use serde_json::{Value, json};

use crate::error::{Diverged, TrainError};
use crate::world::World;

/// The training loop and what it needs beside the learner.
pub(crate) struct TrainLoop<M: LoopModel = TrainModel> {
    pub(crate) settings: LoopSettings,
    pub(crate) out: PathBuf,
    pub(crate) device: Device,
    /// Stored in checkpoints.
    pub(crate) identity: RunIdentity,
    pub(crate) files: Option<ModelFiles>,
    pub(crate) counters: Counters,
    /// The average before the first step.
    pub(crate) average: M,
    pub(crate) captured: Captured,
    pub(crate) observe: Arc<dyn Fn(&TrainEvent<M::Line>) + Send + Sync>,
    pub(crate) world: World,
    /// How the loop ended; burn-train has no way to return it.
    pub(crate) end: Cell<Option<Result<LoopEnd<M>, TrainError>>>,
}

/// How the loop ended.
#[derive(Clone, Debug)]
pub(crate) struct LoopEnd<M: LoopModel = TrainModel> {
    /// Steps done in all.
    pub(crate) step: usize,
    /// The averaged weights, without autodiff.
    pub(crate) average: M,
    /// The last validation of this part of the run.
    pub(crate) validation: Option<M::Line>,
    /// The lowest validation of the whole run.
    pub(crate) best: Option<BestValidation>,
    /// Whether it ended because validations no longer fell.
    pub(crate) stopped_early: bool,
    /// `training.json` of the model.
    pub(crate) training: Value,
}

impl<M: LoopModel> SupervisedLearningStrategy<M> for TrainLoop<M> {
    fn fit(
        &self,
        mut components: TrainingComponents<M>,
        mut learner: Learner<M>,
        train: TrainLoader<M>,
        validation: ValidLoader<M>,
        _starting_epoch: usize,
    ) -> (M, SupervisedTrainingEventProcessor<M>) {
        let end = self.run(&mut components, &mut learner, &train, &validation);
        self.end.set(Some(end));
        (learner.model(), components.event_processor)
    }
}

/// What the loop carries from step to step.
struct LoopState<M: LoopModel> {
    step: usize,
    average: M,
    pending: PendingLoss,
    // Sum of losses since the last line of figures, on the device, [1].
    loss_sum: Tensor<1>,
    watch: StepWatch,
    best: Option<BestValidation>,
    // The last validation of the whole run.
    validation: Option<M::Line>,
    start: Instant,
    seconds_before: f64,
    // Steps done when this process began.
    steps_before: usize,
    // Tokens since the last line of figures, and its time.
    tokens: usize,
    since: Instant,
    exchange: ExchangeCost,
    // Only rank 0 has one.
    history: Option<History>,
    checkpoints: CheckpointWriter,
}

impl<M: LoopModel> LoopState<M> {
    fn seconds(&self) -> f64 {
        self.seconds_before + self.start.elapsed().as_secs_f64()
    }
}

impl<M: LoopModel> TrainLoop<M> {
    fn run(
        &self,
        components: &mut TrainingComponents<M>,
        learner: &mut Learner<M>,
        train: &TrainLoader<M>,
        validation: &ValidLoader<M>,
    ) -> Result<LoopEnd<M>, TrainError> {
        let settings = &self.settings;
        let mut state = self.initial_state()?;
        learner.fork(&self.device);
        self.show_training(components)?;
        let mut batches = train.iter();
        let mut last_validation = None;
        // A run that is resumed for no more steps than it has ends with a validation, as every run does.
        let is_over =
            state.step == settings.steps && state.validation.as_ref().is_none_or(|line| line.step() != state.step);
        let is_over = self.world.broadcast("the validation of the last step", is_over).map_err(TrainError::Ranks)?;
        if state.step == 0 || is_over {
            last_validation = Some(self.validate(components, validation, &mut state)?);
        }
        if is_over {
            // With the best validation, and how long ago it was.
            self.save(components, learner, &mut state)?;
        }
        // Of several processes none stops alone.
        let mut stops = self.world.is_alone() && components.interrupter.should_stop();
        let mut stopped_early = state.step < settings.steps && self.is_out_of_patience(&state);
        while state.step < settings.steps && !stops && !stopped_early {
            let mut accumulator = GradientsAccumulator::new();
            let mut loss: Option<Tensor<1>> = None;
            let mut tokens = 0;
            for _ in self.world.share().micro_batches(settings.accumulate) {
                let batch = batches.next().ok_or_else(|| TrainError::Learner("the batches ran out".to_string()))?;
                let batch = batch.map_err(|error| TrainError::Learner(error.to_string()))?;
                tokens += M::n_counted(&batch);
                let output = learner.train_step(batch);
                accumulator.accumulate(&learner.model(), output.grads);
                loss = Some(match loss {
                    Some(loss) => loss + output.item.loss,
                    None => output.item.loss,
                });
            }
            let mut gradients = accumulator.grads();
            let loss = loss.expect("at least one micro-batch");
            let own = OwnPart { step: state.step + 1, loss, tokens, stops: components.interrupter.should_stop() };
            let WholeStep { loss, tokens, stops: any_stops, not_finite } = match self.world.is_alone() {
                true => WholeStep { loss: own.loss, tokens, stops: false, not_finite: None },
                false => state
                    .exchange
                    .measure(&self.world, || exchange_step(&self.world, &learner.model(), &mut gradients, own))?,
            };
            state.tokens += tokens;
            let mut grad_norm = global_norm(&gradients, &learner.model());
            if !self.world.is_alone() {
                grad_norm = number_of_first(&self.world, &format!("step {}", state.step + 1), grad_norm)?;
            }
            clip_to(&mut gradients, &learner.model(), settings.clip, &grad_norm);
            learner.lr_step();
            learner.optimizer_step(gradients);
            state.step += 1;
            state.pending.steps += 1;
            state.loss_sum = state.loss_sum.clone() + loss.clone();
            state.watch.push(state.step, learner.lr_current().base(), loss, grad_norm);
            let current = learner.model().valid();
            state.average = if settings.ema > 0.0 {
                let decay = ema_decay(settings.ema, settings.ema_updates + state.step);
                update_average(state.average, &current, decay)
            } else {
                current
            };
            let step = state.step;
            let due = |every: usize| step.is_multiple_of(every) || step == settings.steps;
            let (logs, validates) = (due(settings.log_every), due(settings.validate_every));
            if let Some((rank, what)) = not_finite {
                (self.observe)(&TrainEvent::Notice(format!("at step {step} the {what} of rank {rank} is not finite")));
            }
            if logs || validates || state.watch.is_full() || not_finite.is_some() {
                self.read_loss(&mut state)?;
            }
            if logs {
                self.log(components, learner, &mut state)?;
            }
            if validates {
                last_validation = Some(self.validate(components, validation, &mut state)?);
                stopped_early = step < settings.steps && self.is_out_of_patience(&state);
                if stopped_early && !logs {
                    self.log(components, learner, &mut state)?;
                }
            }
            // Read once, after everything that takes time: a stop is always followed by a checkpoint.
            stops = any_stops || self.world.is_alone() && components.interrupter.should_stop();
            if due(settings.checkpoint_every) || stops || stopped_early {
                self.read_loss(&mut state)?;
                self.save(components, learner, &mut state)?;
            }
        }
        sent(components.event_processor.process_train(LearnerEvent::EndSplit(1)))?;
        if let Some(error) = components.interrupter.error() {
            return Err(TrainError::Learner(error.to_string()));
        }
        if let (true, Some(best)) = (stopped_early, &state.best) {
            (self.observe)(&TrainEvent::Notice(format!(
                "the run ends at step {} of {}: none of the last {} validations is below the {:.4} nats of step {} (patience = {})",
                state.step, settings.steps, best.since, best.val_nelbo, best.step, settings.patience
            )));
        }
        let training = self.training(&state);
        let LoopState { step, average, best, .. } = state;
        Ok(LoopEnd { step, average, validation: last_validation, best, stopped_early, training })
    }

    fn is_out_of_patience(&self, state: &LoopState<M>) -> bool {
        let patience = self.settings.patience;
        patience > 0 && state.best.is_some_and(|best| best.since >= patience)
    }

    // The record of the training in a model folder.
    fn training(&self, state: &LoopState<M>) -> Value {
        let RunIdentity { settings, data } = &self.identity;
        json!({
            "step": state.step,
            "steps": self.settings.steps,
            "validation": state.validation,
            "settings": settings,
            "data": data,
            "version": env!("CARGO_PKG_VERSION"),
        })
    }

    // Switches the dashboard's progress to training steps.
    fn show_training(&self, components: &mut TrainingComponents<M>) -> Result<(), TrainError> {
        let start = LearnerEvent::StartSplit { epoch_number: 1, total_items: self.settings.steps };
        sent(components.event_processor.process_train(start))
    }

    fn initial_state(&self) -> Result<LoopState<M>, TrainError> {
        let plain = self.device.clone().without_autodiff();
        let Counters { step, pending, seconds, best } = self.counters;
        let now = Instant::now();
        let history = self.world.is_first().then(|| History::open::<M::Line>(&self.out, step)).transpose()?;
        let lines = if self.world.is_first() { read_lines::<M::Line>(&self.out)? } else { Vec::new() };
        let validation = lines.into_iter().rev().find_map(|line| match line {
            Line::Validation(line) => Some(line),
            Line::Train(_) => None,
        });
        Ok(LoopState {
            step,
            average: self.average.clone().fork(&plain).valid(),
            pending,
            loss_sum: Tensor::from_data([pending.loss_sum], &plain),
            watch: StepWatch::default(),
            best,
            validation,
            start: now,
            seconds_before: seconds,
            steps_before: step,
            tokens: 0,
            since: now,
            exchange: ExchangeCost::default(),
            history,
            checkpoints: CheckpointWriter::new(&self.out, self.settings.checkpoint_keep),
        })
    }

    // Reads losses and gradient norms from the device, if any wait. One that is not finite ends the run before it is saved.
    fn read_loss(&self, state: &mut LoopState<M>) -> Result<(), TrainError> {
        if state.watch.is_empty() {
            return Ok(());
        }
        let (loss_sum, diverged) = state.watch.read(state.loss_sum.clone())?;
        state.pending.loss_sum = loss_sum;
        match diverged {
            Some(divergence) => Err(self.diverged(divergence)),
            None => Ok(()),
        }
    }

    fn diverged(&self, divergence: Divergence) -> TrainError {
        let Divergence { what, at, before } = divergence;
        TrainError::Diverged(Box::new(Diverged {
            what,
            step: at.step,
            loss: at.loss,
            grad_norm: at.grad_norm,
            lr: at.lr,
            before: before.map(|before| (before.step, before.loss, before.grad_norm)),
            path: self.out.clone(),
            checkpoint: checkpoint::list(&self.out).last().map(|(step, _)| *step),
        }))
    }

    // The error of what is not finite after the newest step, whose loss and gradient are.
    fn diverged_after(&self, what: &'static str, state: &LoopState<M>) -> TrainError {
        match state.watch.last() {
            Some(at) => self.diverged(Divergence { what, at, before: None }),
            None => TrainError::NotFinite { what: "validation loss", step: state.step },
        }
    }

    fn log(
        &self,
        components: &mut TrainingComponents<M>,
        learner: &Learner<M>,
        state: &mut LoopState<M>,
    ) -> Result<(), TrainError> {
        let grad_norm = state.watch.last().map_or(f32::NAN, |last| last.grad_norm);
        let line = TrainLine {
            step: state.step,
            train_loss: f64::from(state.pending.loss_sum) / state.pending.steps as f64,
            lr: learner.lr_current().base(),
            grad_norm: f64::from(grad_norm),
            tokens_per_second: state.tokens as f64 / state.since.elapsed().as_secs_f64(),
            seconds: state.seconds(),
            world: self.world_line(std::mem::take(&mut state.exchange)),
        };
        let figures = StepFigures {
            loss: line.train_loss,
            perplexity: line.train_loss.exp(),
            lr: line.lr,
            grad_norm: line.grad_norm,
            tokens_per_second: line.tokens_per_second,
        };
        let progress = Progress::new(state.step, self.settings.steps, Some("steps".to_string()));
        let output = StepOutput { loss: state.loss_sum.clone(), figures: Some(figures) };
        let item = TrainingItem::new(output, progress, Some(state.step), Some(learner.lr_current()));
        sent(components.event_processor.process_train(LearnerEvent::ProcessedItem(item)))?;
        let steps = self.settings.steps;
        let rate = (state.step - state.steps_before) as f64 / state.start.elapsed().as_secs_f64();
        let seconds_left = (steps - state.step) as f64 / rate;
        (self.observe)(&TrainEvent::Trained { line: line.clone(), steps, seconds_left });
        if let Some(history) = &mut state.history {
            history.push(&Line::<M::Line>::Train(line))?;
        }
        state.pending = PendingLoss::default();
        state.loss_sum = state.loss_sum.zeros_like();
        (state.tokens, state.since) = (0, Instant::now());
        Ok(())
    }

    fn validate(
        &self,
        components: &mut TrainingComponents<M>,
        loader: &ValidLoader<M>,
        state: &mut LoopState<M>,
    ) -> Result<M::Line, TrainError> {
        let pause = Instant::now();
        let n_batches = loader.num_items();
        let start = LearnerEvent::StartSplit { epoch_number: 1, total_items: n_batches };
        sent(components.event_processor.process_valid(start))?;
        let sums = self.measure(loader, state)?;
        let mut line =
            M::line(&sums, state.step).ok_or_else(|| self.diverged_after("the validation loss is", state))?;
        state.validation = Some(line.clone());
        if self.settings.keeps_best && BestValidation::observe(&mut state.best, line.step(), line.point().0) {
            line.set_best();
            state.validation = Some(line.clone());
            let training = self.training(state);
            if let (true, Some(network), Some(files)) = (self.world.is_first(), state.average.network(), &self.files) {
                checkpoint::write_best(&self.out, line.step(), FolderParts { network, files, training: &training })?;
            }
        }
        let figures = M::figures(&line);
        let progress = Progress::new(n_batches, n_batches, Some("steps".to_string()));
        let output = StepOutput { loss: state.loss_sum.clone(), figures: Some(figures) };
        let item = TrainingItem::new(output, progress, Some(state.step), None);
        sent(components.event_processor.process_valid(LearnerEvent::ProcessedItem(item)))?;
        sent(components.event_processor.process_valid(LearnerEvent::EndSplit(1)))?;
        (self.observe)(&TrainEvent::Validated(line.clone()));
        if let Some(history) = &mut state.history {
            history.push(&Line::Validation(line.clone()))?;
        }
        self.show_training(components)?;
        // The tokens per second of training leave out the time of validations.
        state.since += pause.elapsed();
        Ok(line)
    }

    // The sums of all batches. With several processes the batches go round.
    fn measure(&self, loader: &ValidLoader<M>, state: &LoopState<M>) -> Result<M::Sums, TrainError> {
        let mut sums = M::Sums::default();
        let measure = |batch: Result<_, DatasetError>| {
            state.average.measure(batch.map_err(|error| TrainError::Learner(error.to_string()))?)
        };
        if self.world.is_alone() {
            for batch in loader.iter() {
                M::add(&mut sums, measure(batch)?);
            }
            return Ok(sums);
        }
        let (share, n_batches) = (self.world.share(), loader.num_items());
        let mut own = Vec::new();
        for index in (0..n_batches).filter(|&index| share.has_batch(index)) {
            for batch in loader.slice(index, index + 1).iter() {
                own.push(measure(batch)?);
            }
        }
        let what = format!("the validation of step {}", state.step);
        let all = self.world.all_gather(&what, &own).map_err(TrainError::Ranks)?;
        let mut all: Vec<_> = all.into_iter().map(Vec::into_iter).collect();
        for index in 0..n_batches {
            if let Some(measured) = all[index % share.size].next() {
                M::add(&mut sums, measured);
            }
        }
        Ok(sums)
    }

    // What the exchanges since the last line have cost.
    fn world_line(&self, cost: ExchangeCost) -> Option<WorldLine> {
        let ExchangeCost { waited, sent, steps } = cost;
        (!self.world.is_alone()).then(|| WorldLine {
            size: self.world.size(),
            exchange_ms: 1e3 * waited.as_secs_f64() / steps.max(1) as f64,
            exchange_bytes: sent / steps.max(1) as u64,
        })
    }

    fn save(
        &self,
        components: &mut TrainingComponents<M>,
        learner: &Learner<M>,
        state: &mut LoopState<M>,
    ) -> Result<(), TrainError> {
        if !self.world.is_alone() {
            check_weights(&self.world, &learner.model().valid(), state.step)?;
        }
        if !self.world.is_first() {
            return Ok(());
        }
        let lost = || TrainError::Learner("the learner gave no record to save".to_string());
        let checkpointer = components.checkpointer.as_mut().ok_or_else(lost)?;
        checkpointer.checkpoint(learner, state.step, &components.event_store);
        let model = self.captured.model.recv().map_err(|_| lost())?;
        let optim = self.captured.optim.recv().map_err(|_| lost())?;
        let scheduler = self.captured.scheduler.recv().map_err(|_| lost())?;
        let norm = weight_norm(&learner.model().valid()).try_into_scalar::<f32>();
        if !norm.map_err(|error| TrainError::Device(error.to_string()))?.is_finite() {
            return Err(self.diverged_after("the weights are", state));
        }
        let RunIdentity { settings, data } = self.identity.clone();
        let saved = CheckpointState::new(state.step, state.seconds(), state.pending, settings, data);
        let training = self.training(state);
        let (has_average, network) = (self.settings.ema > 0.0, state.average.network());
        let folder = network.zip(self.files.as_ref());
        let folder = folder.map(|(network, files)| FolderParts { network, files, training: &training });
        state.checkpoints.write(CheckpointParts {
            state: saved.with_best(state.best),
            model: (has_average || folder.is_none()).then_some(model),
            average: (has_average && folder.is_none()).then(|| state.average.clone().into_record()),
            optim,
            scheduler,
            folder,
        })?;
        (self.observe)(&TrainEvent::Saved { step: state.step });
        Ok(())
    }
}

fn sent(result: Result<(), burn::train::EventProcessorError>) -> Result<(), TrainError> {
    result.map_err(|error| TrainError::Learner(error.to_string()))
}
