//! What happens to gradients and weights around an optimiser step: global-norm clipping and the moving average.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use burn::tensor::container::TensorContainer;
use pgm_model::ops;

/// Scales all gradients so that their global norm is at most `limit` (0: no limit). Returns the norm before, `[1]`,
/// which stays on the device.
pub(crate) fn clip_global_norm(gradients: &mut GradientsParams, module: &impl Module, limit: f64) -> Tensor<1> {
    struct SumOfSquares<'a> {
        gradients: &'a GradientsParams,
        sum: Option<Tensor<1>>,
    }
    impl ModuleVisitor for SumOfSquares<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.gradients.get::<D>(param.id) {
                let square = ops::sum_of_squares(gradient);
                self.sum = Some(match self.sum.take() {
                    Some(sum) => sum + square,
                    None => square,
                });
            }
        }
    }
    struct Scale<'a> {
        gradients: &'a mut GradientsParams,
        factor: Tensor<1>,
    }
    impl ModuleVisitor for Scale<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.gradients.remove::<D>(param.id) {
                self.gradients.register::<D>(param.id, ops::scale(gradient, self.factor.clone()));
            }
        }
    }
    let mut squares = SumOfSquares { gradients, sum: None };
    module.visit(&mut squares);
    let norm = squares.sum.expect("a model has gradients").sqrt();
    if limit > 0.0 {
        // As PyTorch's clip_grad_norm_.
        let factor = ((norm.clone() + 1e-6).recip() * limit).clamp_max(1.0);
        module.visit(&mut Scale { gradients, factor });
    }
    norm
}

/// The decay at the n-th update (from 1): `min(decay, (1 + n) / (10 + n))`.
pub(crate) fn ema_decay(decay: f64, n: usize) -> f64 {
    decay.min((1 + n) as f64 / (10 + n) as f64)
}

/// Moves `average` towards `current` (on the plain device both).
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
    use burn::optim::GradientsParams;
    use burn::tensor::{Device, TensorData};

    fn layer(device: &Device) -> Linear {
        let mut layer = LinearConfig::new(2, 2).init(device);
        let weight = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0]], device);
        layer.weight = Param::initialized(ParamId::new(), weight).set_require_grad(true);
        layer.bias = Some(Param::initialized(ParamId::new(), Tensor::zeros([2], device)).set_require_grad(true));
        layer
    }

    fn gradients(layer: &Linear, device: &Device) -> GradientsParams {
        let x = Tensor::<2>::from_data([[3.0, 0.0]], device);
        GradientsParams::from_grads(layer.forward(x).sum().backward(), layer)
    }

    #[test]
    fn clipping_scales_all_gradients_by_one_factor() {
        let device = Device::flex().autodiff();
        let layer = layer(&device);
        // Weight gradients 3, 3, 0, 0 and bias gradients 1, 1: norm sqrt(20).
        for (limit, factor) in [(0.0, 1.0), (10.0, 1.0), (1.0, 1.0 / 20.0_f32.sqrt())] {
            let mut gradients = gradients(&layer, &device);
            let norm = clip_global_norm(&mut gradients, &layer, limit).into_scalar::<f32>();
            assert!((norm - 20.0_f32.sqrt()).abs() < 1e-5);
            let weight = gradients.get::<2>(layer.weight.id).unwrap().try_into_vec_as::<f32>().unwrap();
            let bias = gradients.get::<1>(layer.bias.as_ref().unwrap().id).unwrap().try_into_vec_as::<f32>().unwrap();
            for (found, expected) in weight.iter().chain(&bias).zip([3.0, 3.0, 0.0, 0.0, 1.0, 1.0]) {
                assert!((found - expected * factor).abs() < 1e-5, "{found}");
            }
        }
    }

    #[test]
    fn the_average_moves_by_the_decay_and_warms_up() {
        let device = Device::flex();
        let (average, current) = (layer(&device), layer(&device));
        let mut moved = current.clone();
        moved.weight = moved.weight.map(|weight| weight + 8.0);
        let mut average = Linear { weight: moved.weight.clone().map(|weight| weight - 8.0), ..average };
        average.bias = moved.bias.clone();
        let average = update_average(average, &moved, 0.75);
        let expected = TensorData::from([[3.0_f32, 4.0], [5.0, 6.0]]);
        average.weight.val().into_data().assert_eq(&expected, false);
        assert_eq!(ema_decay(0.9999, 1), 2.0 / 11.0);
        assert_eq!(ema_decay(0.5, 100), 0.5);
    }
}
