//! The exponential moving average of the weights.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::Tensor;
use burn::tensor::container::TensorContainer;
use pgm_model::ops;

/// The decay at the n-th update (from 1): `min(decay, (1 + n) / (10 + n))`.
pub(crate) fn ema_decay(decay: f64, n: usize) -> f64 {
    decay.min((1 + n) as f64 / (10 + n) as f64)
}

/// Moves `average` towards `current`; both are without autodiff.
pub(crate) fn update_average<M: Module>(average: M, current: &M, decay: f64) -> M {
    struct Collect(TensorContainer<ParamId>);
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.register(param.id, param.val());
        }
    }
    struct Move<'a> {
        current: &'a TensorContainer<ParamId>,
        decay: f64,
    }
    impl ModuleMapper for Move<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let current: Tensor<D> = self.current.get(&param.id).expect("both have the same parameters");
            param.map(|average| ops::lerp(average, current, 1.0 - self.decay))
        }
    }
    let mut collect = Collect(TensorContainer::new());
    current.visit(&mut collect);
    average.map(&mut Move { current: &collect.0, decay })
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    #[test]
    fn the_average_moves_by_the_decay_and_warms_up() {
        let device = Device::flex();
        let weight = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0]], &device);
        let mut average: Linear = LinearConfig::new(2, 2).init(&device);
        average.weight = average.weight.map(|_| weight.clone());
        let mut current = average.clone();
        current.weight = current.weight.map(|weight| weight + 8.0);
        let moved = update_average(average, &current, 0.75);
        moved.weight.val().into_data().assert_eq(&(weight + 2.0).into_data(), false);
        assert_eq!(ema_decay(0.9999, 1), 2.0 / 11.0);
        assert_eq!(ema_decay(0.5, 100), 0.5);
    }
}
