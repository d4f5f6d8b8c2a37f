//! A model folder that draws pictures: the network, its configuration and its codec.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use pgm_model::model_folder::{self, GENERATION_FILE};
use pgm_model::{ImageConfig, ModelConfig, Network, WeightDtype};

use super::codec::PictureCodec;
use super::codec_folder::CodecFolder;
use super::levels::PixelLevels;
use super::pixels::Picture;
use crate::InferError;
use crate::denoise::{NetworkHandle, SamplingPath};
use crate::sample::{Denoiser, SampleOutput, SampleRequest, SampleSettings, SampledRow, StepView, TokenGrid};
use crate::text::GenerationConfig;

/// Classes that an error lists by name, at most.
const MOST_NAMES: usize = 20;

/// A network of image codes with the codec that makes pictures of them. Clones share both.
#[derive(Clone, Debug)]
pub struct ImageModel {
    config: ModelConfig,
    image: ImageConfig,
    network: Network,
    weights: WeightDtype,
    n_parameters: usize,
    generation: GenerationConfig,
    codec: Arc<dyn PictureCodec>,
    device: Device,
}

impl ImageModel {
    /// Opens a model folder. Without a `codec` it is the one [within](CodecFolder::within) the folder; a model whose tokens are
    /// pixels needs none. Nothing is recorded for gradients, also on a device with autodiff.
    ///
    /// # Errors
    /// Says which file cannot be used, that the model writes text, or that its codec is missing.
    pub fn load(folder: &Path, codec: Option<Arc<dyn PictureCodec>>, device: &Device) -> Result<Self, InferError> {
        let device = &device.clone().without_autodiff();
        let (config, network) = model_folder::load(folder, device)?;
        let generation = GenerationConfig::read(&folder.join(GENERATION_FILE))?;
        let codec = match (codec, CodecFolder::within(folder)) {
            (None, Some(own)) => {
                Some(Arc::new(CodecFolder::open(&own, device)?.for_model(&config)?) as Arc<dyn PictureCodec>)
            }
            (codec, _) => codec,
        };
        Self::new(config, network, generation, codec, device)
    }

    /// Puts the parts together.
    ///
    /// # Errors
    /// [`InferError::Request`] when the model writes text, or when its codec is missing or another one.
    pub fn new(
        config: ModelConfig,
        network: Network,
        generation: GenerationConfig,
        codec: Option<Arc<dyn PictureCodec>>,
        device: &Device,
    ) -> Result<Self, InferError> {
        let Some(image) = config.image().cloned() else {
            return Err(InferError::Request("this model writes text; a model of pictures is needed".into()));
        };
        let codec: Arc<dyn PictureCodec> = match (codec, PixelLevels::of(&config)) {
            (Some(codec), _) => codec,
            (None, Some(levels)) => Arc::new(levels),
            (None, None) => {
                let n = config.backbone().mask_index;
                let message = format!("the model's tokens are {n} codes of a codec; name its folder with --codec");
                return Err(InferError::Request(message));
            }
        };
        let (n_parameters, network) = (network.n_parameters(), network.folded());
        let weights = WeightDtype::F32;
        Ok(Self { config, image, network, weights, n_parameters, generation, codec, device: device.clone() })
    }

    /// The model with its weights in another dtype, see [`Network::with_weight_dtype`].
    ///
    /// # Errors
    /// [`InferError::Model`] when the device or the model cannot do it.
    pub fn with_weight_dtype(self, weights: WeightDtype) -> Result<Self, InferError> {
        Ok(Self { network: self.network.with_weight_dtype(weights)?, weights, ..self })
    }

