//! RMSNorm: the norm of the MaskGIT baseline.
// B batch, S positions, H hidden

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use super::modulation::ShiftScale;
use crate::ops;

/// `x / sqrt(mean(x^2) + 1e-5) * weight + bias`, with the mean over the channels of each token.
#[derive(Module, Debug)]
pub struct RmsNorm {
    gamma: Param<Tensor<1>>,
    beta: Option<Param<Tensor<1>>>,
}

impl RmsNorm {
    /// A new norm with a weight of ones, and perhaps a bias of zeros.
    pub fn new(width: usize, has_bias: bool, device: &Device) -> Self {
        use burn::module::Initializer::{Ones, Zeros};
        Self { gamma: Ones.init([width], device), beta: has_bias.then(|| Zeros.init([width], device)) }
    }

    /// `norm(x) * (1 + scale) + shift`.
    ///
    /// # Shapes
    /// `[B, S, H] -> [B, S, H]`
    pub(crate) fn forward(&self, x: Tensor<3>, shift_scale: ShiftScale) -> Tensor<3> {
        let weight = self.gamma.val().unsqueeze::<3>(); // [1, 1, H]
        let bias = match &self.beta {
            Some(bias) => bias.val().unsqueeze::<3>(),
            None => weight.zeros_like(),
        };
        let affine = match shift_scale.vectors() {
            Some([shift, scale]) => {
                let scale = scale + 1.0;
                [weight * scale.clone(), bias * scale + shift]
            }
            None => [weight, bias],
        };
        ops::affine_rms_norm(x, affine)
    }
}
