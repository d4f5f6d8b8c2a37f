//! A whole training run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;
use burn::train::renderer::MetricsRenderer;
use pgm_data::DataFolder;
use pgm_model::model_folder::{self, CONFIG_FILE, MODEL_FOLDER};
use pgm_model::{ModelConfig, Network};
use serde_json::Value;

use super::best::BestValidation;
use super::event::TrainEvent;
use super::history::ValidationLine;
use super::identity::DataIdentity;
use super::init::InitModel;
use super::launch::Training;
use super::lock::RunLock;
use super::loop_settings::LoopSettings;
use super::model_card::{ModelCard, Recipe, shown_path};
use super::model_files::ModelFiles;
use super::resume::{LoopStart, LrPlan, RunIdentity, ScheduleCheck, newest_checkpoint};
use super::start_together::{check_same, rows_of};
use super::teacher::TeacherModel;
use super::train_loop::LoopEnd;
use super::train_model::{TaughtLoss, TrainModel};
use super::{checkpoint, plot, resume};
use crate::TrainError;
use crate::batches::{ObjectiveBatch, TrainLoader, ValidationLoader};
use crate::config::{ConfigFile, TrainConfig};
use crate::special_tokens::TokenizerFiles;
use crate::world::World;

/// The arguments of [`fit()`].
pub struct Fit<'a> {
    /// The configuration.
    pub config: &'a TrainConfig,
    /// The prepared data folder.
    pub data: &'a Path,
    /// The folder of the run.
    pub out: &'a Path,
    /// The model to start from, for fine-tuning; without one the weights are drawn. A resumed run need not name it again.
    pub init: Option<&'a InitModel>,
    /// Whether to resume from the newest checkpoint in `out`; without a checkpoint the run starts at step 0.
    pub resume: bool,
    /// Where to train.
    pub device: &'a Device,
    /// Stops the run after the current step, which is then saved.
    pub interrupter: Interrupter,
    /// The dashboard; nothing is shown without one.
    pub renderer: Option<Box<dyn MetricsRenderer>>,
    /// Is called with each event; of several processes only in rank 0.
    pub observe: Arc<dyn Fn(&TrainEvent) + Send + Sync>,
    /// The processes that train together.
    pub world: World,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct FitResult {
    /// Steps done in all.
    pub step: usize,
    /// Whether the run is at its end: after its last step, or out of patience. The model folder is written only then.
    pub complete: bool,
    /// Whether it ended because validations no longer fell.
    pub stopped_early: bool,
    /// The last validation of this part of the run.
    pub validation: Option<ValidationLine>,
    /// The lowest validation, whose model is `OUT@best`; a distillation has none.
    pub best: Option<BestValidation>,
}

