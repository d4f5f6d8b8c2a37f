//! The numbers of one AdamW step.

/// The numbers of one step of AdamW (arXiv 1711.05101).
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Learning rate.
    pub rate: f32,
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// Added to the square root of the second moment.
    pub epsilon: f32,
    /// Weight decay, multiplied by the learning rate.
    pub weight_decay: f32,
    /// Number of the step, from 1.
    pub number: usize,
}

impl AdamWStep {
    /// The divisors that correct the bias of the moments, which start at 0.
    pub(crate) fn bias_corrections(&self) -> [f32; 2] {
        let number = i32::try_from(self.number).unwrap_or(i32::MAX);
        [1.0 - self.beta_1.powi(number), 1.0 - self.beta_2.powi(number)]
    }
}
