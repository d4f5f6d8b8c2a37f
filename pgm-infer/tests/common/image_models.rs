//! Tiny models of pictures with random weights.

use std::sync::Arc;

use burn::tensor::Device;
use pgm_infer::picture::PictureCodec;
use pgm_infer::{GenerationConfig, ImageModel, InferError, Picture};
use pgm_model::{BackboneConfig, ImageConfig, ModelConfig, Network, PartitionConfig, Projection, Queries};

/// Rows of cells.
pub const ROWS: usize = 6;
/// Columns of cells.
pub const COLUMNS: usize = 5;
/// Tokens of a cell.
pub const LEVELS: usize = 4;

/// The configuration of a model with the classes cat, dog and owl.
pub fn config(registers: usize) -> ModelConfig {
    let class_names = ["cat", "dog", "owl"].map(String::from).to_vec();
    config_of(ImageConfig { registers, class_names, ..ImageConfig::new(3, [ROWS, COLUMNS]) })
}

/// The configuration of a model with these classes and cells.
pub fn config_of(image: ImageConfig) -> ModelConfig {
    ModelConfig::Partition(PartitionConfig {
        backbone: BackboneConfig::for_codes(LEVELS, 32, 2, image),
        encoder_blocks: 1,
        decoder_blocks: 1,
        queries: Queries::LearnFreqs,
        projection: Projection::Linear,
        sets: Default::default(),
    })
}

/// Its network.
pub fn network(config: &ModelConfig) -> Network {
    Network::new(config, &Device::flex()).with_noise(0.6, 3)
}

/// A model of these parts; without a codec its tokens are grey levels.
pub fn model_of(config: ModelConfig, codec: Option<Arc<dyn PictureCodec>>) -> ImageModel {
    let network = network(&config);
    ImageModel::new(config, network, GenerationConfig::default(), codec, &Device::flex()).unwrap()
}

/// The model with the classes cat, dog and owl.
pub fn model(registers: usize, codec: Option<Arc<dyn PictureCodec>>) -> ImageModel {
    model_of(config(registers), codec)
}

/// Codes are the mean of 2 x 2 pixels; each code's block is one value.
#[derive(Debug)]
pub struct Blocks;

impl PictureCodec for Blocks {
    fn shape(&self) -> (usize, usize, usize) {
        (2 * COLUMNS, 2 * ROWS, 1)
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn decode(&self, rows: &[&[u32]]) -> Result<Vec<Picture>, InferError> {
        let value = |row: &[u32], x: usize, y: usize| (row[y / 2 * COLUMNS + x / 2] * 80) as u8;
        let picture = |row: &&[u32]| {
            let places = (0..2 * ROWS).flat_map(|y| (0..2 * COLUMNS).map(move |x| (x, y)));
            Picture::new(2 * COLUMNS, 2 * ROWS, 1, places.map(|(x, y)| value(row, x, y)).collect())
        };
        Ok(rows.iter().map(picture).collect())
    }

    fn encode(&self, pictures: &[Picture]) -> Result<Vec<Vec<u32>>, InferError> {
        let code = |picture: &Picture, cell: usize| {
            let (x, y) = (cell % COLUMNS * 2, cell / COLUMNS * 2);
            let sum: u32 = [(0, 0), (1, 0), (0, 1), (1, 1)]
                .map(|(dx, dy)| u32::from(picture.pixel(x + dx, y + dy)[0]))
                .iter()
                .sum();
            (sum / 4 / 80).min(LEVELS as u32 - 1)
        };
        Ok(pictures.iter().map(|picture| (0..ROWS * COLUMNS).map(|cell| code(picture, cell)).collect()).collect())
    }
}

/// A picture with another value at almost every place.
pub fn striped(width: usize, height: usize) -> Picture {
    let value = |index: usize| (index % width * 31 + index / width * 17) as u8;
    Picture::new(width, height, 1, (0..width * height).map(value).collect())
}
