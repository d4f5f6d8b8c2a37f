//! A codec with its configuration: what encodes a data folder and decodes samples.
//
// B batch, C channels, H x W pixels, h x w grid of codes

#[cfg(feature = "files")]
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

use super::autoencoder::Autoencoder;
use super::config::CodecConfig;
use super::vq::{VqCodec, read_torch};
use super::{identity, weights};
use crate::error::ModelError;
use crate::model_folder::SafeTensorsSource;
#[cfg(feature = "files")]
use crate::model_folder::{CONFIG_FILE, MappedFile, WEIGHTS_FILE, atomic_write};

/// The network of a codec.
#[allow(clippy::large_enum_variant)] // only one exists at a time
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum CodecNetwork {
    /// An autoencoder of one's own.
    Autoencoder(Autoencoder),
    /// LlamaGen's.
    Vq(VqCodec),
}

/// Pixels that LlamaGen's networks compute at a time: four pictures of 256 x 256.
const PIXELS_AT_ONCE: usize = 4 * 256 * 256;

/// A codec: pixels to codes and back.
#[derive(Clone, Debug)]
pub struct Codec {
    config: CodecConfig,
    network: CodecNetwork,
    hash: String,
}

impl Codec {
    /// A codec of a network with its configuration.
    ///
    /// # Errors
    /// [`ModelError::Device`] when a weight cannot be read from its device.
    pub fn new(config: CodecConfig, network: CodecNetwork) -> Result<Self, ModelError> {
        let hash = identity::fingerprint(&config_bytes(&config), &tensors_of(&network)?);
        Ok(Self { config, network, hash })
    }

    /// The codec on another device of the same kind.
    pub fn to_device(self, device: &Device) -> Self {
        let network = match self.network {
            CodecNetwork::Autoencoder(network) => CodecNetwork::Autoencoder(network.to_device(device)),
            CodecNetwork::Vq(network) => CodecNetwork::Vq(network.to_device(device)),
        };
        Self { network, ..self }
    }

    /// A codec from the contents of `config.json` and `model.safetensors`; errors name the weights as `origin`.
    ///
    /// # Errors
    /// [`ModelError::Json`] or [`ModelError::Config`] for the configuration, [`ModelError::Weights`] when the bytes are no
    /// safetensors file, and [`ModelError::MissingTensor`], [`ModelError::UnknownTensor`], [`ModelError::Shape`],
    /// [`ModelError::DType`] or [`ModelError::NotFinite`] for the weights.
    pub fn from_bytes(config: &[u8], weights: &[u8], origin: &str, device: &Device) -> Result<Self, ModelError> {
        let config = read_config(config, "the configuration")?;
        Self::with_weights(config, weights, origin, device)
    }

    /// Reads a codec's folder, or a `.pt` in the form of LlamaGen's `vq_ds8_c2i.pt`.
    ///
    /// # Errors
    /// As [`load`](Self::load) and [`from_torch`](Self::from_torch).
    #[cfg(feature = "files")]
    pub fn open(path: &Path, device: &Device) -> Result<Self, ModelError> {
        if path.is_dir() {
            return Self::load(path, device);
        }
        let file = MappedFile::open(path)?;
        Self::from_torch(file.bytes(), file.origin(), device)
    }

    /// A codec from the bytes of a `.pt` in LlamaGen's form, whose sizes come from its tensors; errors name it as `origin`.
    ///
    /// # Errors
    /// [`ModelError::Torch`] or [`ModelError::Import`] for a file of another kind, and as [`from_bytes`](Self::from_bytes)
    /// for its weights.
    pub fn from_torch(bytes: &[u8], origin: &str, device: &Device) -> Result<Self, ModelError> {
        let (config, network) = read_torch(bytes, origin, device)?;
        Self::new(CodecConfig::Vq(config), CodecNetwork::Vq(network))
    }

    /// Reads `config.json` and `model.safetensors` of a codec's folder.
    ///
    /// # Errors
    /// [`ModelError::Io`] when a file cannot be read, and as [`from_bytes`](Self::from_bytes).
    #[cfg(feature = "files")]
    pub fn load(folder: &Path, device: &Device) -> Result<Self, ModelError> {
        let config = Self::load_config(folder)?;
        let weights = MappedFile::open(&folder.join(WEIGHTS_FILE))?;
        Self::with_weights(config, weights.bytes(), weights.origin(), device)
    }