/// Trains, and writes `checkpoints/`, `metrics.jsonl`, `loss.svg` and `model/` into `out`.
///
/// # Errors
/// What is wrong with the configuration, the data, the checkpoints or the disk; [`TrainError::Busy`] when another run is at
/// work in `out`; [`TrainError::Diverged`] when the loss is no longer a number. Earlier checkpoints stay.
pub fn fit(mut args: Fit) -> Result<FitResult, TrainError> {
    let world = args.world.clone();
    if !world.is_first() {
        args.observe = Arc::new(|_: &TrainEvent| ());
        args.renderer = None;
    }
    let config = Arc::new(args.config.clone());
    config.warnings().into_iter().for_each(|warning| (args.observe)(&TrainEvent::Notice(warning)));
    let data = DataFolder::open(args.data)?;
    let model_config = match args.init {
        Some(init) => init.model_config(&config, &data)?,
        None => config.model_config(data.manifest())?,
    };
    // Pictures have none.
    let is_text = data.image().is_none();
    let tokenizer =
        is_text.then(|| TokenizerFiles::of(&data, args.data, args.init.map(InitModel::folder))).transpose()?;
    let mut files = match args.init {
        Some(init) => init.files(model_config, tokenizer)?,
        None => ModelFiles::new(model_config, tokenizer),
    };
    files = files.with_card(card_of(&config, &data));
    let teacher = config.teacher.as_ref().map(|section| TeacherModel::open(section, &data)).transpose()?;
    let mut settings = serde_json::to_value(&*config).expect("a configuration always serialises");
    if let Some(init) = args.init {
        settings["init"] = init.provenance();
    }
    if let Some(teacher) = &teacher {
        settings["teacher"]["weights_crc32"] = teacher.checksum();
    }
    let mut identity = RunIdentity { settings, data: DataIdentity::new(&data)? };
    let options = config.run.step_options();
    let plain = args.device.clone().without_autodiff();
    let device = options.training_device(&plain)?;
    check_same(&world, &config.run, &identity, args.resume)?;
    let [train_rows, validation_rows] = rows_of(&world, &data)?.map(Arc::new);

    let _lock = world.is_first().then(|| RunLock::acquire(args.out, &*args.observe)).transpose()?;
    if world.is_first() && !args.resume && checkpoint::started(args.out) {
        return Err(TrainError::Exists { path: args.out.to_path_buf() });
    }
    let resumes = args.resume && world.is_first();
    let start = if resumes { resumed(&args, &plain, &mut identity, &mut files)? } else { None };
    let first_step = start.as_ref().map_or(0, |start| start.counters.step);
    let first = world.broadcast("the start of training", (first_step, files.config.clone()));
    let first_step;
    (first_step, files.config) = first.map_err(TrainError::Ranks)?;
    let network = match args.init.filter(|_| first_step == 0) {
        Some(init) => {
            let scale = (config.model.embedding_scale != 1.0)
                .then(|| "model.embedding_scale has no effect: with --init no embedding is drawn".to_string());
            let notices = init.notices(&files.config).into_iter().chain(scale);
            notices.for_each(|notice| (args.observe)(&TrainEvent::Notice(notice)));
            init.network(&files.config, &plain)?
        }
        None => drawn(&files.config, &config, &plain),
    };
    let mask = files.config.backbone().mask_index;
    let teacher = teacher.map(|teacher| teacher.loss(&plain)).transpose()?;
    let teacher = teacher.map(|teacher| teacher as Arc<dyn TaughtLoss<ObjectiveBatch>>);
    let model = TrainModel::new(network, mask).with_options(options).with_teacher(teacher).train();
    (args.observe)(&TrainEvent::Started {
        step: first_step,
        parameters: model.network.n_parameters(),
        rows: train_rows.len(),
        world_size: world.size(),
    });
    let mask = files.config.backbone().mask_index as u32;
    let of_images = files.config.image().is_some();
    let train = TrainLoader::new(train_rows, config.clone(), mask, device.clone(), first_step)
        .of_images(of_images)
        .of_share(world.share());
    let validation = ValidationLoader::new(validation_rows, config.objective, &config.run, mask, plain)
        .of_images(of_images)
        .with_sets(config.model.sets);
    let settings =
        LoopSettings { keeps_best: true, patience: config.patience, ..LoopSettings::new(config.steps, &config.run) };
    let training = Training {
        model,
        settings,
        optim: &config.run.optim,
        schedule_steps: config.steps,
        out: args.out,
        device: &device,
        identity,
        files: Some(files.clone()),
        start,
        interrupter: args.interrupter,
        renderer: args.renderer,
        observe: args.observe.clone(),
        world: world.clone(),
    };
    let end = training.launch(Arc::new(train), Arc::new(validation))?;
    write_results(&world, &*args.observe, args.out, &files, end, config.steps)
}

// The model card. Whether there was an --init, the record of the training says.
fn card_of(config: &TrainConfig, data: &DataFolder) -> ModelCard {
    let mut shown = config.clone();
    if let Some(teacher) = &mut shown.teacher {
        teacher.model = shown_path(&teacher.model).into();
    }
    let section = std::mem::take(&mut shown.run.card);
    let recipe = Recipe {
        command: "pgm-train fit --config run.toml --data DATA --out RUN".to_string(),
        file: shown.to_file().map(|toml| ("run.toml", toml)),
    };
    ModelCard { section, data: Some(data.manifest().clone()), recipe, ..ModelCard::default() }
}