    /// The model and its codec on another device of the same kind; on its own device a clone.
    pub fn on_device(&self, device: &Device) -> Self {
        let codec = self.codec.on_device(device).unwrap_or_else(|| Arc::clone(&self.codec));
        Self { network: self.network.clone().to_device(device), codec, device: device.clone(), ..self.clone() }
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Classes and grid.
    pub fn image(&self) -> &ImageConfig {
        &self.image
    }

    /// The dtype of the matrices.
    pub fn weights(&self) -> WeightDtype {
        self.weights
    }

    /// Sampler defaults of the folder.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// Trainable parameters of the stored network.
    pub fn n_parameters(&self) -> usize {
        self.n_parameters
    }

    /// What makes pictures of tokens.
    pub fn codec(&self) -> &dyn PictureCodec {
        self.codec.as_ref()
    }

    /// Where the cells stand in a row. BOS, where there is one, stands before them.
    pub fn grid(&self) -> TokenGrid {
        let [rows, columns] = self.image.grid;
        let start = self.config.backbone().length - self.image.n_cells();
        TokenGrid { start, rows, columns, channels: self.image.channels }
    }

    /// The cell in which a pixel of the model's pictures lies, counted in rows.
    pub fn cell_at(&self, x: usize, y: usize) -> usize {
        let (grid, (width, height, _)) = (self.grid(), self.codec.shape());
        y * grid.rows / height * grid.columns + x * grid.columns / width
    }

    /// The class of that name or number.
    ///
    /// # Errors
    /// [`InferError::Request`] that says which classes there are.
    pub fn class(&self, name: &str) -> Result<usize, InferError> {
        self.image.class_of(name).ok_or_else(|| {
            let (n, names) = (self.image.n_classes, &self.image.class_names);
            let known = match names.len() {
                _ if n == 0 => "the model has no classes".to_string(),
                0 => format!("the model has {n} classes without names, 0 to {}", n - 1),
                n if n <= MOST_NAMES => format!("the classes are {}", names.join(", ")),
                n => format!("the model has {n} classes, the first are {}", names[..MOST_NAMES].join(", ")),
            };
            InferError::Request(format!("class {name:?} does not exist; {known}"))
        })
    }

    /// A picture to draw from nothing.
    pub fn request(&self, class: Option<usize>, seed: u64) -> SampleRequest {
        self.request_around(class, seed, std::iter::empty())
    }

    /// A picture to draw around given tokens: the index of each in the grid, and the token.
    pub fn request_around(
        &self,
        class: Option<usize>,
        seed: u64,
        given: impl Iterator<Item = (usize, u32)>,
    ) -> SampleRequest {
        let (grid, backbone) = (self.grid(), self.config.backbone());
        let bos = (0..grid.start).map(|position| (position, backbone.bos_index as u32));
        let given = bos.chain(given.map(|(index, token)| (grid.start + index, token))).collect();
        SampleRequest { length: backbone.length, given, seed, class, grid: Some(grid), ..SampleRequest::default() }
    }

    /// Samples requests together; see [`sample`](crate::sample::sample).
    ///
    /// # Errors
    /// As [`sample`](crate::sample::sample).
    pub fn generate(
        &self,
        requests: &[SampleRequest],
        settings: &SampleSettings,
        path: SamplingPath,
        observe: &mut dyn FnMut(&StepView) -> ControlFlow<()>,
    ) -> Result<SampleOutput, InferError> {
        self.handle().generate(requests, settings, path, observe)
    }

    /// The network's denoiser, for a custom loop around [`advance`](crate::sample::advance).
    pub fn denoiser(&self, path: SamplingPath) -> Box<dyn Denoiser + '_> {
        self.handle().denoiser(path)
    }

    /// The tokens of a row's cells, in the order of the grid.
    pub fn cells<'a>(&self, row: &'a SampledRow) -> &'a [u32] {
        let grid = self.grid();
        &row.tokens[grid.start..][..grid.n_tokens()]
    }

    /// The pictures of complete rows.
    ///
    /// # Errors
    /// As [`PictureCodec::decode`].
    pub fn pictures(&self, rows: &[&SampledRow]) -> Result<Vec<Picture>, InferError> {
        self.codec.decode(&rows.iter().map(|row| self.cells(row)).collect::<Vec<_>>())
    }

    fn handle(&self) -> NetworkHandle<'_> {
        NetworkHandle { network: &self.network, config: &self.config, device: &self.device }
    }
}
