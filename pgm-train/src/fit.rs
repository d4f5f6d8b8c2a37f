//! A whole training run.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn::data::dataloader::DataLoader;
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use burn::train::renderer::MetricsRenderer;
use burn::train::{Interrupter, Learner, SupervisedTraining, TrainingStrategy};
use pgm_data::{DataFolder, Split};
use pgm_model::{ModelConfig, Network, model_folder};

use crate::adamw::AdamW;
use crate::batch::{Batch, TrainLoader, ValidationLoader};
use crate::capture::{Always, captures};
use crate::checkpoint::{self, CheckpointState};
use crate::config::{Decay, OptimSection};
use crate::dashboard::{Gauge, NoLog, Quiet};
use crate::history::{TrainLine, ValidationLine};
use crate::learner::TrainModel;
use crate::schedule::WarmUp;
use crate::strategy::{LoopEnd, LoopSettings, LoopStart, TrainLoop};
use crate::{TrainConfig, TrainError, plot};

/// Something a caller may want to show.
#[derive(Clone, Debug)]
pub enum TrainEvent {
    /// The run begins, or goes on from a checkpoint.
    Started {
        /// Steps done before.
        step: usize,
        /// Parameters of the network.
        parameters: usize,
        /// Training rows.
        rows: usize,
    },
    /// A round of a distillation begins.
    Round {
        /// The round, from 1.
        round: usize,
        /// Rounds in all.
        n_rounds: usize,
        /// Sampling steps that the teacher stands for.
        teacher_steps: usize,
        /// Sampling steps that the student will stand for.
        student_steps: usize,
    },
    /// A report of training.
    Trained {
        /// The figures.
        line: TrainLine,
        /// Steps in all.
        steps: usize,
    },
    /// A validation.
    Validated(ValidationLine),
    /// A checkpoint was written.
    Saved {
        /// Steps done.
        step: usize,
    },
    /// Something the user should know.
    Notice(String),
}

/// What to run.
pub struct Fit<'a> {
    /// The run.
    pub config: &'a TrainConfig,
    /// The prepared data folder.
    pub data: &'a Path,
    /// The folder of the run.
    pub out: &'a Path,
    /// Whether to go on from the newest checkpoint in `out` (from the start, when there is none).
    pub resume: bool,
    /// Where to train.
    pub device: &'a Device,
    /// A way to stop the run after the current step, which is then saved.
    pub interrupter: Interrupter,
    /// The dashboard; nothing is shown without one.
    pub renderer: Option<Box<dyn MetricsRenderer>>,
    /// Sees what happens.
    pub observe: Arc<dyn Fn(&TrainEvent) + Send + Sync>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct FitResult {
    /// Steps done in all.
    pub step: usize,
    /// Whether that is all of them; the model folder is written only then.
    pub complete: bool,
    /// The last validation of this part of the run.
    pub validation: Option<ValidationLine>,
}

