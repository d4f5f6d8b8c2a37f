//! Models: where they are read from, and what is open. A model writes text or draws pictures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use pgm_infer::device::DeviceName;
use pgm_infer::engine::{Engine, EngineOptions, ImageEngine};
use pgm_infer::picture::{CodecFolder, PictureCodec, PixelLevels};
use pgm_infer::{GenerationConfig, ImageModel, InferError, TextModel, demo};
use pgm_model::{ModelConfig, model_folder};

use crate::settings::sentence;

/// Tokens of all pictures of a step: more pictures at once are faster, but a step takes longer to cancel.
const BATCH_TOKENS: usize = 1 << 14;
const MOST_BATCH: usize = 64;

/// Where a model is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// The model that is part of the program.
    Bundled,
    /// A model folder.
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The codec that was named for it. Without one, the last codec is tried if the model needs one.
        codec: Option<PathBuf>,
    },
}

impl ModelSource {
    /// A folder without a codec of its own.
    pub fn folder(folder: PathBuf) -> Self {
        Self::Folder { folder, codec: None }
    }

    /// Its name in the window.
    pub fn name(&self) -> String {
        match self {
            Self::Bundled => "Built-in model".to_string(),
            Self::Folder { folder, .. } => match folder.file_name() {
                // Training names every model folder `model`, so the parent's name is shown too.
                Some(name) if name == "model" => {
                    let parent = folder.parent().and_then(Path::file_name);
                    parent.map_or("model".into(), |parent| format!("{}/model", parent.to_string_lossy()))
                }
                Some(name) => name.to_string_lossy().into_owned(),
                None => folder.display().to_string(),
            },
        }
    }
}

/// A model that is ready.
#[derive(Debug)]
pub enum Model {
    /// It writes text, on its engine.
    Text(Engine),
    /// It draws pictures, on its engine.
    Pictures(Arc<ImageEngine>),
}

/// An open model.
#[derive(Debug)]
pub struct OpenModel {
    /// The model.
    pub model: Model,
    /// The name of its device.
    pub device: String,
    /// The codec that it uses.
    pub codec: Option<PathBuf>,
}

impl OpenModel {
    /// The engine of a model of text.
    pub fn engine(&self) -> Option<&Engine> {
        match &self.model {
            Model::Text(engine) => Some(engine),
            Model::Pictures(_) => None,
        }
    }

    /// The engine of a model of pictures.
    pub fn picture_engine(&self) -> Option<&Arc<ImageEngine>> {
        match &self.model {
            Model::Text(_) => None,
            Model::Pictures(engine) => Some(engine),
        }
    }
}

/// Why a model could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenError {
    /// One sentence.
    pub sentence: String,
    /// The model's codec is missing, or it is another one.
    pub wants_codec: bool,
}

impl From<String> for OpenError {
    fn from(sentence: String) -> Self {
        Self { sentence, wants_codec: false }
    }
}

impl From<InferError> for OpenError {
    fn from(error: InferError) -> Self {
        sentence(&error.to_string()).into()
    }
}

/// What is to be opened.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// Where it is read from.
    pub source: ModelSource,
    /// The device's name.
    pub device: String,
    /// The codec that the model before had.
    pub last_codec: Option<PathBuf>,
}

/// Opens a model on a thread of its own. `progress` is called with the share that is read, `opened` at the end.
pub fn open(
    request: OpenRequest,
    progress: impl Fn(f64) + Send + 'static,
    opened: impl FnOnce(Result<Box<OpenModel>, OpenError>) + Send + 'static,
) {
    std::thread::spawn(move || {
        let result = catch_unwind(AssertUnwindSafe(|| request.open(&progress))).unwrap_or_else(|_| {
            let (name, device) = (request.source.name(), &request.device);
            Err(format!("{name} could not be opened: the device {device} failed.").into())
        });
        opened(result.map(Box::new));
    });
}

/// Drops a model. The drop waits for the engine's current step, so it has its own thread.
pub fn close(opened: Box<OpenModel>) {
    std::thread::spawn(move || drop(opened));
}

