//! The MaskGIT baseline for image codes (Halton-MaskGIT, arXiv 2503.17076): full attention over codes and masks.
//!
//! It is another network than the masked baseline for text: positions are learned, norms have no mean, the head shares its
//! weight with the embedding, and registers stand behind the codes. It has no BOS.
// B batch, L codes of an image, K positions, R registers, H hidden, V codes and the mask

use burn::module::{Initializer, Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, Linear};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Int, Tensor, assert_shape};

use super::at_positions::at_positions;
use super::embedding::{embed, register_embedding, registers};
use crate::condition::{Condition, class_condition, class_embedding};
use crate::config::MaskGitConfig;
use crate::layers::{LossTarget, MaskGitBlock, RmsNorm, ShiftScale, xavier};
use crate::ops;
use crate::rotary::RotaryAngles;
use crate::sequence::{Class, Positions};

/// The vectors that the network begins with.
#[derive(Module, Debug)]
struct Input {
    codes: Embedding,
    positions: Embedding,
    classes: Embedding,
    registers: Option<Embedding>,
}

/// The last norm and the bias of the head, whose weight is the embedding of the codes.
#[derive(Module, Debug)]
struct Output {
    norm: RmsNorm,
    modulation: Option<Linear>,
    bias: Param<Tensor<1>>,
}

/// Predicts the codes behind masks, from codes and masks of the whole image.
#[derive(Module, Debug)]
pub struct MaskGit {
    input: Input,
    layers: Vec<MaskGitBlock>,
    output: Output,
    n_heads: usize,
}

// The standard deviation of new embeddings.
const STD: f64 = 0.02;

impl MaskGit {
    /// A new network with the initialisation of its authors. Parameters are drawn on first use, from the device's generator.
    pub fn new(config: &MaskGitConfig, device: &Device) -> Self {
        let backbone = &config.backbone;
        let image = backbone.image.as_ref().expect("a validated MaskGIT has classes");
        let (width, vocab) = (backbone.hidden_size, backbone.vocab_size);
        let embedding = |n: usize| {
            let initializer = Initializer::Normal { mean: 0.0, std: STD };
            EmbeddingConfig::new(n, width).with_initializer(initializer).init(device)
        };
        let input = Input {
            codes: embedding(vocab),
            positions: embedding(image.n_cells()),
            classes: class_embedding(image.n_classes, width, STD, device),
            registers: register_embedding(image.registers, width, device),
        };
        let modulation =
            Linear { bias: Some(Initializer::Zeros.init([2 * width], device)), ..xavier(width, 2 * width, device) };
        let norm = RmsNorm::new(width, true, device);
        Self {
            input,
            layers: (0..config.n_blocks).map(|_| MaskGitBlock::new(backbone, device)).collect(),
            output: Output { norm, modulation: Some(modulation), bias: Initializer::Zeros.init([vocab], device) },
            n_heads: backbone.n_heads,
        }
    }

    /// Logits at every position. Without `classes`, no row has a class.
    ///
    /// # Shapes
    /// codes and masks `[B, L] -> [B, L, V]`
    ///
    /// # Panics
    /// When L is not the number of codes of an image, or when classes are not one for each row or not known; so do all
    /// methods that take codes.
    pub fn forward(&self, codes: Tensor<2, Int>, classes: Option<&[Class]>) -> Tensor<3> {
        self.logits(self.hidden(codes, classes))
    }

    /// The weighted loss of the logits of [`forward`](Self::forward).
    ///
    /// # Shapes
    /// codes and masks `[B, L] -> [1]`
    pub fn loss(&self, codes: Tensor<2, Int>, classes: Option<&[Class]>, target: &LossTarget) -> Tensor<1> {
        let hidden = self.hidden(codes, classes);
        let [n_rows, length, width] = hidden.dims();
        assert_shape!(target.targets, [n_rows, length]);
        assert_shape!(target.weights, [n_rows, length]);
        let n = n_rows * length;
        let (targets, weights) = (target.targets.clone().reshape([n]), target.weights.clone().reshape([n]));
        let hidden = hidden.reshape([n, width]);
        ops::linear_cross_entropy(hidden, self.head(), self.output.bias.val(), targets, weights, target.mask_index)
    }

    /// As [`forward`](Self::forward) at some positions, before the head. Every block runs over the whole image.
    ///
    /// # Shapes
    /// codes and masks `[B, L]`, positions `[B, K] -> [B, K, H]`
    pub fn hidden_at(&self, codes: Tensor<2, Int>, classes: Option<&[Class]>, positions: &Positions) -> Tensor<3> {
        at_positions(self.hidden(codes, classes), positions)
    }

    /// As [`forward`](Self::forward), before the head: after the last norm, which reads each row's condition.
    ///
    /// # Shapes
    /// codes and masks `[B, L] -> [B, L, H]`
    pub fn hidden(&self, codes: Tensor<2, Int>, classes: Option<&[Class]>) -> Tensor<3> {
        let ([n_rows, length], device) = (codes.dims(), codes.device());
        let Input { codes: embedding, positions, classes: of_classes, registers: all } = &self.input;
        let n_places = positions.weight.lazy_shape().dims::<2>()[0];
        assert_eq!(length, n_places, "an image of this network has {n_places} codes");
        let places = embed(positions, Tensor::<1, Int>::arange(0..length as i64, &device).unsqueeze()); // [1, L, H]
        let x = embed(embedding, codes) + places; // [B, L, H]
        let width = x.dims()[2];
        let x = match all {
            Some(all) => {
                let n = all.weight.lazy_shape().dims::<2>()[0];
                Tensor::cat(vec![x, registers(all, 0..n, n_rows)], 1) // [B, L + R, H]
            }
            None => x,
        };
        let Condition::PerRow(classes) = class_condition(of_classes, classes, n_rows) else {
            unreachable!("rows have classes of their own")
        };
        let condition = Condition::PerRow(silu(classes));
        let unrotated = RotaryAngles::none(x.dims()[1], width / self.n_heads, &device);
        let x = self.layers.iter().fold(x, |x, layer| layer.forward(x, &condition, &unrotated));
        let shift_scale = ShiftScale::new(&self.output.modulation, Some(&condition));
        self.output.norm.forward(x.narrow(1, 0, length), shift_scale)
    }

    /// The head alone, of hidden states.
    ///
    /// # Shapes
    /// `[B, K, H] -> [B, K, V]`
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        ops::matmul(hidden, self.head()) + self.output.bias.val().unsqueeze::<3>()
    }

    // The weight of the head, [H, V].
    fn head(&self) -> Tensor<2> {
        self.input.codes.weight.val().swap_dims(0, 1)
    }
}
