//! Clipping of gradients by their global norm.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;
use pgm_model::ops;

/// Scales all gradients so that their global norm is at most `limit` (0: no limit), as PyTorch's `clip_grad_norm_`.
/// Returns the norm before clipping, `[1]`, on the device.
pub(crate) fn clip_global_norm(gradients: &mut GradientsParams, module: &impl Module, limit: f64) -> Tensor<1> {
    let norm = global_norm(gradients, module);
    clip_to(gradients, module, limit, &norm);
    norm
}

/// The global norm of all gradients, `[1]`, on the device.
pub(crate) fn global_norm(gradients: &GradientsParams, module: &impl Module) -> Tensor<1> {
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
    let mut squares = SumOfSquares { gradients, sum: None };
    module.visit(&mut squares);
    squares.sum.expect("a model has gradients").sqrt()
}

/// Scales all gradients, whose global norm is `norm`, so that it is at most `limit` (0: no limit).
pub(crate) fn clip_to(gradients: &mut GradientsParams, module: &impl Module, limit: f64, norm: &Tensor<1>) {
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
    if limit > 0.0 {
        let factor = ((norm.clone() + 1e-6).recip() * limit).clamp_max(1.0);
        module.visit(&mut Scale { gradients, factor });
    }
}

/// The global norm of a module's weights, `[1]`, on the device.
pub(crate) fn weight_norm(module: &impl Module) -> Tensor<1> {
    struct SumOfSquares(Option<Tensor<1>>);
    impl ModuleVisitor for SumOfSquares {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let square = ops::sum_of_squares(param.val());
            self.0 = Some(match self.0.take() {
                Some(sum) => sum + square,
                None => square,
            });
        }
    }
    let mut squares = SumOfSquares(None);
    module.visit(&mut squares);
    squares.0.expect("a model has weights").sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::ParamId;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

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
    fn the_norm_of_weights_shows_a_weight_that_is_not_finite() {
        let device = Device::flex();
        let layer = layer(&device);
        let norm = |layer: &Linear| weight_norm(layer).into_scalar::<f32>();
        assert!((norm(&layer) - 30.0_f32.sqrt()).abs() < 1e-5);
        let mut broken = layer;
        broken.weight = broken.weight.map(|weight| weight * f32::INFINITY);
        assert!(!norm(&broken).is_finite());
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
}
