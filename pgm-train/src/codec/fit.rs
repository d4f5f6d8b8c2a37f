//! A whole training of a codec.

use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use burn::train::Interrupter;
use pgm_data::{DataFolder, PixelRows, Split};
use pgm_model::codec::{Autoencoder, Codec, CodecConfig, CodecNetwork};
use pgm_model::model_folder::WEIGHTS_FILE;

use super::loader::{PictureLoader, pictures_of, shape_of};
use super::model::{CodecModel, read_pixels};
use super::pictures::{bytes_of_pixels, write_pairs};
use super::validation::CodecLine;
use crate::TrainError;
use crate::config::{CodecTrainConfig, ConfigFile};
use crate::run::{
    Checkpoint, DataIdentity, LoopSettings, LoopStart, ModelCard, Recipe, RunIdentity, RunLock, StoredWeights,
    TrainEvent, Training, checkpoint, codec_card, draw_curve, draw_parameters, edited_notice, newest_checkpoint,
    start_again, write_card,
};
use crate::world::World;

/// Name of the picture of originals above their reconstructions in a run's folder.
pub const RECONSTRUCTIONS_FILE: &str = "reconstructions.png";
/// Name of the codec in a run's folder.
const CODEC_FOLDER: &str = "codec";
/// Pictures in [`RECONSTRUCTIONS_FILE`].
const N_SHOWN: usize = 32;

/// The arguments of [`fit_codec`].
pub struct FitCodec<'a> {
    /// The configuration.
    pub config: &'a CodecTrainConfig,
    /// A data folder of pixels.
    pub data: &'a Path,
    /// The folder of the run.
    pub out: &'a Path,
    /// Whether to resume from the newest checkpoint in `out`; without a checkpoint the run starts at step 0.
    pub resume: bool,
    /// Where to train.
    pub device: &'a Device,
    /// Stops the run after the current step, which is then saved.
    pub interrupter: Interrupter,
    /// Is called with each event. The tokens of a training line are pictures.
    pub observe: Arc<dyn Fn(&TrainEvent<CodecLine>) + Send + Sync>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct FitCodecResult {
    /// Steps done in all.
    pub step: usize,
    /// Whether that is all of them; the codec's folder is written only then.
    pub complete: bool,
    /// The last validation of this part of the run.
    pub validation: Option<CodecLine>,
}

/// Trains a codec, and writes `checkpoints/`, `metrics.jsonl`, `loss.svg`, `reconstructions.png` and `codec/` into `out`.
///
/// # Errors
/// What is wrong with the configuration, the data, the checkpoints or the disk; [`TrainError::NotFinite`] when the
/// loss is no longer a number. Earlier checkpoints stay.
pub fn fit_codec(args: FitCodec) -> Result<FitCodecResult, TrainError> {
    let config = args.config;
    config.warnings().into_iter().for_each(|warning| (args.observe)(&TrainEvent::Notice(warning)));
    let data = DataFolder::open(args.data)?;
    let train_rows = Arc::new(data.pixels(Split::Train)?);
    let validation_rows = Arc::new(data.pixels(Split::Validation)?);
    let sizes = config.autoencoder(shape_of(&train_rows))?;
    if !args.resume && (checkpoint::started(args.out) || args.out.join(CODEC_FOLDER).exists()) {
        return Err(TrainError::Exists { path: args.out.to_path_buf() });
    }
    let identity = RunIdentity {
        settings: serde_json::to_value(config).expect("a configuration always serialises"),
        data: DataIdentity::new(&data)?,
    };
    let observe = args.observe.clone();
    let notice = move |event: &TrainEvent| {
        if let TrainEvent::Notice(text) = event {
            observe(&TrainEvent::Notice(text.clone()));
        }
    };
    let _lock = RunLock::acquire(args.out, &notice)?;
    let plain = args.device.clone().without_autodiff();
    let start = if args.resume { resumed(&args, &plain, &identity, &notice)? } else { None };
    let device = plain.clone().autodiff();
    let first_step = start.as_ref().map_or(0, |start| start.counters.step);
    plain.seed(config.seed);
    let network = Autoencoder::new(&sizes, &plain);
    draw_parameters(&network);
    (args.observe)(&TrainEvent::Started {
        step: first_step,
        parameters: network.n_parameters(),
        rows: train_rows.len(),
        world_size: 1,
    });
    let [rows, columns] = sizes.grid();
    let model = CodecModel::new(network, config.loss, [rows * columns, sizes.quantizer.n_codes()]).train();
    let batch = config.batch / config.accumulate;
    let steps = (config.seed, first_step..config.steps);
    let train = PictureLoader::training(train_rows, steps, [batch, config.accumulate], &device);
    let validation = PictureLoader::validation(validation_rows.clone(), config.validate_rows, batch, &plain);
    let training = Training {
        model,
        settings: LoopSettings {
            steps: config.steps,
            accumulate: config.accumulate,
            log_every: config.log_every,
            validate_every: config.validate_every,
            checkpoint_every: config.checkpoint_every,
            checkpoint_keep: config.checkpoint_keep,
            clip: config.optim.clip,
            ema: config.optim.ema,
            ema_updates: 0,
            keeps_best: false,
            patience: 0,
        },
        optim: &config.optim,
        schedule_steps: config.steps,
        out: args.out,
        device: &device,
        identity,
        files: None,
        start,
        interrupter: args.interrupter,
        renderer: None,
        observe: args.observe,
        world: World::alone(),
    };
    let end = training.launch(Arc::new(train), Arc::new(validation))?;
    draw_curve::<CodecLine>(args.out)?;
    show_reconstructions(args.out, &end.average.network, &validation_rows, &plain)?;
    let complete = end.step == config.steps;
    if complete {
        let (folder, n_parameters) = (args.out.join(CODEC_FOLDER), end.average.network.n_parameters());
        let network = CodecNetwork::Autoencoder(end.average.network);
        let codec = Codec::new(CodecConfig::Autoencoder(sizes.clone()), network)?;
        codec.save(&folder)?;
        let weights = folder.join(WEIGHTS_FILE);
        let stored =
            StoredWeights::read(n_parameters, &weights).map_err(|error| TrainError::file("read", weights, error))?;
        let card = codec_card(&card_of(config, &data), &sizes, &end.training, (&stored, codec.hash()));
        write_card(&folder, &card)?.iter().for_each(|path| notice(&TrainEvent::Notice(edited_notice(path))));
    }
    Ok(FitCodecResult { step: end.step, complete, validation: end.validation })
}

