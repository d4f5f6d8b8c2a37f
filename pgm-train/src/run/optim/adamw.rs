//! AdamW in one pass over parameter, gradient and moments, where Burn's AdamW takes a dozen. The state is that of Burn's
//! AdamW, so each reads the records of the other.

use burn::optim::{AdamWState, AdaptiveMomentumState, LearningRate, ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Tensor};
use pgm_model::ops::{self, AdamWStep};

use crate::config::OptimSection;

/// AdamW (arXiv 1711.05101).
#[derive(Clone)]
pub(crate) struct AdamW {
    beta_1: f32,
    beta_2: f32,
    epsilon: f32,
    weight_decay: f32,
}

impl AdamW {
    /// The optimiser of a configuration.
    pub(crate) fn from_config(optim: &OptimSection) -> ModuleOptimizer {
        ModuleOptimizer::from(Self {
            beta_1: optim.beta1 as f32,
            beta_2: optim.beta2 as f32,
            epsilon: optim.eps as f32,
            weight_decay: optim.weight_decay as f32,
        })
    }
}

impl Optimizer for AdamW {
    type State<const D: usize> = AdamWState<D>;

    fn step<const D: usize>(
        &self,
        rate: LearningRate,
        parameter: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let (moments, before) = match state {
            Some(AdamWState { momentum: AdaptiveMomentumState { time, moment_1, moment_2, .. } }) => {
                ([moment_1, moment_2], time)
            }
            None => ([gradient.zeros_like(), gradient.zeros_like()], 0),
        };
        let step = AdamWStep {
            rate: rate as f32,
            beta_1: self.beta_1,
            beta_2: self.beta_2,
            epsilon: self.epsilon,
            weight_decay: self.weight_decay,
            number: before + 1,
        };
        let (parameter, [moment_1, moment_2]) = ops::adamw(parameter, gradient, moments, step);
        (parameter, Some(AdamWState::new(AdaptiveMomentumState::new(step.number, moment_1, moment_2))))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        let AdaptiveMomentumState { time, moment_1, moment_2, .. } = state.momentum;
        AdamWState::new(AdaptiveMomentumState::new(time, moment_1.to_device(device), moment_2.to_device(device)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::{Module, ModuleVisitor, Param};
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::{AdamWConfig, GradientsParams};

    #[test]
    fn it_takes_the_steps_of_burns_adamw() {
        let device = Device::flex().autodiff();
        let optim = OptimSection { lr: 1e-2, weight_decay: 0.3, ..OptimSection::default() };
        let theirs = AdamWConfig::new()
            .with_beta_1(optim.beta1 as f32)
            .with_beta_2(optim.beta2 as f32)
            .with_epsilon(optim.eps as f32)
            .with_weight_decay(optim.weight_decay as f32)
            .init();
        let start: Linear = LinearConfig::new(70, 33).init(&device);
        let train = |mut optimiser: ModuleOptimizer| {
            let mut layer = start.clone();
            for step in 1..=20 {
                let x = Tensor::<2>::ones([3, 70], &device) * (step as f32 * 0.1);
                let loss = layer.forward(x).square().sum();
                let gradients = GradientsParams::from_grads(loss.backward(), &layer);
                layer = optimiser.step(optim.lr, layer, gradients);
                // Each reads the record of the other.
                let record = optimiser.to_record();
                optimiser = optimiser.load_record(record);
            }
            struct Values(Vec<f32>);
            impl ModuleVisitor for Values {
                fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                    self.0.extend(param.val().into_data().iter::<f32>());
                }
            }
            let mut values = Values(Vec::new());
            layer.visit(&mut values);
            values.0
        };
        let (ours, theirs) = (train(AdamW::from_config(&optim)), train(theirs));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!((ours - theirs).abs() < 2e-6, "{ours} against {theirs}");
        }
    }
}
