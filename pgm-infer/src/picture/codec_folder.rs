//! Codecs from a folder, or from a published file: networks between pixels and codes.
// N pictures, C channels, H x W pixels, h x w codes

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_model::ModelConfig;
use pgm_model::codec::{self, Codec, VqCodec, VqCodecConfig};
use pgm_model::model_folder::CONFIG_FILE;

use super::codec::PictureCodec;
use super::pixels::Picture;
use crate::InferError;

/// Pixels that are computed at a time: 4 pictures of 256 x 256.
const CHUNK_PIXELS: usize = 4 * 256 * 256;
/// `codec_type` of LlamaGen's codecs.
const LLAMAGEN: &str = "llamagen-vq";

/// A codec for pictures of one size, or of any.
#[derive(Debug)]
pub struct CodecFolder {
    network: CodecKind,
    origin: String,
    device: Device,
}

#[allow(clippy::large_enum_variant)] // only one exists at a time
#[derive(Debug)]
enum CodecKind {
    /// A codec of one's own, for pictures of the size that it was trained for.
    Own(Codec),
    /// LlamaGen's, for pictures of any size.
    LlamaGen(VqCodecConfig, VqCodec),
}

impl CodecFolder {
    /// Opens a codec folder, or a `.pt` of LlamaGen.
    ///
    /// # Errors
    /// [`InferError::Model`] that names the file and what is wrong with it.
    pub fn open(path: &Path, device: &Device) -> Result<Self, InferError> {
        let network = if !path.is_dir() || codec_type(path).as_deref() == Some(LLAMAGEN) {
            let (config, codec) = codec::open(path, device)?;
            CodecKind::LlamaGen(config, codec)
        } else {
            CodecKind::Own(Codec::load(path, device)?)
        };
        Ok(Self { network, origin: path.display().to_string(), device: device.clone() })
    }

    /// The hash of the codec; none of a folder that was written without it.
    pub fn hash(&self) -> Option<&str> {
        match &self.network {
            CodecKind::Own(codec) => Some(codec.hash()),
            CodecKind::LlamaGen(config, _) => config.hash.as_deref(),
        }
    }

    /// Number of codes.
    pub fn n_codes(&self) -> usize {
        match &self.network {
            CodecKind::Own(codec) => codec.config().n_codes(),
            CodecKind::LlamaGen(_, codec) => codec.n_codes(),
        }
    }

    /// Channels of a picture.
    pub fn channels(&self) -> usize {
        match &self.network {
            CodecKind::Own(codec) => codec.config().pixels()[2],
            CodecKind::LlamaGen(_, codec) => codec.channels(),
        }
    }

    /// Rows and columns of codes of a picture with so many rows and columns of pixels.
    ///
    /// # Errors
    /// [`InferError::Request`] for a size that the codec does not take.
    pub fn grid(&self, [height, width]: [usize; 2]) -> Result<[usize; 2], InferError> {
        let (grid, takes) = match &self.network {
            CodecKind::Own(codec) => {
                let [own_height, own_width, _] = codec.config().pixels();
                let grid = ([own_height, own_width] == [height, width]).then(|| codec.config().grid());
                (grid, format!("which takes {own_width} x {own_height}"))
            }
            CodecKind::LlamaGen(config, codec) => {
                let side = config.downsampling();
                (codec.grid([height, width]), format!("which takes multiples of {side} pixels"))
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
            (Some(wanted), Some(found)) if wanted != found => {
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
        let (height, width) = match &self.network {
            CodecKind::Own(codec) => {
                let [height, width, _] = codec.config().pixels();
                (height, width)
            }
            CodecKind::LlamaGen(_, codec) => {
                let [height, width] = codec.pixels(grid);
                (height, width)
            }
        };
        let has = self.grid([height, width])?;
        if has != grid {
            let ([rows, columns], [has_rows, has_columns]) = (grid, has);
            let message = format!(
                "a grid of {rows} x {columns} codes does not fit the codec {}, whose pictures have {has_rows} x {has_columns}",
                self.origin
            );
            return Err(InferError::Request(message));
        }
        Ok(GridCodec { folder: self, grid, height, width })
    }
}

// `codec_type` of a folder's configuration; a folder without one has another error.
fn codec_type(folder: &Path) -> Option<String> {
    let json = std::fs::read(folder.join(CONFIG_FILE)).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&json).ok()?;
    config.get("codec_type")?.as_str().map(String::from)
}

/// A codec for pictures of one size.
#[derive(Debug)]
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
            let pixels = match &self.folder.network {
                CodecKind::Own(codec) => codec.decode(codes),
                CodecKind::LlamaGen(_, codec) => codec.decode(codes, self.grid, rows.len()),
            }; // [N, C, H, W]
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
            let codes = match &self.folder.network {
                CodecKind::Own(codec) => codec.encode(pixels),
                CodecKind::LlamaGen(_, codec) => codec.encode(pixels, pictures.len()),
            }; // [N, h w]
            let codes = codes.try_into_vec_as::<i32>().map_err(|error| InferError::Device(error.to_string()))?;
            rows.extend(codes.chunks_exact(n_cells).map(|row| row.iter().map(|&code| code as u32).collect::<Vec<_>>()));
        }
        Ok(rows)
    }
}