    /// Reads `config.json` of a codec's folder.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::Json`] or [`ModelError::Config`].
    #[cfg(feature = "files")]
    pub fn load_config(folder: &Path) -> Result<CodecConfig, ModelError> {
        let path = folder.join(CONFIG_FILE);
        let json =
            std::fs::read(&path).map_err(|cause| ModelError::Io { action: "read", path: path.clone(), cause })?;
        read_config(&json, &path.display().to_string())
    }

    /// Writes `config.json` and `model.safetensors` into `folder`, which is created if it does not exist. The configuration
    /// is written last.
    ///
    /// # Errors
    /// [`ModelError::Io`] when a file cannot be written, [`ModelError::Device`] when a weight cannot be read.
    #[cfg(feature = "files")]
    pub fn save(&self, folder: &Path) -> Result<(), ModelError> {
        std::fs::create_dir_all(folder).map_err(|cause| ModelError::Io {
            action: "write",
            path: folder.to_path_buf(),
            cause,
        })?;
        atomic_write(&folder.join(WEIGHTS_FILE), &weights::to_safetensors(&tensors_of(&self.network)?))?;
        let json = serde_json::to_vec_pretty(&self.config).expect("a configuration always serialises");
        atomic_write(&folder.join(CONFIG_FILE), &json)
    }

    /// The configuration.
    pub fn config(&self) -> &CodecConfig {
        &self.config
    }

    /// The network.
    pub fn network(&self) -> &CodecNetwork {
        &self.network
    }

    /// A hash of the configuration and the weights, in hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The codes of pixels in -1 to 1, row by row.
    ///
    /// # Shapes
    /// `[B, C, H, W] -> [B, h * w]`
    ///
    /// # Panics
    /// For pictures of a size or with channels that the codec does not take.
    pub fn encode(&self, pixels: Tensor<4>) -> Tensor<2, Int> {
        match &self.network {
            CodecNetwork::Autoencoder(network) => network.encode(pixels),
            CodecNetwork::Vq(network) => {
                let [_, _, height, width] = pixels.dims();
                network.encode(pixels, PIXELS_AT_ONCE / (height * width).max(1))
            }
        }
    }

    /// The pixels of codes of a picture of the codec's usual size. They may lie outside of -1 to 1.
    ///
    /// # Shapes
    /// `[B, h * w] -> [B, C, H, W]`
    ///
    /// # Panics
    /// May panic for a code outside the codebook.
    pub fn decode(&self, codes: Tensor<2, Int>) -> Tensor<4> {
        self.decode_grid(codes, self.config.grid())
    }

    /// As [`decode`](Self::decode), for pictures with any grid that the codec makes.
    ///
    /// # Shapes
    /// `[B, h * w] -> [B, C, H, W]`
    ///
    /// # Panics
    /// As [`decode`](Self::decode), and when the codec makes no pictures of that [grid](CodecConfig::pixels_of).
    pub fn decode_grid(&self, codes: Tensor<2, Int>, grid: [usize; 2]) -> Tensor<4> {
        let [height, width] = self.config.pixels_of(grid).expect("a grid of this codec");
        match &self.network {
            CodecNetwork::Autoencoder(network) => network.decode(codes),
            CodecNetwork::Vq(network) => network.decode(codes, grid, PIXELS_AT_ONCE / (height * width).max(1)),
        }
    }

    fn with_weights(config: CodecConfig, weights: &[u8], origin: &str, device: &Device) -> Result<Self, ModelError> {
        let source = SafeTensorsSource::new(weights, origin)?;
        let network = match &config {
            CodecConfig::Autoencoder(config) => {
                CodecNetwork::Autoencoder(weights::fill(Autoencoder::new(config, device), &source, origin, device)?)
            }
            CodecConfig::Vq(config) => {
                CodecNetwork::Vq(weights::fill(VqCodec::new(config, device), &source, origin, device)?)
            }
        };
        Self::new(config, network)
    }
}