/// Trains, and writes `checkpoints/`, `metrics.jsonl`, `loss.svg` and `model/` into `out`.
///
/// # Errors
/// What is wrong with the configuration, the data, the checkpoints or the disk; [`TrainError::NotFinite`] when the
/// loss is no longer a number. Checkpoints written before stay.
pub fn fit(what: Fit) -> Result<FitResult, TrainError> {
    let config = Arc::new(what.config.clone());
    let data = DataFolder::open(what.data)?;
    let model_config = config.model_config(data.manifest())?;
    if !what.resume && (!checkpoint::list(what.out).is_empty() || what.out.join("model").exists()) {
        return Err(TrainError::Exists { path: what.out.to_path_buf() });
    }
    let identity = (data.manifest().tokenizer_sha256.clone(), data.manifest().train.rows);
    let settings = serde_json::to_value(&*config).expect("a configuration always serialises");
    let mut start = None;
    if what.resume {
        let (newest, damaged) = checkpoint::newest(what.out)?;
        damaged.into_iter().for_each(|problem| (what.observe)(&TrainEvent::Notice(problem)));
        if let Some((state, _)) = &newest {
            check_same(what.out, state, &settings, &free_keys(&config), &identity)?;
            if state.step > config.steps {
                let (before, now) = (format!("{} done", state.step), config.steps.to_string());
                return Err(TrainError::Changed { path: what.out.into(), key: "steps".to_string(), before, now });
            }
        } else {
            (what.observe)(&TrainEvent::Notice("there is no checkpoint yet; starting from step 0".to_string()));
        }
        start = newest;
    }
    let train_rows = Arc::new(data.rows(Split::Train)?);
    let validation_rows = Arc::new(data.rows(Split::Validation)?);
    std::fs::create_dir_all(what.out).map_err(|error| TrainError::file("write", what.out, error))?;

    let plain = what.device.clone().without_autodiff();
    let device = config.how().training_device(&plain)?;
    let first_step = start.as_ref().map_or(0, |(state, _)| state.step);
    let trainee = initialised(&model_config, config.seed, &plain).computed(config.how()).train();
    (what.observe)(&TrainEvent::Started {
        step: first_step,
        parameters: trainee.network.n_parameters(),
        rows: train_rows.len(),
    });
    let mask = model_config.backbone().mask_index as u32;
    let train = TrainLoader::new(train_rows, config.clone(), mask, device.clone(), first_step);
    let validation = ValidationLoader::new(validation_rows, &config, mask, plain);
    let pace = LoopSettings {
        steps: config.steps,
        accumulate: config.accumulate,
        log_every: config.log_every,
        validate_every: config.validate_every,
        checkpoint_every: config.checkpoint_every,
        checkpoint_keep: config.checkpoint_keep,
        clip: config.optim.clip,
        ema: config.optim.ema,
        ema_updates: 0,
        settings,
    };
    let run = Run {
        pace,
        optim: &config.optim,
        schedule_steps: config.steps,
        out: what.out,
        device: &device,
        data: identity,
        start: start.map(|(state, records)| LoopStart::resumed(&state, records)),
        trainee,
        interrupter: what.interrupter,
        renderer: what.renderer,
        observe: what.observe,
    };
    let ended = run.launch(Arc::new(train), Arc::new(validation))?;
    finish(what.out, &model_config, data.tokenizer().json(), ended, config.steps)
}

/// One training on burn-train's learner: what [`fit`] and every round of a distillation have in common.
pub(crate) struct Run<'a> {
    pub(crate) pace: LoopSettings,
    pub(crate) optim: &'a OptimSection,
    /// Steps over which the learning rate's schedule goes.
    pub(crate) schedule_steps: usize,
    pub(crate) out: &'a Path,
    pub(crate) device: &'a Device,
    pub(crate) data: (String, u64),
    pub(crate) start: Option<LoopStart>,
    pub(crate) trainee: TrainModel,
    pub(crate) interrupter: Interrupter,
    pub(crate) renderer: Option<Box<dyn MetricsRenderer>>,
    pub(crate) observe: Arc<dyn Fn(&TrainEvent) + Send + Sync>,
}

impl Run<'_> {
    pub(crate) fn launch(
        self,
        train: Arc<dyn DataLoader<Batch>>,
        validation: Arc<dyn DataLoader<Batch>>,
    ) -> Result<LoopEnd, TrainError> {
        let optim = self.optim;
        let optimiser = AdamW::of(optim);
        let schedule =
            burn::lr_scheduler::module_lr_scheduler::ModuleLrScheduler::new(WarmUp::new(optim, self.schedule_steps));
        let ((model_capture, optim_capture, scheduler_capture), captured) = captures();
        let result = Arc::new(Mutex::new(None));
        let strategy = TrainLoop {
            pace: self.pace,
            out: self.out.to_path_buf(),
            device: self.device.clone(),
            data: self.data,
            start: Mutex::new(self.start),
            captured: Mutex::new(captured),
            observe: self.observe,
            result: result.clone(),
        };
        SupervisedTraining::new(self.out, train, validation)
            .with_training_strategy(TrainingStrategy::Custom(Arc::new(strategy)))
            .with_interrupter(self.interrupter)
            .with_application_logger(None)
            .with_metric_logger(NoLog)
            .with_custom_checkpointers(model_capture, optim_capture, scheduler_capture)
            .with_checkpointing_strategy(Always)
            .renderer(self.renderer.unwrap_or_else(|| Box::new(Quiet)))
            .metric_train_numeric(Gauge::new("Loss", false, |report| report.loss))
            .metric_train_numeric(Gauge::new("Gradient norm", false, |report| report.grad_norm))
            .metric_train_numeric(Gauge::new("Learning rate", false, |report| report.lr))
            .metric_train_numeric(Gauge::new("Tokens per second", true, |report| report.tokens_per_second))
            .metric_valid_numeric(Gauge::new("NELBO", false, |report| report.loss))
            .metric_valid_numeric(Gauge::new("Perplexity", false, |report| report.perplexity))
            .num_epochs(1)
            .launch(Learner::new(self.trainee, optimiser, schedule));
        let ended = result.lock().unwrap_or_else(PoisonError::into_inner).take();
        ended.unwrap_or_else(|| Err(TrainError::Learner("the training loop did not run".to_string())))
    }
}

