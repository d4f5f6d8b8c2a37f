//! A whole distillation, round by round.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use burn::train::Interrupter;
use pgm_data::{DataFolder, TokenRows};
use pgm_infer::{GenerationConfig, OrderKind};
use pgm_model::{ModelConfig, Network, model_folder};
use serde_json::{Value, json};

use super::loader::DistillLoader;
use super::loss::DistillLoss;
use super::teacher::Teacher;
use crate::TrainError;
use crate::batches::ValidationLoader;
use crate::config::{ConfigFile, DistillConfig, Objective, TeacherWeights};
use crate::eval::check_same_data;
use crate::files::fingerprint;
use crate::run::checkpoint::{Checkpoint, CheckpointRecords, StoredAverage, started};
use crate::run::history::ValidationLine;
use crate::run::{
    CHUNK, CardWords, Counters, DataIdentity, FitResult, LoopSettings, LoopStart, LrPlan, ModelCard, ModelFiles,
    Recipe, RunIdentity, RunLock, ScheduleCheck, TrainEvent, TrainModel, Training, check_same, newest_checkpoint,
    rows_of, weights_of_first, write_results,
};
use crate::special_tokens::TokenizerFiles;
use crate::world::World;

/// The arguments of [`distill()`].
pub struct Distill<'a> {
    /// The configuration.
    pub config: &'a DistillConfig,
    /// The model folder of the first teacher, or a training run; see [`model_folder::resolve`].
    pub teacher: &'a Path,
    /// The prepared data folder.
    pub data: &'a Path,
    /// The folder of the distillation.
    pub out: &'a Path,
    /// Whether to resume an earlier distillation in `out`.
    pub resume: bool,
    /// Where to train.
    pub device: &'a Device,
    /// Stops the distillation after the current step, which is then saved.
    pub interrupter: Interrupter,
    /// Is called with each event; of several processes only in rank 0.
    pub observe: Arc<dyn Fn(&TrainEvent) + Send + Sync>,
    /// The processes that train together.
    pub world: World,
}

/// How a distillation ended.
#[derive(Clone, Debug)]
pub struct DistillResult {
    /// Model folders of the complete rounds, in order.
    pub models: Vec<PathBuf>,
    /// Steps done of the round that was stopped.
    pub stopped_at: Option<usize>,
    /// The last validation.
    pub validation: Option<ValidationLine>,
}

/// Distils, and writes `round-N/` for each round into `out`.
///
/// # Errors
/// When the configuration, the teacher, the data, a checkpoint or the disk cannot be used. Earlier checkpoints stay.
pub fn distill(mut args: Distill) -> Result<DistillResult, TrainError> {
    let world = args.world.clone();
    if !world.is_first() {
        args.observe = Arc::new(|_: &TrainEvent| ());
    }
    args.config.warnings().into_iter().for_each(|warning| (args.observe)(&TrainEvent::Notice(warning)));
    let distillation = Distillation::new(&args)?;
    let (mut models, mut validation) = (Vec::new(), None);
    for round in 0..distillation.schedule.len() {
        let model = distillation.folder(round).join("model");
        let is_complete = model.join(model_folder::CONFIG_FILE).exists();
        if world.broadcast("the next round", is_complete).map_err(TrainError::Ranks)? {
            distillation.check_complete(round)?;
        } else {
            let result = distillation.run_round(round)?;
            validation = result.validation.or(validation);
            if !result.complete {
                return Ok(DistillResult { models, stopped_at: Some(result.step), validation });
            }
        }
        models.push(model);
    }
    Ok(DistillResult { models, stopped_at: None, validation })
}

/// The state that all rounds share.
struct Distillation<'a> {
    args: &'a Distill<'a>,
    config: Arc<DistillConfig>,
    // Sampling steps of teacher and student in each round.
    schedule: Vec<(usize, usize)>,
    model_config: ModelConfig,
    first_teacher: Network,
    // The order that the first teacher's folder names.
    order: Option<OrderKind>,
    // CRC-32 of the first teacher's weights.
    teacher_crc: u32,
    files: ModelFiles,
    data: DataIdentity,
    train_rows: Arc<TokenRows>,
    validation_rows: Arc<TokenRows>,
    plain: Device,
    device: Device,
    _lock: Option<RunLock>,
}