// The newest checkpoint, when it is one of this run. The run keeps the architecture and the model that it started from.
fn resumed(
    args: &Fit,
    device: &Device,
    identity: &mut RunIdentity,
    files: &mut ModelFiles,
) -> Result<Option<LoopStart>, TrainError> {
    let Some(found) = newest_checkpoint(args.out, device, &*args.observe)? else {
        return start_again(args).map(|()| None);
    };
    let (state, now) = (&found.state, args.config);
    keep_init(args, identity, &state.config)?;
    let keys = ["steps", "optim.schedule", "optim.floor", "optim.decay_share"].map(str::to_string);
    // The teacher is compared by its weights.
    let free = now.free_keys().into_iter().chain(["teacher.model"]).map(str::to_string);
    let free: Vec<String> = free.chain(keys.clone()).collect();
    identity.check(args.out, state, &free)?;
    if state.step > now.steps {
        let (before, now) = (format!("{} done", state.step), now.steps.to_string());
        let advice = "resume with at least the steps that are done".to_string();
        return Err(TrainError::Changed { path: args.out.into(), key: "steps".to_string(), before, now, advice });
    }
    let plan = |settings: &Value| {
        let config: TrainConfig = serde_json::from_value(settings.clone()).ok()?;
        Some(LrPlan { optim: config.run.optim, steps: config.steps })
    };
    let out = args.out.display();
    let instead = format!(
        "take {out} as the model that it is so far, or start a new run from it with --init {out} and another --out"
    );
    ScheduleCheck { plan: &plan, keys: &keys, done: state.step, instead }.check(
        args.out,
        &state.config,
        &identity.settings,
    )?;
    if found.folder.join(CONFIG_FILE).exists() {
        files.config = model_folder::load_config(&found.folder)?;
    }
    // A run that started from a model keeps its sampler defaults and its tokenizer's settings.
    if !state.config["init"].is_null() {
        files.take_over(&found.folder)?;
    }
    let mut start = LoopStart::from_checkpoint(state, found.records);
    let validates_alike = ["validate_rows", "validate_times", "validate_estimator"]
        .iter()
        .all(|key| state.config[*key] == identity.settings[*key]);
    if !validates_alike && start.counters.best.take().is_some() {
        (args.observe)(&TrainEvent::Notice(
            "validations are computed otherwise than before; the next one is the first to compare with".to_string(),
        ));
    }
    Ok(Some(start))
}

// A resumed run without a checkpoint starts from step 0, with the model that it was to start from.
fn start_again(args: &Fit) -> Result<(), TrainError> {
    let best = model_folder::resolve(&PathBuf::from(format!("{}@best", args.out.display()))).ok();
    let training = best.and_then(|best| std::fs::read(best.join(model_folder::TRAINING_FILE)).ok());
    let training: Value = training.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
    let init = &training["settings"]["init"];
    if args.init.is_none() && !init.is_null() {
        let problem = format!(
            "has no checkpoint yet and starts from the model {}; name it again with --init",
            init["model"].as_str().unwrap_or_default()
        );
        return Err(TrainError::Config { origin: format!("--out {}", args.out.display()), problem });
    }
    resume::start_again(&args.out.join(MODEL_FOLDER), &*args.observe)
}

// Takes over what the checkpoint records of the model that the run started from.
fn keep_init(args: &Fit, identity: &mut RunIdentity, before: &Value) -> Result<(), TrainError> {
    let recorded = &before["init"];
    if let Some(init) = args.init
        && !init.is_recorded(recorded)
    {
        let shown = |init: &Value| match init["model"].as_str() {
            Some(model) => format!("{model} (weights {})", init["weights_crc32"].as_str().unwrap_or_default()),
            None => "not given".to_string(),
        };
        return Err(TrainError::Changed {
            path: args.out.to_path_buf(),
            key: "--init".to_string(),
            before: shown(recorded),
            now: shown(&init.provenance()),
            advice: "resume without --init, which the checkpoint makes needless, or start a new run".to_string(),
        });
    }
    if !recorded.is_null() {
        identity.settings["init"] = recorded.clone();
    }
    Ok(())
}