// The codec's card.
fn card_of(config: &CodecTrainConfig, data: &DataFolder) -> ModelCard {
    let mut shown = config.clone();
    let section = std::mem::take(&mut shown.card);
    let recipe = Recipe {
        command: "pgm-train codec --config codec.toml --data PIXELS --out RUN".to_string(),
        file: shown.to_file().map(|toml| ("codec.toml", toml)),
    };
    ModelCard { section, data: Some(data.manifest().clone()), recipe, ..ModelCard::default() }
}

// The newest checkpoint, when it is one of this run.
fn resumed(
    args: &FitCodec,
    device: &Device,
    identity: &RunIdentity,
    notice: &dyn Fn(&TrainEvent),
) -> Result<Option<LoopStart>, TrainError> {
    let Some(Checkpoint { state, records, .. }) = newest_checkpoint(args.out, device, notice)? else {
        return start_again(&args.out.join(CODEC_FOLDER), notice).map(|()| None);
    };
    identity.check(args.out, &state, &args.config.free_keys())?;
    if state.step > args.config.steps {
        let (before, now) = (format!("{} done", state.step), args.config.steps.to_string());
        let advice = "resume with at least the steps that are done".to_string();
        return Err(TrainError::Changed { path: args.out.into(), key: "steps".to_string(), before, now, advice });
    }
    Ok(Some(LoopStart::from_checkpoint(&state, records)))
}

// The first held-out pictures above what is left of them.
fn show_reconstructions(
    out: &Path,
    network: &Autoencoder,
    rows: &PixelRows,
    device: &Device,
) -> Result<(), TrainError> {
    let shape = shape_of(rows);
    let indices: Vec<usize> = (0..rows.len().min(N_SHOWN)).collect();
    let pixels = pictures_of(rows, &indices, shape, device).map_err(|error| TrainError::Learner(error.to_string()))?;
    let decoded = read_pixels(network.decode(network.encode(pixels)))?;
    let pair = |(&index, decoded): (&usize, &[f32])| -> Result<[Vec<u8>; 2], TrainError> {
        Ok([rows.pixels(index)?, bytes_of_pixels(decoded, shape.channels)])
    };
    let pairs: Vec<[Vec<u8>; 2]> =
        indices.iter().zip(decoded.chunks(shape.len())).map(pair).collect::<Result<_, _>>()?;
    write_pairs(&out.join(RECONSTRUCTIONS_FILE), &pairs, shape)
}