impl<'a> Distillation<'a> {
    fn new(args: &'a Distill<'a>) -> Result<Self, TrainError> {
        let data = DataFolder::open(args.data)?;
        let plain = args.device.clone().without_autodiff();
        let device = args.config.run.step_options().training_device(&plain)?;
        let teacher = model_folder::resolve(args.teacher)?;
        let (model_config, first_teacher) = model_folder::load(&teacher, &plain)?;
        check_teacher(&teacher, &model_config, &data)?;
        let order = GenerationConfig::read(&teacher.join(model_folder::GENERATION_FILE))?.order;
        let weights = teacher.join(model_folder::WEIGHTS_FILE);
        let (_, teacher_crc) = fingerprint(&weights).map_err(|error| TrainError::file("read", &weights, error))?;
        // Pictures have none.
        let is_text = data.image().is_none();
        let tokenizer = is_text.then(|| TokenizerFiles::of(&data, args.data, Some(&teacher))).transpose()?;
        let world = &args.world;
        let identity = DataIdentity::new(&data)?;
        let settings = json!({ "distill": args.config, "teacher_crc32": teacher_crc });
        let whole = RunIdentity { settings, data: identity.clone() };
        check_same(world, &args.config.run, &whole, args.resume)?;
        let [train_rows, validation_rows] = rows_of(world, &data)?;
        let card = card_of(args.config, &data, CardWords::of_folder(&teacher));
        let lock = world.is_first().then(|| RunLock::acquire(args.out, &*args.observe)).transpose()?;
        if world.is_first() && !args.resume && started(args.out) {
            return Err(TrainError::Exists { path: args.out.to_path_buf() });
        }
        Ok(Self {
            args,
            config: Arc::new(args.config.clone()),
            schedule: args.config.schedule(),
            files: ModelFiles::new(model_config.clone(), tokenizer).with_card(card),
            model_config,
            first_teacher,
            order,
            teacher_crc,
            data: identity,
            train_rows: Arc::new(train_rows),
            validation_rows: Arc::new(validation_rows),
            plain,
            device,
            _lock: lock,
        })
    }

    fn folder(&self, round: usize) -> PathBuf {
        self.args.out.join(format!("round-{}", round + 1))
    }

    fn mask_index(&self) -> usize {
        self.model_config.backbone().mask_index
    }

    fn identity(&self, round: usize) -> RunIdentity {
        let settings = json!({
            "distill": *self.config, "round": round + 1, "teacher_crc32": self.teacher_crc,
            "teacher": self.args.teacher.display().to_string(),
        });
        RunIdentity { settings, data: self.data.clone() }
    }

    // The newest checkpoint of a round, if there is one.
    fn checkpoint(&self, round: usize) -> Result<Option<Checkpoint>, TrainError> {
        let out = self.folder(round);
        let found = newest_checkpoint(&out, &self.plain, &*self.args.observe)?;
        if let Some(Checkpoint { state, .. }) = &found {
            let identity = self.identity(round);
            let prefixed = |key: &str| format!("distill.{key}");
            let keys = ["rounds", "optim.schedule", "optim.floor", "optim.decay_share"].map(prefixed);
            let free = self.config.free_keys().into_iter().map(prefixed).chain(keys.clone());
            // The teacher is compared by its weights.
            let free: Vec<String> = free.chain(["teacher".to_string()]).collect();
            identity.check(&out, state, &free)?;
            let plan = |settings: &Value| {
                let config: DistillConfig = serde_json::from_value(settings["distill"].clone()).ok()?;
                Some(LrPlan { steps: config.schedule_steps(), optim: config.run.optim })
            };
            let earlier = if self.config.restart_optimiser { 0 } else { round * self.config.round_steps };
            let instead = "start a new distillation".to_string();
            let check = ScheduleCheck { plan: &plan, keys: &keys, done: earlier + state.step, instead };
            check.check(&out, &state.config, &identity.settings)?;
        }
        Ok(found)
    }

    // A round with a model folder is not trained again, but must be one of this distillation.
    fn check_complete(&self, round: usize) -> Result<(), TrainError> {
        if self.args.world.is_first() { self.checkpoint(round).map(drop) } else { Ok(()) }
    }

    // The last records of a complete round.
    fn records_of(&self, round: usize) -> Result<CheckpointRecords, TrainError> {
        let missing = |problem: String| TrainError::NoCheckpoint { path: self.folder(round), problem };
        let found = self.checkpoint(round)?;
        let Checkpoint { state, records, .. } =
            found.ok_or_else(|| missing("the next round starts from one".to_string()))?;
        if state.step != self.config.round_steps {
            return Err(missing(format!("its last readable checkpoint is of step {}", state.step)));
        }
        Ok(records)
    }

    // The teacher of a round, and where the round starts.
    fn teacher_and_start(&self, round: usize, out: &Path) -> Result<(Network, Option<LoopStart>), TrainError> {
        std::fs::create_dir_all(out).map_err(|error| TrainError::file("write", out, error))?;
        let before = if round == 0 { None } else { Some(self.records_of(round - 1)?) };
        let teacher = match &before {
            None => self.first_teacher.clone(),
            Some(records) => self.teacher_from(records)?,
        };
        let start = match self.checkpoint(round)? {
            Some(Checkpoint { state, records, .. }) => Some(LoopStart::from_checkpoint(&state, records)),
            None => before.map(|records| self.start_of_round(records)),
        };
        Ok((teacher, start))
    }