/// Draws the curve and, when all steps are done, writes the model folder.
pub(crate) fn finish(
    out: &Path,
    config: &ModelConfig,
    tokenizer: &[u8],
    ended: LoopEnd,
    steps: usize,
) -> Result<FitResult, TrainError> {
    let LoopEnd { step, average, validation } = ended;
    plot::draw(out)?;
    let complete = step == steps;
    if complete {
        let folder = out.join("model");
        model_folder::write_file(&folder_file(&folder, model_folder::TOKENIZER_FILE)?, tokenizer)?;
        let defaults = serde_json::json!({ "steps": 128, "temperature": 1.0, "top_k": 0, "top_p": 1.0 });
        let json = serde_json::to_vec_pretty(&defaults).expect("JSON values always serialise");
        model_folder::write_file(&folder.join(model_folder::GENERATION_FILE), &json)?;
        // The configuration is written last: a folder that has it is whole.
        model_folder::save(&folder, config, &average.network)?;
    }
    Ok(FitResult { step, complete, validation })
}

fn folder_file(folder: &Path, name: &str) -> Result<PathBuf, TrainError> {
    std::fs::create_dir_all(folder).map_err(|error| TrainError::file("write", folder, error))?;
    Ok(folder.join(name))
}

/// A network whose parameters are drawn now, in a fixed order, from `seed`.
fn initialised(config: &ModelConfig, seed: u64, device: &Device) -> TrainModel {
    struct Touch;
    impl ModuleVisitor for Touch {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let _ = param.val();
        }
    }
    device.seed(seed);
    let network = Network::new(config, device);
    network.visit(&mut Touch);
    TrainModel::new(network, config.backbone().mask_index)
}

// What may change on resuming: intervals and, where it shapes nothing, the number of steps.
fn free_keys(config: &TrainConfig) -> Vec<&'static str> {
    let mut free = vec![
        "log_every",
        "validate_every",
        "validate_rows",
        "validate_times",
        "checkpoint_every",
        "checkpoint_keep",
        "checkpointing",
    ];
    // With a cosine the number of steps shapes every learning rate.
    if config.optim.decay == Decay::Constant {
        free.push("steps");
    }
    free
}

/// Refuses to resume a run with other settings (but for the keys in `free`) or on other data.
pub(crate) fn check_same(
    out: &Path,
    state: &CheckpointState,
    settings: &serde_json::Value,
    free: &[&str],
    data: &(String, u64),
) -> Result<(), TrainError> {
    let without_free = |value: &serde_json::Value| {
        let mut value = value.clone();
        if let Some(map) = value.as_object_mut() {
            free.iter().for_each(|key| drop(map.remove(*key)));
        }
        value
    };
    let changed =
        |key: String, before: String, now: String| TrainError::Changed { path: out.to_path_buf(), key, before, now };
    if let Some((key, before, now)) = first_difference("", &without_free(&state.config), &without_free(settings)) {
        return Err(changed(key, before, now));
    }
    if state.data != *data {
        let describe =
            |(hash, rows): &(String, u64)| format!("{rows} rows with tokenizer {}", &hash[..hash.len().min(8)]);
        return Err(changed("--data".to_string(), describe(&state.data), describe(data)));
    }
    Ok(())
}

fn first_difference(
    prefix: &str,
    before: &serde_json::Value,
    now: &serde_json::Value,
) -> Option<(String, String, String)> {
    match (before.as_object(), now.as_object()) {
        (Some(a), Some(b)) => {
            let keys = a.keys().chain(b.keys().filter(|key| !a.contains_key(*key)));
            let null = serde_json::Value::Null;
            keys.into_iter().find_map(|key| {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                first_difference(&name, a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null))
            })
        }
        _ if before == now => None,
        _ => Some((prefix.to_string(), before.to_string(), now.to_string())),
    }
}
