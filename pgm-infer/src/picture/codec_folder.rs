//! Codecs from a folder, or from a published file: networks between pixels and codes.
// N pictures, C channels, H x W pixels, h x w codes

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_model::ModelConfig;
use pgm_model::codec::{Codec, CodecConfig};
use pgm_model::model_folder::CONFIG_FILE;

use super::codec::PictureCodec;
use super::pixels::Picture;
use crate::InferError;

/// The folder of a codec in the folder of its model.
const CODEC_FOLDER: &str = "codec";
/// Pixels that are computed at a time: 4 pictures of 256 x 256.
const CHUNK_PIXELS: usize = 4 * 256 * 256;

/// A codec for pictures of one size, or of several.
#[derive(Clone, Debug)]
pub struct CodecFolder {
    codec: Codec,
    origin: String,
    device: Device,
}

impl CodecFolder {
    /// Opens a codec folder, or a `.pt` of LlamaGen.
    ///
    /// # Errors
    /// [`InferError::Model`] that names the file and what is wrong with it; [`InferError::Request`] for a codec whose pictures
    /// are neither grey nor coloured.
    pub fn open(path: &Path, device: &Device) -> Result<Self, InferError> {
        let (codec, origin) = (Codec::open(path, device)?, path.display().to_string());
        let channels = codec.config().pixels()[2];
        if channels != 1 && channels != 3 {
            let message = format!("the codec {origin} has pictures of {channels} channels; 1 or 3 can be shown");
            return Err(InferError::Request(message));
        }
        Ok(Self { codec, origin, device: device.clone() })
    }

    /// The codec that a model folder brings along: its folder `codec`, if there is one.
    pub fn within(model: &Path) -> Option<PathBuf> {
        Some(model.join(CODEC_FOLDER)).filter(|folder| folder.join(CONFIG_FILE).exists())
    }

    /// The hash of the codec, which its codes carry.
    pub fn hash(&self) -> &str {
        self.codec.hash()
    }

    /// Number of codes.
    pub fn n_codes(&self) -> usize {
        self.codec.config().n_codes()
    }

    /// Channels of a picture.
    pub fn channels(&self) -> usize {
        self.codec.config().pixels()[2]
    }

    /// Rows and columns of codes of a picture with so many rows and columns of pixels.
    ///
    /// # Errors
    /// [`InferError::Request`] for a size that the codec does not take.
    pub fn grid(&self, [height, width]: [usize; 2]) -> Result<[usize; 2], InferError> {
        let config = self.codec.config();
        let grid = config.grid_of([height, width]);
        let takes = match config {
            CodecConfig::Vq(config) => format!("which takes multiples of {} pixels", config.downsampling()),
            _ => {
                let [own_height, own_width, _] = config.pixels();
                format!("which takes {own_width} x {own_height}")
            }
        };
        let origin = &self.origin;
        grid.ok_or_else(|| {
            let message = format!("pictures of {width} x {height} pixels do not fit the codec {origin}, {takes}");
            InferError::Request(message)
        })
    }

    /// Refuses codes of another codec: a hash that is another one, or another number of codes. `owner` names what has them.
    ///
    /// # Errors
    /// [`InferError::Request`] with both hashes or numbers.
    pub fn check(&self, owner: &str, hash: Option<&str>, n_codes: usize) -> Result<(), InferError> {
        let origin = &self.origin;
        if n_codes != self.n_codes() {
            let found = self.n_codes();
            let message = format!(
                "{owner} has {n_codes} different codes and the codec {origin} has {found}; give the codec that made them"
            );
            return Err(InferError::Request(message));
        }
        match (hash, self.hash()) {
            (Some(wanted), found) if wanted != found => {
                let message = format!(
                    "{owner} has codes of the codec {wanted}, and {origin} is the codec {found}; its codes mean other pictures"
                );
                Err(InferError::Request(message))
            }
            _ => Ok(()),
        }
    }

    /// The codec for the pictures of a model of its codes.
    ///
    /// # Errors
    /// [`InferError::Request`] for a model of text or of another codec's codes.
    pub fn for_model(self, config: &ModelConfig) -> Result<GridCodec, InferError> {
        let Some(image) = config.image().filter(|image| image.channels == 1) else {
            return Err(InferError::Request("this model has no codes of a codec; leave --codec out".into()));
        };
        self.check("the model", image.codec.as_deref(), config.backbone().mask_index)?;
        self.for_grid(image.grid)
    }

