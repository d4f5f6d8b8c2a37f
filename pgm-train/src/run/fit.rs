//! A whole training run.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use burn::train::Interrupter;
use burn::train::renderer::MetricsRenderer;
use pgm_data::{DataFolder, Split};
use pgm_model::{ModelConfig, Network, model_folder};

use super::event::TrainEvent;
use super::history::ValidationLine;
use super::identity::DataIdentity;
use super::launch::Training;
use super::resume::{LoopStart, RunIdentity, newest_checkpoint};
use super::train_loop::{LoopEnd, LoopSettings};
use super::train_model::TrainModel;
use super::{checkpoint, plot};
use crate::TrainError;
use crate::batches::{TrainLoader, ValidationLoader};
use crate::config::TrainConfig;
use crate::special_tokens::{TOKENIZER_CONFIG_FILE, TokenizerFiles};

/// The arguments of [`fit()`].
pub struct Fit<'a> {
    /// The configuration.
    pub config: &'a TrainConfig,
    /// The prepared data folder.
    pub data: &'a Path,
    /// The folder of the run.
    pub out: &'a Path,
    /// Whether to resume from the newest checkpoint in `out`; without a checkpoint the run starts at step 0.
    pub resume: bool,
    /// Where to train.
    pub device: &'a Device,
    /// Stops the run after the current step, which is then saved.
    pub interrupter: Interrupter,
    /// The dashboard; nothing is shown without one.
    pub renderer: Option<Box<dyn MetricsRenderer>>,
    /// Is called with each event.
    pub observe: Arc<dyn Fn(&TrainEvent) + Send + Sync>,
}

/// Sampling steps of new models.
const TEXT_STEPS: usize = 128;
const IMAGE_STEPS: usize = 32;

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
/// loss is no longer a number. Earlier checkpoints stay.
pub fn fit(args: Fit) -> Result<FitResult, TrainError> {
    let config = Arc::new(args.config.clone());
    config.warnings().into_iter().for_each(|warning| (args.observe)(&TrainEvent::Notice(warning)));
    let data = DataFolder::open(args.data)?;
    let model_config = config.model_config(data.manifest())?;
    // Pictures have none.
    let tokenizer = data.image().is_none().then(|| TokenizerFiles::of(&data, args.data)).transpose()?;
    let of_images = model_config.image().is_some();
    if !args.resume && (!checkpoint::list(args.out).is_empty() || args.out.join("model").exists()) {
        return Err(TrainError::Exists { path: args.out.to_path_buf() });
    }
    let identity = RunIdentity {
        settings: serde_json::to_value(&*config).expect("a configuration always serialises"),
        data: DataIdentity::new(&data)?,
    };
    let start = if args.resume { resumed(&args, &identity)? } else { None };
    let train_rows = Arc::new(data.rows(Split::Train)?);
    let validation_rows = Arc::new(data.rows(Split::Validation)?);
    std::fs::create_dir_all(args.out).map_err(|error| TrainError::file("write", args.out, error))?;

    let options = config.run.step_options();
    let plain = args.device.clone().without_autodiff();
    let device = options.training_device(&plain)?;
    let first_step = start.as_ref().map_or(0, |start| start.counters.step);
    let model = initialised(&model_config, config.run.seed, &plain).with_options(options).train();
    (args.observe)(&TrainEvent::Started {
        step: first_step,
        parameters: model.network.n_parameters(),
        rows: train_rows.len(),
    });
    let mask = model_config.backbone().mask_index as u32;
    let train = TrainLoader::new(train_rows, config.clone(), mask, device.clone(), first_step).of_images(of_images);
    let validation =
        ValidationLoader::new(validation_rows, config.objective, &config.run, mask, plain).of_images(of_images);
    let training = Training {
        model,
        settings: LoopSettings::new(config.steps, &config.run),
        optim: &config.run.optim,
        schedule_steps: config.steps,
        out: args.out,
        device: &device,
        identity,
        start,
        interrupter: args.interrupter,
        renderer: args.renderer,
        observe: args.observe,
    };
    let end = training.launch(Arc::new(train), Arc::new(validation))?;
    write_results(args.out, &model_config, tokenizer.as_ref(), end, config.steps)
}

// The newest checkpoint, when it is one of this run.
fn resumed(args: &Fit, identity: &RunIdentity) -> Result<Option<LoopStart>, TrainError> {
    let Some((state, records)) = newest_checkpoint(args.out, &*args.observe)? else {
        (args.observe)(&TrainEvent::Notice("there is no checkpoint yet; starting from step 0".to_string()));
        return Ok(None);
    };
    let free: Vec<String> = args.config.free_keys().into_iter().map(str::to_string).collect();
    identity.check(args.out, &state, &free)?;
    if state.step > args.config.steps {
        let (before, now) = (format!("{} done", state.step), args.config.steps.to_string());
        return Err(TrainError::Changed { path: args.out.into(), key: "steps".to_string(), before, now });
    }
    Ok(Some(LoopStart::from_checkpoint(&state, records)))
}

/// Draws the learning curve and, when all steps are done, writes the model folder.
pub(crate) fn write_results(
    out: &Path,
    config: &ModelConfig,
    tokenizer: Option<&TokenizerFiles>,
    end: LoopEnd,
    steps: usize,
) -> Result<FitResult, TrainError> {
    let LoopEnd { step, average, validation } = end;
    plot::draw::<ValidationLine>(out)?;
    let complete = step == steps;
    if complete {
        let folder = out.join("model");
        if let Some(tokenizer) = tokenizer {
            model_folder::write_file(&folder_file(&folder, model_folder::TOKENIZER_FILE)?, &tokenizer.json)?;
            model_folder::write_file(&folder.join(TOKENIZER_CONFIG_FILE), &tokenizer.config)?;
        }
        let steps = if config.image().is_some() { IMAGE_STEPS } else { TEXT_STEPS };
        let defaults = serde_json::json!({ "steps": steps, "temperature": 1.0, "top_k": 0, "top_p": 1.0 });
        let json = serde_json::to_vec_pretty(&defaults).expect("JSON values always serialise");
        model_folder::write_file(&folder_file(&folder, model_folder::GENERATION_FILE)?, &json)?;
        // The configuration is written last: a folder that has it is complete.
        model_folder::save(&folder, config, &average.network)?;
    }
    Ok(FitResult { step, complete, validation })
}

fn folder_file(folder: &Path, name: &str) -> Result<PathBuf, TrainError> {
    std::fs::create_dir_all(folder).map_err(|error| TrainError::file("write", folder, error))?;
    Ok(folder.join(name))
}

/// A network whose parameters are drawn at once, in a fixed order, from `seed`.
fn initialised(config: &ModelConfig, seed: u64, device: &Device) -> TrainModel {
    device.seed(seed);
    let network = Network::new(config, device);
    draw_parameters(&network);
    TrainModel::new(network, config.backbone().mask_index)
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