fn read_config(json: &[u8], origin: &str) -> Result<CodecConfig, ModelError> {
    let config: CodecConfig =
        serde_json::from_slice(json).map_err(|cause| ModelError::Json { origin: origin.to_string(), cause })?;
    config.validate()?;
    Ok(config)
}

fn config_bytes(config: &CodecConfig) -> Vec<u8> {
    serde_json::to_vec(config).expect("a configuration always serialises")
}

fn tensors_of(network: &CodecNetwork) -> Result<weights::Tensors, ModelError> {
    match network {
        CodecNetwork::Autoencoder(network) => weights::collect(network),
        CodecNetwork::Vq(network) => weights::collect(network),
    }
}

#[cfg(all(test, feature = "flex", feature = "files"))]
mod tests {
    use super::*;
    use crate::codec::{AutoencoderConfig, QuantizerConfig};
    use burn::tensor::Distribution;

    fn codec(quantizer: QuantizerConfig) -> Codec {
        let config = AutoencoderConfig { height: 4, width: 6, channels: 1, widths: vec![3], blocks: 2, quantizer };
        let network = CodecNetwork::Autoencoder(Autoencoder::new(&config, &Device::flex()));
        Codec::new(CodecConfig::Autoencoder(config), network).unwrap()
    }

    #[test]
    fn a_saved_codec_is_the_same_codec() {
        let device = Device::flex();
        for quantizer in [QuantizerConfig::Fsq { levels: vec![4, 3] }, QuantizerConfig::Vq { codes: 9, width: 2 }] {
            let folder = tempfile::tempdir().unwrap();
            let codec = codec(quantizer);
            codec.save(folder.path()).unwrap();
            let again = Codec::load(folder.path(), &device).unwrap();
            assert_eq!((again.config(), again.hash()), (codec.config(), codec.hash()));
            let pixels = Tensor::<4>::random([3, 1, 4, 6], Distribution::Uniform(-1.0, 1.0), &device);
            let codes = codec.encode(pixels.clone());
            again.encode(pixels).into_data().assert_eq(&codes.clone().into_data(), true);
            again.decode(codes.clone()).into_data().assert_eq(&codec.decode(codes).into_data(), true);
            let [config, weights] =
                [CONFIG_FILE, WEIGHTS_FILE].map(|name| std::fs::read(folder.path().join(name)).unwrap());
            assert_eq!(Codec::from_bytes(&config, &weights, "bytes", &device).unwrap().hash(), codec.hash());
        }
    }

    #[test]
    fn folders_that_do_not_fit_are_refused_with_what_is_wrong() {
        let device = Device::flex();
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let refused = || Codec::load(folder.path(), &device).map(|_| ()).unwrap_err().to_string();
        assert!(refused().contains("cannot read") && refused().contains("config.json"));
        codec(QuantizerConfig::Fsq { levels: vec![4, 3] }).save(folder.path()).unwrap();
        let json = std::fs::read_to_string(path(CONFIG_FILE)).unwrap();
        let with = |from: &str, to: &str| std::fs::write(path(CONFIG_FILE), json.replace(from, to)).unwrap();
        with("\"blocks\": 2", "\"blocks\": 3");
        assert!(refused().contains("lacks"), "{}", refused());
        with("\"blocks\": 2", "\"blocks\": 1");
        assert!(refused().contains("does not have"), "{}", refused());
        with("\"height\": 4", "\"height\": 5");
        assert!(refused().contains("height = 5"), "{}", refused());
        with("autoencoder", "tokenizer");
        assert!(refused().contains("config.json is not a valid"), "{}", refused());
        with("4,\n      3", "4,\n      3,\n      3");
        assert!(refused().contains("has shape"), "{}", refused());
        std::fs::write(path(CONFIG_FILE), &json).unwrap();
        let weights = std::fs::read(path(WEIGHTS_FILE)).unwrap();
        std::fs::write(path(WEIGHTS_FILE), &weights[..weights.len() / 2]).unwrap();
        assert!(refused().contains("truncated"), "{}", refused());
        let mut wild = weights.clone();
        let last = wild.len() - 4;
        wild[last..].copy_from_slice(&f32::NAN.to_le_bytes());
        std::fs::write(path(WEIGHTS_FILE), &wild).unwrap();
        assert!(refused().contains("not finite"), "{}", refused());
    }
}