    /// The codec for pictures with a grid of codes.
    ///
    /// # Errors
    /// [`InferError::Request`] for a grid that the codec does not have.
    pub fn for_grid(self, grid: [usize; 2]) -> Result<GridCodec, InferError> {
        let Some([height, width]) = self.codec.config().pixels_of(grid) else {
            let ([rows, columns], [has_rows, has_columns]) = (grid, self.codec.config().grid());
            let message = format!(
                "a grid of {rows} x {columns} codes does not fit the codec {}, whose pictures have {has_rows} x {has_columns}",
                self.origin
            );
            return Err(InferError::Request(message));
        };
        Ok(GridCodec { folder: self, grid, height, width })
    }
}

/// A codec for pictures of one size.
#[derive(Clone, Debug)]
pub struct GridCodec {
    folder: CodecFolder,
    grid: [usize; 2],
    height: usize,
    width: usize,
}

impl GridCodec {
    // Pictures that are computed at a time.
    fn chunk(&self) -> usize {
        (CHUNK_PIXELS / (self.height * self.width)).max(1)
    }
}

impl PictureCodec for GridCodec {
    fn shape(&self) -> (usize, usize, usize) {
        (self.width, self.height, self.folder.channels())
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn decode(&self, rows: &[&[u32]]) -> Result<Vec<Picture>, InferError> {
        let n_cells = self.grid[0] * self.grid[1];
        let (width, height, channels) = self.shape();
        let mut pictures = Vec::with_capacity(rows.len());
        for rows in rows.chunks(self.chunk()) {
            let codes: Vec<i32> = rows.iter().flat_map(|row| row.iter().map(|&code| code as i32)).collect();
            let codes = TensorData::new(codes, [rows.len(), n_cells]);
            let codes = Tensor::<2, Int>::from_data(codes, &self.folder.device);
            let pixels = self.folder.codec.decode_grid(codes, self.grid); // [N, C, H, W]
            let values = pixels.permute([0, 2, 3, 1]).try_into_vec_as::<f32>(); // [N, H, W, C]
            let values = values.map_err(|error| InferError::Device(error.to_string()))?;
            let picture = |values: &[f32]| {
                let value = |&value: &f32| ((value + 1.0) * 127.5).round().clamp(0.0, 255.0) as u8;
                Picture::new(width, height, channels, values.iter().map(value).collect())
            };
            pictures.extend(values.chunks_exact(width * height * channels).map(picture));
        }
        Ok(pictures)
    }

    fn encode(&self, pictures: &[Picture]) -> Result<Vec<Vec<u32>>, InferError> {
        let n_cells = self.grid[0] * self.grid[1];
        let (width, height, channels) = self.shape();
        let mut rows = Vec::with_capacity(pictures.len());
        for pictures in pictures.chunks(self.chunk()) {
            let value = |&value: &u8| f32::from(value) / 127.5 - 1.0;
            let values: Vec<f32> = pictures.iter().flat_map(|picture| picture.pixels().iter().map(value)).collect();
            let values = TensorData::new(values, [pictures.len(), height, width, channels]);
            let pixels = Tensor::<4>::from_data(values, &self.folder.device).permute([0, 3, 1, 2]); // [N, C, H, W]
            let codes = self.folder.codec.encode(pixels).try_into_vec_as::<i32>(); // [N, h w]
            let codes = codes.map_err(|error| InferError::Device(error.to_string()))?;
            rows.extend(codes.chunks_exact(n_cells).map(|row| row.iter().map(|&code| code as u32).collect::<Vec<_>>()));
        }
        Ok(rows)
    }

    fn on_device(&self, device: &Device) -> Option<Arc<dyn PictureCodec>> {
        let Self { folder, .. } = self;
        let codec = folder.codec.clone().to_device(device);
        let folder = CodecFolder { codec, origin: folder.origin.clone(), device: device.clone() };
        Some(Arc::new(Self { folder, ..*self }))
    }
}
