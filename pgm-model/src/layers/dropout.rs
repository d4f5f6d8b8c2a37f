//! Dropout, while a network is trained or, where that is asked for, while it is sampled.

use burn::module::Module;
use burn::nn;
use burn::tensor::{Distribution, Tensor};

/// Dropout on devices that can differentiate.
#[derive(Module, Debug)]
pub struct Dropout {
    dropout: nn::Dropout,
    always: bool,
}

impl Dropout {
    /// Dropout with a probability.
    pub fn new(probability: f64) -> Self {
        Self { dropout: nn::DropoutConfig::new(probability).init(), always: false }
    }

    /// The same on every device.
    pub fn always(mut self) -> Self {
        self.always = true;
        self
    }

    /// Sets some values to zero and scales the others so that the mean stays.
    ///
    /// # Shapes
    /// any, which is kept
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if !self.always || x.device().is_autodiff() || self.dropout.prob == 0.0 {
            return self.dropout.forward(x);
        }
        let kept = 1.0 - self.dropout.prob;
        let mask = x.random_like(Distribution::Bernoulli(kept));
        x * mask * (1.0 / kept)
    }
}