/// Whether a path is a codec: a folder whose configuration says so, or a published file.
pub fn is_codec(path: &Path) -> bool {
    if path.extension().is_some_and(|extension| extension == "pt") {
        return path.is_file();
    }
    let config = std::fs::read_to_string(path.join("config.json")).unwrap_or_default();
    config.contains("\"codec_type\"")
}

impl OpenRequest {
    fn open(&self, progress: &dyn Fn(f64)) -> Result<OpenModel, OpenError> {
        let name: DeviceName = self.device.parse().map_err(|error: String| sentence(&error))?;
        let (device, name) = name.open().map_err(|error| sentence(&error))?;
        let options = EngineOptions::default();
        let text = |engine| OpenModel { model: Model::Text(engine), device: name.clone(), codec: None };
        let (folder, codec) = match &self.source {
            ModelSource::Bundled => {
                return Ok(text(Engine::from_bytes(&demo::TEXT, &device, &options, progress)?));
            }
            ModelSource::Folder { folder, codec } => (folder, codec),
        };
        if is_codec(folder) {
            return Err(format!("{} is a codec; open the model that draws its codes.", folder.display()).into());
        }
        let folder = &model_folder::resolve(folder).map_err(InferError::from)?;
        let config = model_folder::load_config(folder).map_err(InferError::from)?;
        if config.image().is_none() {
            if codec.is_some() {
                return Err("This model writes text and has no codec; open it without one.".to_string().into());
            }
            let model = TextModel::load_with_progress(folder, &device, progress)?;
            return Ok(text(Engine::new(model, &options)?));
        }
        let own = CodecFolder::within(folder);
        let codec = match (codec.as_ref().or(own.as_ref()), PixelLevels::of(&config)) {
            (Some(codec), _) => Some(codec),
            (None, Some(_)) => None,
            (None, None) => Some(self.last_codec.as_ref().ok_or_else(|| missing_codec(&config))?),
        };
        let opened = codec.map(|path| open_codec(path, &config, &device)).transpose()?;
        let (config, network) =
            model_folder::load_with_progress(folder, &device, progress).map_err(InferError::from)?;
        let generation = GenerationConfig::read(&folder.join(model_folder::GENERATION_FILE))?;
        let max_batch = (BATCH_TOKENS / config.backbone().length).clamp(1, MOST_BATCH);
        let model = ImageModel::new(config, network, generation, opened, &device)?;
        let engine = Arc::new(ImageEngine::new(model, &EngineOptions { max_batch, ..options })?);
        Ok(OpenModel { model: Model::Pictures(engine), device: name, codec: codec.cloned() })
    }
}

fn missing_codec(config: &ModelConfig) -> OpenError {
    let n = config.backbone().mask_index;
    let sentence =
        format!("This model draws {n} codes of a codec, which turns them into pixels; choose the codec's folder.");
    OpenError { sentence, wants_codec: true }
}

fn open_codec(path: &Path, config: &ModelConfig, device: &Device) -> Result<Arc<dyn PictureCodec>, OpenError> {
    let codec = CodecFolder::open(path, device).and_then(|codec| codec.for_model(config));
    match codec {
        Ok(codec) => Ok(Arc::new(codec)),
        Err(error) => {
            // A model of pixels has no codec at all.
            let wants_codec = PixelLevels::of(config).is_none();
            Err(OpenError { sentence: sentence(&error.to_string()), wants_codec })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_folder_is_named_after_its_run_and_a_codec_is_known_by_its_configuration() {
        let name = |folder: &str| ModelSource::folder(folder.into()).name();
        assert_eq!((name("/a/run/model"), name("/a/cats")), ("run/model".to_string(), "cats".to_string()));
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_codec(folder.path()));
        std::fs::write(folder.path().join("config.json"), r#"{"model_type": "partition"}"#).unwrap();
        assert!(!is_codec(folder.path()));
        std::fs::write(folder.path().join("config.json"), r#"{"codec_type": "autoencoder"}"#).unwrap();
        assert!(is_codec(folder.path()) && !is_codec(&folder.path().join("missing.pt")));
    }
}
