//! A model folder under evaluation.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use pgm_data::{DataFolder, ImageInfo};
use pgm_infer::TextModel;
use pgm_model::model_folder::{TOKENIZER_FILE, WEIGHTS_FILE, resolve};
use pgm_model::{ImageConfig, ModelConfig, Network, WeightDtype};
use serde_json::{Value, json};

use crate::special_tokens::{first_difference, prepare_flag, special_of_data, special_of_model};
use crate::{TrainError, files};

/// A model folder under evaluation: the model with its tokenizer, and the checksum of its weights.
#[derive(Debug)]
pub struct EvalModel {
    folder: PathBuf,
    text_model: TextModel,
    device: Device,
    crc32: u32,
    weights: WeightDtype,
}

impl EvalModel {
    /// Opens a model folder, or one of a training run; see [`resolve`].
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, TrainError> {
        let folder = &resolve(folder)?;
        let device = device.clone().without_autodiff();
        let text_model = TextModel::load(folder, &device)?;
        let weights = folder.join(WEIGHTS_FILE);
        let (_, crc32) = files::fingerprint(&weights).map_err(|error| TrainError::file("read", &weights, error))?;
        Ok(Self { folder: folder.to_path_buf(), text_model, device, crc32, weights: WeightDtype::F32 })
    }

    /// The model with its weights in another dtype. The dtype becomes part of its [`identity`](Self::identity).
    ///
    /// # Errors
    /// When the device or the model does not support the dtype.
    pub fn with_weight_dtype(self, weights: WeightDtype) -> Result<Self, TrainError> {
        Ok(Self { text_model: self.text_model.with_weight_dtype(weights)?, weights, ..self })
    }

    /// The model folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The model with its tokenizer.
    pub fn text_model(&self) -> &TextModel {
        &self.text_model
    }

    /// Identifies the model in results: its kind, the checksum of its weights and their dtype, the sets it was trained with.
    pub fn identity(&self) -> Value {
        let mut identity =
            json!({ "model": kind(self.text_model.config()), "weights_crc32": format!("{:08x}", self.crc32) });
        if self.weights != WeightDtype::F32 {
            identity["weights"] = self.weights.name().into();
        }
        // Bounds and samples depend on them, weights do not.
        let sets = self.text_model.config().sets();
        if !sets.is_one() {
            identity["sets"] = sets.to_string().into();
        }
        identity
    }

    /// Length of the rows it was trained on.
    pub fn length(&self) -> usize {
        self.text_model.config().backbone().length
    }

    /// Checks that `data` was prepared for this model.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming the difference.
    pub fn check_data(&self, data: &DataFolder) -> Result<(), TrainError> {
        check_same_tokens(&self.folder, "--model", self.text_model.config(), data)?;
        let length = data.manifest().length;
        if length > self.length() {
            let problem = format!("has rows of {} tokens, the data of {length}; prepare shorter rows", self.length());
            return Err(TrainError::Config { origin: format!("--model {}", self.folder.display()), problem });
        }
        Ok(())
    }

    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    pub(super) fn network(&self) -> &Network {
        self.text_model.network()
    }

    pub(super) fn mask_index(&self) -> usize {
        self.text_model.config().backbone().mask_index
    }

    pub(super) fn is_autoregressive(&self) -> bool {
        matches!(self.text_model.config(), ModelConfig::Autoregressive(_))
    }

    /// BOS, the text's tokens, EOS.
    pub(super) fn row_of(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        let backbone = self.text_model.config().backbone();
        let mut row = vec![backbone.bos_index as u32];
        row.extend(self.text_model.encode(text)?);
        row.push(backbone.eos_index as u32);
        Ok(row)
    }
}

/// The name of a model's kind, as in `config.json`.
pub fn kind(config: &ModelConfig) -> &'static str {
    match config {
        ModelConfig::Partition(_) => "partition",
        ModelConfig::Masked(_) => "masked",
        ModelConfig::Autoregressive(_) => "autoregressive",
        ModelConfig::MaskGit(_) => "maskgit",
    }
}

