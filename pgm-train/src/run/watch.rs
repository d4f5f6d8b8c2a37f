//! Losses and gradient norms of single steps, which are read from the device every few steps.
//!
//! A run that diverges is noticed when they are read; they tell the step at which it happened.

use burn::tensor::{Tensor, TensorData, Transaction};

use crate::TrainError;

/// Steps after which the numbers are read in any case.
const MOST_STEPS: usize = 256;

/// The numbers of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct StepNumbers {
    /// Steps done with it.
    pub(crate) step: usize,
    pub(crate) loss: f32,
    /// Before clipping.
    pub(crate) grad_norm: f32,
    pub(crate) lr: f64,
}

impl StepNumbers {
    fn not_finite(&self) -> Option<&'static str> {
        match (self.loss.is_finite(), self.grad_norm.is_finite()) {
            (false, _) => Some("the loss is"),
            (true, false) => Some("the gradient norm is"),
            (true, true) => None,
        }
    }
}

/// A step whose numbers are not finite, and the step before it, if that was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Divergence {
    /// What is not finite, with its verb.
    pub(crate) what: &'static str,
    pub(crate) at: StepNumbers,
    pub(crate) before: Option<StepNumbers>,
}

/// The numbers of the steps since they were last read.
#[derive(Debug, Default)]
pub(crate) struct StepWatch {
    steps: Vec<(usize, f64)>,
    // Each [1].
    losses: Vec<Tensor<1>>,
    grad_norms: Vec<Tensor<1>>,
    last: Option<StepNumbers>,
}

impl StepWatch {
    /// Adds a step's loss and gradient norm, `[1]` each.
    pub(crate) fn push(&mut self, step: usize, lr: f64, loss: Tensor<1>, grad_norm: Tensor<1>) {
        self.steps.push((step, lr));
        self.losses.push(loss);
        self.grad_norms.push(grad_norm);
    }

    /// Whether no step waits to be read.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether so many steps wait that they should be read.
    pub(crate) fn is_full(&self) -> bool {
        self.steps.len() >= MOST_STEPS
    }

    /// The newest step that was read.
    pub(crate) fn last(&self) -> Option<StepNumbers> {
        self.last
    }

    /// Reads the steps that wait, and `sum`, `[1]`, from the device at once. Returns `sum` and the first step whose numbers are
    /// not finite.
    ///
    /// # Errors
    /// [`TrainError::Device`] when the device fails.
    ///
    /// # Panics
    /// When no step waits: a programmer's error.
    pub(crate) fn read(&mut self, sum: Tensor<1>) -> Result<(f32, Option<Divergence>), TrainError> {
        let numbers = Transaction::default()
            .register(sum)
            .register(Tensor::cat(std::mem::take(&mut self.losses), 0))
            .register(Tensor::cat(std::mem::take(&mut self.grad_norms), 0))
            .try_execute()
            .map_err(|error| TrainError::Device(error.to_string()))?;
        let values = |data: &TensorData| -> Vec<f32> { data.iter::<f32>().collect() };
        let (sum, losses, grad_norms) = (values(&numbers[0]), values(&numbers[1]), values(&numbers[2]));
        let mut diverged = None;
        for ((step, lr), (loss, grad_norm)) in self.steps.drain(..).zip(losses.into_iter().zip(grad_norms)) {
            let at = StepNumbers { step, loss, grad_norm, lr };
            if let (None, Some(what)) = (&diverged, at.not_finite()) {
                diverged = Some(Divergence { what, at, before: self.last });
            }
            self.last = Some(at);
        }
        Ok((sum.first().copied().unwrap_or(f32::NAN), diverged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn the_first_step_that_is_not_finite_is_found_with_the_one_before() {
        let one = |value: f32| Tensor::<1>::from_data([value], &Device::flex());
        let mut watch = StepWatch::default();
        for step in 1..=3 {
            watch.push(step, 0.5, one(step as f32), one(2.0));
        }
        assert_eq!(watch.read(one(6.0)).unwrap(), (6.0, None));
        assert!(watch.is_empty());
        watch.push(4, 0.25, one(1.5), one(f32::INFINITY));
        watch.push(5, 0.25, one(f32::NAN), one(f32::NAN));
        let (_, diverged) = watch.read(one(f32::NAN)).unwrap();
        let diverged = diverged.unwrap();
        assert_eq!((diverged.what, diverged.at.step, diverged.at.loss), ("the gradient norm is", 4, 1.5));
        assert_eq!(diverged.before, Some(StepNumbers { step: 3, loss: 3.0, grad_norm: 2.0, lr: 0.5 }));
        assert_eq!(watch.last().map(|last| last.step), Some(5));
    }
}