/// Draws the learning curve and, when the run is at its end, writes the model folder: in rank 0, for which all others wait.
pub(crate) fn write_results(
    world: &World,
    observe: &dyn Fn(&TrainEvent),
    out: &Path,
    files: &ModelFiles,
    end: LoopEnd,
    steps: usize,
) -> Result<FitResult, TrainError> {
    let LoopEnd { step, average, validation, best, stopped_early, training } = end;
    let complete = step == steps || stopped_early;
    if world.is_first() {
        plot::draw::<ValidationLine>(out)?;
        if complete {
            let edited = files.save(&out.join(MODEL_FOLDER), &average.network, &training)?;
            edited.iter().for_each(|path| observe(&TrainEvent::Notice(edited_notice(path))));
        }
    }
    world.barrier("the end of training");
    Ok(FitResult { step, complete, stopped_early, validation, best })
}

/// A sentence about a card that a person has edited.
pub(crate) fn edited_notice(path: &Path) -> String {
    let path = path.display();
    format!("{path} was not written by pgm-train or was edited since, and stays; remove it and resume for a new one")
}

/// A new network whose parameters are drawn at once, in a fixed order, from the seed.
fn drawn(model: &ModelConfig, config: &TrainConfig, device: &Device) -> Network {
    device.seed(config.run.seed);
    let network = Network::new(model, device);
    draw_parameters(&network);
    with_embedding_scale(network, config)
}

fn with_embedding_scale(network: Network, config: &TrainConfig) -> Network {
    match config.model.embedding_scale {
        1.0 => network,
        scale => network.with_scaled_embedding(scale as f32),
    }
}

/// Draws all parameters of a new module now, in a fixed order.
pub(crate) fn draw_parameters(module: &impl Module) {
    struct Draw;
    impl ModuleVisitor for Draw {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let _ = param.val();
        }
    }
    module.visit(&mut Draw);
}

#[cfg(test)]
mod tests {
    use super::*;

    // The weights of a network, one list for each parameter.
    fn values(network: &Network) -> Vec<Vec<f32>> {
        struct Values(Vec<Vec<f32>>);
        impl ModuleVisitor for Values {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.0.push(param.val().into_data().try_into_vec().unwrap());
            }
        }
        let mut values = Values(Vec::new());
        network.visit(&mut values);
        values.0
    }

    #[test]
    fn the_embedding_alone_is_scaled_and_1_is_the_papers_network() {
        const TOML: &str = "objective = \"partition\"\nsteps = 1\nbatch = 1\nseed = 3\n[model]\nhidden = 8\nheads = 2\n\
                            encoder = 1\ndecoder = 1\nlength = 6\n[optim]\n";
        let device = Device::flex();
        let backbone = pgm_model::BackboneConfig { cond_dim: 8, ..pgm_model::BackboneConfig::new(7, 8, 2, 6) };
        let blocks = pgm_model::MaskedConfig { backbone: backbone.clone(), n_blocks: 1 };
        let partition = pgm_model::PartitionConfig {
            backbone: backbone.clone(),
            encoder_blocks: 1,
            decoder_blocks: 1,
            queries: Default::default(),
            projection: Default::default(),
            sets: Default::default(),
        };
        let causal = pgm_model::AutoregressiveConfig { backbone, n_blocks: 1 };
        for model in
            [ModelConfig::Partition(partition), ModelConfig::Masked(blocks), ModelConfig::Autoregressive(causal)]
        {
            // Drawn once: all tests share the device's generator.
            let network = Network::new(&model, &device);
            draw_parameters(&network);
            let weights = |set: &[&str]| {
                let set: Vec<String> = set.iter().map(|set| set.to_string()).collect();
                values(&with_embedding_scale(network.clone(), &TrainConfig::parse(TOML, "test", &set).unwrap()))
            };
            let (plain, scaled) = (weights(&[]), weights(&["model.embedding_scale=4"]));
            assert_eq!(plain, weights(&["model.embedding_scale=1"]));
            let changed: Vec<usize> = (0..plain.len()).filter(|&index| plain[index] != scaled[index]).collect();
            let [embedding] = changed[..] else { panic!("{changed:?} are other weights") };
            assert_eq!(plain[embedding].len(), 7 * 8);
            assert_eq!(scaled[embedding], plain[embedding].iter().map(|value| 4.0 * value).collect::<Vec<f32>>());
        }
    }
}