/// Checks that a model fits a data folder: the same tokens, or for pictures the same grid, codes and classes. `flag` names the
/// model in the error.
pub(crate) fn check_same_data(
    folder: &Path,
    flag: &str,
    model: &ModelConfig,
    data: &DataFolder,
) -> Result<(), TrainError> {
    let refuse = |problem: String| Err(TrainError::Config { origin: format!("{flag} {}", folder.display()), problem });
    match (model.image(), data.image()) {
        (Some(image), Some(info)) => check_same_images(image, model, info, data).or_else(refuse),
        (Some(_), None) => refuse("is a model of images, but the data is text".to_string()),
        (None, Some(_)) => refuse("is no model of images, but the data is pictures".to_string()),
        (None, None) => check_same_tokens(folder, flag, model, data),
    }
}

// The problem, if model and data differ in grid, codes or classes.
fn check_same_images(
    image: &ImageConfig,
    model: &ModelConfig,
    info: &ImageInfo,
    data: &DataFolder,
) -> Result<(), String> {
    let (n_codes, of_data) = (model.backbone().mask_index, info.n_values());
    let (length, of_row) = (1 + image.n_cells(), data.manifest().length);
    if length != of_row {
        return Err(format!("has {length} tokens in a row, the data has {of_row}; prepare such rows"));
    }
    let (grid, channels) = info.cells(of_row);
    if (grid, channels) != (image.grid, image.channels) {
        let ([rows, columns], [of_rows, of_columns]) = (image.grid, grid);
        return Err(format!(
            "has {rows} x {columns} cells of {} tokens, the data has {of_rows} x {of_columns} of {channels}; prepare such rows",
            image.channels
        ));
    }
    if n_codes != of_data {
        return Err(format!("knows {n_codes} codes, the data has {of_data}; prepare the data with the model's codec"));
    }
    if let (Some(model), Some(data)) = (&image.codec, info.codec.as_ref().and_then(|codec| codec.hash.as_ref()))
        && model != data
    {
        return Err(format!("was trained on codes of the codec {model}, the data has those of {data}"));
    }
    if image.n_classes != info.class_names.len() {
        let (n_classes, of_data) = (image.n_classes, info.class_names.len());
        return Err(format!(
            "has {n_classes} classes, the data has {of_data}; prepare the data with the model's classes"
        ));
    }
    Ok(())
}

/// Checks that a model and a data folder have the same vocabulary, special tokens and tokenizer. `flag` names the model in the error.
pub(crate) fn check_same_tokens(
    folder: &Path,
    flag: &str,
    model: &ModelConfig,
    data: &DataFolder,
) -> Result<(), TrainError> {
    let fail = |problem: String| Err(TrainError::Config { origin: format!("{flag} {}", folder.display()), problem });
    let (backbone, manifest) = (model.backbone(), data.manifest());
    let (model_vocab, data_vocab) = (backbone.vocab_size, manifest.vocab_size);
    if model_vocab != data_vocab {
        return fail(format!(
            "has {model_vocab} tokens in the vocabulary, the data has {data_vocab}; prepare the data for this model"
        ));
    }
    let path = folder.join(TOKENIZER_FILE);
    let tokenizer = std::fs::read(&path).map_err(|error| TrainError::file("read", &path, error))?;
    let (of_model, of_data) = (special_of_model(model, &tokenizer), special_of_data(data));
    if let Some((model, data)) = first_difference(&of_model, &of_data) {
        let role = &model.role;
        let advice = prepare_flag(&of_model);
        return fail(format!("has {model} as its {role} token, the data has {data}; {advice}"));
    }
    if !same_tokenizer(folder, data.tokenizer()?.json())? {
        return fail("has another tokenizer than the data; prepare the data with the model's".to_string());
    }
    Ok(())
}

/// Whether a model folder's `tokenizer.json` equals another one, up to its formatting.
///
/// # Errors
/// [`TrainError::File`] when it cannot be read.
pub fn same_tokenizer(folder: &Path, other: &[u8]) -> Result<bool, TrainError> {
    let path = folder.join(TOKENIZER_FILE);
    let json = std::fs::read(&path).map_err(|error| TrainError::file("read", &path, error))?;
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    Ok(parse(&json) == parse(other))
}
