//! The network: stem, mixed blocks, mean, and the class logits without their bias.
// B batch, D width of the features

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use super::blocks::{BlockReader, Mixed};
use super::convolution::{Convolution, Shape, shrink};
use super::weights::NamedWeights;
use crate::TrainError;
use crate::eval::images::resize::INPUT_SIZE;

/// Classes of the network's last layer.
const N_CLASSES: usize = 1008;

/// Where features are taken; each layer's values are averaged over the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeatureLayer {
    /// After the first pool, 64 features.
    #[serde(rename = "64")]
    Pool1,
    /// After the second pool, 192 features.
    #[serde(rename = "192")]
    Pool2,
    /// Before the last two kinds of blocks, 768 features.
    #[serde(rename = "768")]
    Mixed6,
    /// Before the classes, 2048 features: those of the published FID.
    #[default]
    #[serde(rename = "2048")]
    Last,
}

impl FeatureLayer {
    /// Number of features.
    pub fn width(self) -> usize {
        match self {
            Self::Pool1 => 64,
            Self::Pool2 => 192,
            Self::Mixed6 => 768,
            Self::Last => 2048,
        }
    }
}

/// The Inception network of the published FID.
#[derive(Debug)]
pub struct Inception {
    stem: [Convolution; 3],
    stem2: [Convolution; 2],
    until_6e: Vec<Mixed>,
    last: Vec<Mixed>,
    classes: Tensor<2>, // [2048, 1008]
}

/// Features and class logits of a batch.
#[derive(Debug)]
pub struct InceptionOutput {
    /// The features, `[B, D]`.
    pub features: Tensor<2>,
    /// The class logits without bias, `[B, 1008]`, of the last layer's features only.
    pub logits: Option<Tensor<2>>,
}

impl Inception {
    /// Reads a file of weights: the `.pth` of pytorch-fid or torch-fidelity, or a safetensors file with its names.
    ///
    /// # Errors
    /// Names the file that cannot be read, or the tensor that is missing, unknown or of another shape.
    pub fn load(path: &Path, device: &Device) -> Result<Self, TrainError> {
        let file = pgm_model::model_folder::MappedFile::open(path)?;
        Self::from_bytes(file.bytes(), file.origin(), device)
    }

    /// As [`load`](Self::load), from the file's bytes.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_bytes(bytes: &[u8], origin: &str, device: &Device) -> Result<Self, TrainError> {
        let mut weights = NamedWeights::read(bytes, origin)?;
        let network = Self::from_weights(&mut weights, device)?;
        weights.finish()?;
        Ok(network)
    }

    /// Names and shapes of the tensors that a file of weights must have.
    ///
    /// # Errors
    /// Never in practice: every tensor is there.
    pub fn tensor_shapes(device: &Device) -> Result<Vec<(String, Vec<usize>)>, TrainError> {
        let mut weights = NamedWeights::list();
        Self::from_weights(&mut weights, device)?;
        Ok(weights.into_list())
    }

    fn from_weights(weights: &mut NamedWeights, device: &Device) -> Result<Self, TrainError> {
        let mut layer = |name: &str, channels, side: usize, stride, padding: usize| {
            let shape = Shape { channels, kernel: [side; 2], stride, padding: [padding; 2] };
            Convolution::read(weights, name, shape, device)
        };
        let stem = [
            layer("Conv2d_1a_3x3", [3, 32], 3, 2, 0)?,
            layer("Conv2d_2a_3x3", [32, 32], 3, 1, 0)?,
            layer("Conv2d_2b_3x3", [32, 64], 3, 1, 1)?,
        ];
        let stem2 = [layer("Conv2d_3b_1x1", [64, 80], 1, 1, 0)?, layer("Conv2d_4a_3x3", [80, 192], 3, 1, 0)?];
        let mut read = BlockReader { weights, block: "", device };
        let until_6e = vec![
            Mixed::a(read.of("Mixed_5b"), 192, 32)?,
            Mixed::a(read.of("Mixed_5c"), 256, 64)?,
            Mixed::a(read.of("Mixed_5d"), 288, 64)?,
            Mixed::b(read.of("Mixed_6a"), 288)?,
            Mixed::c(read.of("Mixed_6b"), 128)?,
            Mixed::c(read.of("Mixed_6c"), 160)?,
            Mixed::c(read.of("Mixed_6d"), 160)?,
            Mixed::c(read.of("Mixed_6e"), 192)?,
        ];
        let last = vec![
            Mixed::d(read.of("Mixed_7a"))?,
            Mixed::e(read.of("Mixed_7b"), 1280)?,
            Mixed::e(read.of("Mixed_7c"), 2048)?,
        ];
        let width = FeatureLayer::Last.width();
        let weights = read.weights;
        let classes = weights.take("fc.weight", &[N_CLASSES, width])?;
        // The published Inception Score leaves the bias out.
        weights.take("fc.bias", &[N_CLASSES])?;
        let classes = Tensor::<2>::from_data(TensorData::new(classes, [N_CLASSES, width]), device).transpose();
        Ok(Self { stem, stem2, until_6e, last, classes })
    }

    /// Features of a layer, and of the last layer the class logits.
    ///
    /// # Shapes
    /// input of a [`Preprocessing`](crate::eval::images::Preprocessing) `[B, 3, 299, 299] -> [B, D]`
    ///
    /// # Panics
    /// When the input has other sizes.
    pub fn forward(&self, x: Tensor<4>, layer: FeatureLayer) -> InceptionOutput {
        let n_rows = x.dims()[0];
        assert_eq!(x.dims(), [n_rows, 3, INPUT_SIZE, INPUT_SIZE], "the network's input");
        let without_logits = |x: Tensor<4>| InceptionOutput { features: mean_over_pixels(x), logits: None };
        let x = shrink(self.stem.iter().fold(x, |x, layer| layer.forward(x)));
        if layer == FeatureLayer::Pool1 {
            return without_logits(x);
        }
        let x = shrink(self.stem2.iter().fold(x, |x, layer| layer.forward(x)));
        if layer == FeatureLayer::Pool2 {
            return without_logits(x);
        }
        let x = self.until_6e.iter().fold(x, |x, block| block.forward(x));
        if layer == FeatureLayer::Mixed6 {
            return without_logits(x);
        }
        let features = mean_over_pixels(self.last.iter().fold(x, |x, block| block.forward(x)));
        let logits = features.clone().matmul(self.classes.clone());
        InceptionOutput { features, logits: Some(logits) }
    }
}

// [B, C, H, W] -> [B, C]
fn mean_over_pixels(x: Tensor<4>) -> Tensor<2> {
    let [n_rows, n_channels, height, width] = x.dims();
    x.reshape([n_rows, n_channels, height * width]).mean_dim(2).squeeze_dim(2)
}