    fn run_round(&self, round: usize) -> Result<FitResult, TrainError> {
        let (args, config) = (self.args, &self.config);
        let (out, world) = (self.folder(round), &args.world);
        let (teacher, start) = match world.is_first() {
            true => self.teacher_and_start(round, &out)?,
            false => (self.first_teacher.clone(), None),
        };
        let teacher = if round == 0 { teacher } else { weights_of_first(world, teacher)? };
        let first_step = start.as_ref().map_or(0, |start| start.counters.step);
        let first_step = world.broadcast("the start of the round", first_step).map_err(TrainError::Ranks)?;
        let (teacher_steps, student_steps) = self.schedule[round];
        let n_rounds = self.schedule.len();
        (args.observe)(&TrainEvent::Round { round: round + 1, n_rounds, teacher_steps, student_steps });
        (args.observe)(&TrainEvent::Started {
            step: first_step,
            parameters: self.first_teacher.n_parameters(),
            rows: self.train_rows.len(),
            world_size: world.size(),
        });
        let teacher = Teacher {
            network: teacher,
            mask_index: self.mask_index(),
            never_drawn: self.never_drawn(),
            dt: 1.0 / teacher_steps as f64,
            n_steps: config.steps_at_once,
            temperature: config.temperature,
            chunk: CHUNK,
        };
        let files = self.files.clone().sampled(student_steps, config.temperature, self.order);
        let loss = DistillLoss { teacher, divergence: config.divergence, targets: config.targets };
        let student = TrainModel::new(self.first_teacher.clone(), self.mask_index())
            .with_options(config.run.step_options())
            .with_distillation(Arc::new(loss));
        let train = DistillLoader::new(self.train_rows.clone(), config.clone(), round, first_step, self.device.clone())
            .of_model(&self.model_config)
            .of_share(world.share());
        let average_continues = config.teacher_weights == TeacherWeights::Raw;
        let training = Training {
            model: student.train(),
            settings: LoopSettings {
                ema_updates: if average_continues { round * config.round_steps } else { 0 },
                ..LoopSettings::new(config.round_steps, &config.run)
            },
            optim: &config.run.optim,
            schedule_steps: config.schedule_steps(),
            out: &out,
            device: &self.device,
            identity: self.identity(round),
            files: Some(files.clone()),
            start,
            interrupter: args.interrupter.clone(),
            renderer: None,
            observe: args.observe.clone(),
            world: world.clone(),
        };
        let end = training.launch(Arc::new(train), Arc::new(self.validation_loader()))?;
        write_results(world, &*args.observe, &out, &files, end, config.round_steps)
    }

    fn validation_loader(&self) -> ValidationLoader {
        let objective = match self.model_config {
            ModelConfig::Partition(_) => Objective::Partition,
            ModelConfig::MaskGit(_) => Objective::Maskgit,
            _ => Objective::Masked,
        };
        let mask = self.mask_index() as u32;
        ValidationLoader::new(self.validation_rows.clone(), objective, &self.config.run, mask, self.plain.clone())
            .of_images(self.model_config.image().is_some())
            .with_sets(self.model_config.sets())
    }

    // The mask, and BOS where rows are codes.
    fn never_drawn(&self) -> Vec<usize> {
        let backbone = self.model_config.backbone();
        let bos = (backbone.image.is_some() && backbone.bos_index < backbone.vocab_size).then_some(backbone.bos_index);
        std::iter::once(backbone.mask_index).chain(bos).collect()
    }

    // The student of the round before, which teaches this one.
    fn teacher_from(&self, records: &CheckpointRecords) -> Result<Network, TrainError> {
        let model = TrainModel::new(Network::new(&self.model_config, &self.plain), self.mask_index());
        let model = model.load_record(records.model.clone()).valid();
        let average: Option<StoredAverage> = records.average.clone();
        Ok(match (self.config.teacher_weights, average) {
            (TeacherWeights::Ema, Some(average)) => average.apply(model)?.network,
            _ => model.network,
        })
    }

    // A round starts with the student of the round before.
    fn start_of_round(&self, before: CheckpointRecords) -> LoopStart {
        LoopStart {
            counters: Counters::default(),
            model: before.model,
            average: before.average.filter(|_| self.config.teacher_weights == TeacherWeights::Raw),
            optimiser: (!self.config.restart_optimiser).then_some((before.optim, before.scheduler)),
        }
    }
}

// The model card.
fn card_of(config: &DistillConfig, data: &DataFolder, inherited: CardWords) -> ModelCard {
    let mut shown = config.clone();
    let section = std::mem::take(&mut shown.run.card);
    let recipe = Recipe {
        command: "pgm-train distill --config distill.toml --teacher MODEL --data DATA --out OUT".to_string(),
        file: shown.to_file().map(|toml| ("distill.toml", toml)),
    };
    ModelCard { section, inherited, data: Some(data.manifest().clone()), recipe }
}

fn check_teacher(folder: &Path, model: &ModelConfig, data: &DataFolder) -> Result<(), TrainError> {
    let refuse =
        |problem: String| Err(TrainError::Config { origin: format!("--teacher {}", folder.display()), problem });
    if matches!(model, ModelConfig::Autoregressive(_)) {
        return refuse("is autoregressive; distillation needs a partition or a masked model".to_string());
    }
    let (model_length, data_length) = (model.backbone().length, data.manifest().length);
    if model.image().is_none() && data.image().is_none() && model_length != data_length {
        return refuse(format!("has {model_length} tokens in a row, the data has {data_length}; prepare such rows"));
    }
    check_same_data(folder, "--teacher", model, data)
}
