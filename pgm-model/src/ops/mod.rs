//! Operations of our own: what Burn composes of many passes over memory, in one pass with a gradient written by hand.
//!
//! In float32 they are fused (the head with its loss also for a weight in half precision), on the CPU by the loops of `flex`, on GPUs by the kernels of `cube`; in any other type, and on
//! backends without either, they are composed of ordinary tensor operations, which is also what the tests compare them
//! with. Callers do not know which.
//!
//! Shapes: B batch, S positions, H hidden, N rows, V vocabulary, h heads, d head width.

#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "fused")]
mod extension;
#[cfg(feature = "flex")]
mod flex;

use burn::nn::Linear;
use burn::tensor::activation::sigmoid;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, module};

use crate::attention::{self, Visibility, split_heads};
use crate::loss;
use crate::rotary::RotaryAngles;

#[cfg(feature = "fused")]
use burn::backend::{Dispatch, DispatchDevice};
#[cfg(feature = "fused")]
use burn::tensor::GradientCheckpointingStrategy;
#[cfg(feature = "fused")]
use extension::FusedOps;

/// `gelu(x) = x sigmoid(GELU[0] x + GELU[1] x^3)`, the tanh form: `2 sqrt(2/pi)` and 0.044715 times it.
const GELU: [f32; 2] = [1.595_769_2, 0.071_354_814];
/// Added to the variance by every norm of the model.
pub(crate) const EPSILON: f32 = 1e-5;

// Whether all of these are float32 on a device with operations of our own.
#[cfg(feature = "fused")]
macro_rules! fused {
    ($first:expr $(, $other:expr)*) => {
        has_fused_operations(&$first.device())
            && [$first.dtype() $(, $other.dtype())*].iter().all(|dtype| *dtype == burn::tensor::DType::F32)
    };
}

#[cfg(feature = "fused")]
fn has_fused_operations(device: &Device) -> bool {
    match device.clone().without_autodiff().as_dispatch() {
        #[cfg(feature = "cube")]
        DispatchDevice::Cube(_) => true,
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[allow(unreachable_patterns)]
        _ => false,
    }
}

/// A linear layer whose weights may be narrower than what it is applied to, see [`weights`](crate::weight_dtype).
///
/// # Shapes
/// `[.., in] -> [.., out]`
pub fn linear<const D: usize>(layer: &Linear, x: Tensor<D>) -> Tensor<D> {
    let (weight, bias) = (layer.weight.val(), layer.bias.as_ref().map(|bias| bias.val()));
    if !is_narrow(weight.dtype()) && !is_flex(&x.device()) {
        return module::linear(x, weight, bias);
    }
    let y = matmul(x, weight);
    match bias {
        Some(bias) => y + bias.unsqueeze::<D>(),
        None => y,
    }
}

pub(crate) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

fn is_narrow(dtype: DType) -> bool {
    is_half(dtype) || matches!(dtype, DType::QFloat(_))
}

/// Whether a device is Flex, with gradients or without: its operations are loops that know labels and narrow weights.
#[allow(unused_variables)] // where Flex is not compiled
pub fn is_flex(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    if device.clone().without_autodiff() == Device::flex() {
        return true;
    }
    false
}

/// The matrix product alone; where the weight is narrower, in its type, and widened again.
///
/// # Shapes
/// `[.., in], [in, out] -> [.., out]`
pub fn matmul<const D: usize>(x: Tensor<D>, weight: Tensor<2>) -> Tensor<D> {
    let dtype = weight.dtype();
    #[cfg(feature = "flex")]
    if x.dtype() == DType::F32 && dtype == DType::F32 && is_flex(&x.device()) {
        return Tensor::from_dispatch(Dispatch::wide_product(x.into_dispatch(), weight.into_dispatch()));
    }
    #[cfg(feature = "flex")]
    if is_narrow(dtype) && is_flex(&x.device()) && !x.device().is_autodiff() {
        let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
        return Tensor::from_dispatch(match is_half(dtype) {
            true => Dispatch::half_product(x, weight),
            false => Dispatch::quantised_product(x, weight, crate::weight_dtype::BLOCK.into()),
        });
    }
    if !is_half(dtype) {
        return module::linear(x, weight, None);
    }
    let (narrow, wide): (FloatDType, FloatDType) = (dtype.into(), x.dtype().into());
    module::linear(x.cast(narrow), weight, None).cast(wide)
}

// Burn's rules for what a backward pass need not keep, for the operations on these tensors alone.
#[cfg(feature = "fused")]
fn passing<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.with_gradient_checkpointing_strategy(GradientCheckpointingStrategy::Balanced)
}

/// [`layer_norm`], which a backward pass makes again instead of keeping it.
///
/// # Shapes
/// `[B, S, H], [H], [H] -> [B, S, H]`
pub fn recomputed_norm(x: Tensor<3>, [weight, bias]: [Tensor<1>; 2]) -> Tensor<3> {
    #[cfg(feature = "fused")]
    if fused!(x, weight, bias)
        && let Some(strategy) = x.device().gradient_checkpointing_strategy()
    {
        let y = layer_norm(passing(x), passing(weight), passing(bias));
        return y.with_gradient_checkpointing_strategy(strategy);
    }
    layer_norm(x, weight, bias)
}

/// [`linear`], which a backward pass makes again instead of keeping it: layers that look at the same x keep no more than
/// x.
///
/// # Shapes
/// `[B, S, in] -> [B, S, out]`
pub fn recomputed_linear(layer: &Linear, x: Tensor<3>) -> Tensor<3> {
    #[cfg(feature = "fused")]
    if fused!(x)
        && let Some(strategy) = x.device().gradient_checkpointing_strategy()
    {
        let (x, weight) = (passing(x).into_dispatch(), passing(layer.weight.val()).into_dispatch());
        let y = Tensor::from_dispatch(Dispatch::transient_product(x, weight));
        let y = match &layer.bias {
            Some(bias) => y + passing(bias.val()).unsqueeze::<3>(),
            None => y,
        };
        return y.with_gradient_checkpointing_strategy(strategy);
    }
    linear(layer, x)
}

/// `gelu(x + bias)` in the tanh form.
///
/// # Shapes
/// `[B, S, H], [H] -> [B, S, H]`
pub fn bias_gelu(x: Tensor<3>, bias: Tensor<1>) -> Tensor<3> {
    #[cfg(feature = "fused")]
    if fused!(x, bias) {
        return Tensor::from_dispatch(Dispatch::bias_gelu(x.into_dispatch(), bias.into_dispatch()));
    }
    let x = x + bias.unsqueeze::<3>();
    let inner = x.clone() * x.clone() * GELU[1] + GELU[0];
    sigmoid(x.clone() * inner) * x
}

/// `(x - mean) / sqrt(variance + 1e-5) * weight + bias` over the last dimension.
///
/// # Shapes
/// `[B, S, H], [H], [H] -> [B, S, H]`
pub fn layer_norm(x: Tensor<3>, weight: Tensor<1>, bias: Tensor<1>) -> Tensor<3> {
    #[cfg(feature = "fused")]
    if fused!(x, weight, bias) {
        let (y, _moments) = Dispatch::affine_norm(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch());
        return Tensor::from_dispatch(y);
    }
    // A half-precision type cannot hold the sums.
    let dtype: FloatDType = x.dtype().into();
    let wide = if dtype == FloatDType::F64 { dtype } else { FloatDType::F32 };
    let [weight, bias] = [weight, bias].map(|vector| vector.cast(wide));
    module::layer_norm(x.cast(wide), weight, Some(bias), f64::from(EPSILON)).cast(dtype)
}

/// `x + branch gate`.
///
/// # Shapes
/// `[B, S, H], [B, S, H], [H] -> [B, S, H]`
pub fn gated_sum(x: Tensor<3>, branch: Tensor<3>, gate: Tensor<1>) -> Tensor<3> {
    #[cfg(feature = "fused")]
    if fused!(x, branch, gate) {
        let (x, branch, gate) = (x.into_dispatch(), branch.into_dispatch(), gate.into_dispatch());
        return Tensor::from_dispatch(Dispatch::gated_sum(x, branch, gate));
    }
    x + branch * gate.unsqueeze::<3>()
}

/// What the fused operations know of attention beside its tensors.
#[cfg(feature = "fused")]
#[derive(Clone, Copy, Debug)]
struct AttentionKind {
    n_heads: usize,
    // Whether a query sees only itself and what comes before it.
    causal: bool,
    // Whether a query sees only the keys of its label; without, what is passed as labels says nothing.
    labelled: bool,
    // What its products are made in, where a device has units for that: the type of the weights around it.
    #[cfg_attr(not(feature = "cube"), allow(dead_code))]
    products: FloatDType,
}

#[cfg(feature = "fused")]
impl AttentionKind {
    fn new(n_heads: usize, visibility: Option<&Visibility>, products: DType) -> Self {
        let products = if is_half(products) { products.into() } else { FloatDType::F32 };
        let causal = visibility.is_some_and(Visibility::is_causal);
        Self { n_heads, causal, labelled: visibility.is_some() && !causal, products }
    }
}

/// Labels `[B, S]` as the attention of their device reads them.
#[cfg(feature = "fused")]
pub(crate) fn sorted_by_label(labels: Tensor<2, Int>) -> Tensor<2, Int> {
    Tensor::from_dispatch(Dispatch::sorted_by_label(labels.into_dispatch()))
}

/// Self-attention: queries, keys and values side by side, of all heads side by side, not yet turned by the angles.
/// `products` is the type that a GPU multiplies in, half precision or not.
///
/// # Shapes
/// `[B, S, 3 H] -> [B, S, H]`
pub fn self_attention(
    qkv: Tensor<3>,
    angles: &RotaryAngles,
    visibility: Option<&Visibility>,
    n_heads: usize,
    products: DType,
) -> Tensor<3> {
    let width = qkv.dims()[2] / 3;
    #[cfg(feature = "fused")]
    if fused!(qkv) {
        let kind = AttentionKind::new(n_heads, visibility, products);
        let [labels, _] = Visibility::sorted_labels(visibility, &qkv.device());
        let (qkv, angles, labels) = (qkv.into_dispatch(), angles.table().into_dispatch(), labels.into_dispatch());
        let (out, _lse) = Dispatch::self_attention(qkv, angles, labels, kind);
        return Tensor::from_dispatch(out);
    }
    let [q, k, v] = [0, 1, 2].map(|index| split_heads(qkv.clone().narrow(2, index * width, width), n_heads));
    attention::attend(angles.rotate(q), angles.rotate(k), v, visibility)
}

/// Cross-attention: keys and values side by side, nothing yet turned by the angles; `products` as above.
///
/// # Shapes
/// queries `[B, Q, H]`, keys and values `[B, C, 2 H] -> [B, Q, H]`
pub fn cross_attention(
    q: Tensor<3>,
    kv: Tensor<3>,
    [query_angles, key_angles]: [&RotaryAngles; 2],
    visibility: Option<&Visibility>,
    n_heads: usize,
    products: DType,
) -> Tensor<3> {
    let width = q.dims()[2];
    #[cfg(feature = "fused")]
    if fused!(q, kv) {
        let kind = AttentionKind::new(n_heads, visibility, products);
        let labels = Visibility::sorted_labels(visibility, &q.device());
        let [q_labels, k_labels] = labels.map(|labels| labels.into_dispatch());
        let [q_angles, k_angles] = [query_angles, key_angles].map(|angles| angles.table().into_dispatch());
        let (q, kv) = (q.into_dispatch(), kv.into_dispatch());
        let (out, _lse) = Dispatch::cross_attention(q, kv, q_angles, k_angles, q_labels, k_labels, kind);
        return Tensor::from_dispatch(out);
    }
    let [k, v] = [0, 1].map(|index| split_heads(kv.clone().narrow(2, index * width, width), n_heads));
    attention::attend(query_angles.rotate(split_heads(q, n_heads)), key_angles.rotate(k), v, visibility)
}

/// Weighted sum of the cross-entropies, in nats, of `x w + b` against the targets, with class `skip` left out; `[1]`. A
/// weight in half precision narrows the products, not the loss.
///
/// # Shapes
/// x `[N, H]`, w `[H, V]`, b `[V]`, targets and weights `[N]`
pub fn linear_cross_entropy(
    x: Tensor<2>,
    w: Tensor<2>,
    b: Tensor<1>,
    targets: Tensor<1, Int>,
    weights: Tensor<1>,
    skip: usize,
) -> Tensor<1> {
    #[cfg(feature = "fused")]
    if fused!(x, b, weights) && (w.dtype() == DType::F32 || is_half(w.dtype())) {
        // Flex gains nothing by narrow products.
        let w = if is_flex(&w.device()) { w.cast(FloatDType::F32) } else { w };
        let (x, w, b) = (x.into_dispatch(), w.into_dispatch(), b.into_dispatch());
        let (targets, weights) = (targets.into_dispatch(), weights.into_dispatch());
        return Tensor::from_dispatch(Dispatch::linear_cross_entropy(x, w, b, targets, weights, skip));
    }
    let logits = matmul(x, w) + b.unsqueeze::<2>();
    let dtype = if is_half(logits.dtype()) { FloatDType::F32 } else { logits.dtype().into() };
    loss::weighted_loss(logits.unsqueeze(), targets.unsqueeze(), weights.cast(dtype).unsqueeze(), skip)
}

/// The numbers of one step of AdamW (arXiv 1711.05101).
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Learning rate.
    pub rate: f32,
    /// Decay of the first moment.
    pub beta_1: f32,
    /// Decay of the second moment.
    pub beta_2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Weight decay, multiplied by the learning rate.
    pub weight_decay: f32,
    /// Number of the step, from 1.
    pub number: usize,
}

impl AdamWStep {
    // What the moments are divided by, as they began at 0.
    fn corrections(&self) -> [f32; 2] {
        let number = i32::try_from(self.number).unwrap_or(i32::MAX);
        [1.0 - self.beta_1.powi(number), 1.0 - self.beta_2.powi(number)]
    }
}

/// A parameter and its two moments after one step; tensors off the graph.
pub fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    [moment_1, moment_2]: [Tensor<D>; 2],
    step: AdamWStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    #[cfg(feature = "fused")]
    if fused!(parameter, gradient, moment_1, moment_2) {
        let (moment_1, moment_2) = (moment_1.into_dispatch(), moment_2.into_dispatch());
        let (parameter, moment_1, moment_2) =
            Dispatch::adamw(parameter.into_dispatch(), gradient.into_dispatch(), moment_1, moment_2, step);
        let [parameter, moment_1, moment_2] = [parameter, moment_1, moment_2].map(Tensor::from_dispatch);
        return (parameter, [moment_1, moment_2]);
    }
    let moment_1 = moment_1 * step.beta_1 + gradient.clone() * (1.0 - step.beta_1);
    let moment_2 = moment_2 * step.beta_2 + gradient.square() * (1.0 - step.beta_2);
    let [correction_1, correction_2] = step.corrections();
    let update = (moment_1.clone() / correction_1) / ((moment_2.clone() / correction_2).sqrt() + step.epsilon);
    (parameter * (1.0 - step.rate * step.weight_decay) - update * step.rate, [moment_1, moment_2])
}

/// The sum of squares of a tensor off the graph, `[1]`.
pub fn sum_of_squares<const D: usize>(x: Tensor<D>) -> Tensor<1> {
    #[cfg(feature = "fused")]
    if fused!(x) {
        return Tensor::from_dispatch(Dispatch::sum_of_squares(x.into_dispatch()));
    }
    x.square().sum()
}

/// A tensor off the graph times one number `[1]`.
pub fn scale<const D: usize>(x: Tensor<D>, factor: Tensor<1>) -> Tensor<D> {
    #[cfg(feature = "fused")]
    if fused!(x, factor) {
        return Tensor::from_dispatch(Dispatch::scaled(x.into_dispatch(), factor.into_dispatch()));
    }
    x * factor.unsqueeze::<D>()
}

/// `x + (y - x) share`, off the graph.
pub fn lerp<const D: usize>(x: Tensor<D>, y: Tensor<D>, share: f64) -> Tensor<D> {
    #[cfg(feature = "fused")]
    if fused!(x, y) {
        return Tensor::from_dispatch(Dispatch::moved(x.into_dispatch(), y.into_dispatch(), share as f32));
    }
    x.clone() + (y - x) * share
}

#[cfg(all(test, feature = "flex"))]
#[allow(clippy::print_stdout)] // the differences found, for who asks with --nocapture
mod tests {
    use burn::module::{Param, ParamId};
    use burn::tensor::TensorData;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::rotary::AngleTables;
    use crate::sequence::Positions;

    const HEADS: usize = 3;

    // The devices whose operations are compared with composed ones: Flex, and a GPU if there is one.
    fn devices() -> Vec<Device> {
        vec![
            Device::flex().autodiff(),
            #[cfg(feature = "wgpu")]
            Device::wgpu(burn::tensor::DeviceKind::DefaultDevice).autodiff(),
            #[cfg(feature = "cuda")]
            Device::cuda(0).autodiff(),
        ]
    }

    // How far float32 may be from float64: products of float32 are tf32 on CUDA, with ten bits of fraction.
    fn most(device: &Device, has_products: bool) -> f64 {
        if has_products && format!("{device:?}").contains("Cuda") { 3e-3 } else { 3e-6 }
    }

    // Values of inputs, each with its shape; drawn once, given to each device in float32, which is fused, and to Flex in
    // float64, which is composed.
    struct Case {
        inputs: Vec<(Vec<f64>, Vec<usize>)>,
        upstream: Vec<f64>,
    }

    type Operation<'a> = &'a dyn Fn(&Device, Vec<Tensor<1>>) -> Tensor<1>;

    impl Case {
        fn new(seed: u64, shapes: &[&[usize]], n_outputs: usize) -> Self {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut draw = |n: usize| (0..n).map(|_| f64::from(rng.random_range(-2.0_f32..2.0))).collect::<Vec<_>>();
            let inputs = shapes.iter().map(|shape| (draw(shape.iter().product()), shape.to_vec())).collect();
            Self { inputs, upstream: draw(n_outputs) }
        }

        // The output and the gradients of all inputs, in one list each.
        fn run(&self, device: &Device, dtype: FloatDType, f: Operation<'_>) -> Vec<Vec<f64>> {
            let tensor = |values: &[f64]| floats(values, dtype, device);
            let inputs: Vec<_> = self.inputs.iter().map(|(values, _)| tensor(values).require_grad()).collect();
            let out = f(device, inputs.clone());
            let gradients = (out.clone().cast(dtype) * tensor(&self.upstream)).sum().backward();
            let of = |tensor: Tensor<1>| tensor.into_data().iter::<f64>().collect::<Vec<f64>>();
            let gradients = inputs.iter().map(|input| of(input.grad(&gradients).expect("every input counts")));
            std::iter::once(of(out.inner())).chain(gradients).collect()
        }

        fn check(&self, what: &str, f: Operation<'_>) {
            self.check_within(what, false, f);
        }

        fn check_products(&self, what: &str, f: Operation<'_>) {
            self.check_within(what, true, f);
        }

        fn check_within(&self, what: &str, has_products: bool, f: Operation<'_>) {
            let composed = self.composed(f);
            for device in devices() {
                let most = most(&device, has_products);
                compare(what, &device, &self.run(&device, FloatDType::F32, f), &composed, most);
            }
        }

        // What composed operations give in float64, whose gradients agree with differences of their values.
        fn composed(&self, f: Operation<'_>) -> Vec<Vec<f64>> {
            const STEP: f64 = 1e-5;
            let run = |case: &Self| case.run(&Device::flex().autodiff(), FloatDType::F64, f);
            let composed = run(self);
            let mut rng = StdRng::seed_from_u64(21);
            for (index, gradient) in composed[1..].iter().enumerate() {
                let direction: Vec<f64> = gradient.iter().map(|_| rng.random_range(-1.0..1.0)).collect();
                let at = |step: f64| {
                    let mut inputs = self.inputs.clone();
                    inputs[index].0.iter_mut().zip(&direction).for_each(|(value, along)| *value += step * along);
                    let moved = run(&Self { inputs, upstream: self.upstream.clone() });
                    dot(&moved[0], &self.upstream)
                };
                let (slope, expected) = ((at(STEP) - at(-STEP)) / (2.0 * STEP), dot(gradient, &direction));
                assert!((slope - expected).abs() < 1e-6 * expected.abs().max(1.0), "{index}: {slope} {expected}");
            }
            composed
        }
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    fn compare(what: &str, device: &Device, fused: &[Vec<f64>], composed: &[Vec<f64>], most: f64) {
        let kind = if device.clone().without_autodiff() == Device::flex() { "Flex" } else { "Cube" };
        for (index, (fused, composed)) in fused.iter().zip(composed).enumerate() {
            let largest = composed.iter().fold(1.0_f64, |largest, value| largest.max(value.abs()));
            let worst = fused.iter().zip(composed).map(|(a, b)| (a - b).abs() / largest).fold(0.0, f64::max);
            println!("{kind}, {what}, {}: {worst:.1e}", if index == 0 { "value" } else { "gradient" });
            assert_eq!(fused.len(), composed.len(), "{what}, {index}");
            assert!(fused.iter().all(|value| value.is_finite()), "{kind}, {what}, {index}: not finite");
            assert!(worst < most, "{kind}, {what}, {index}: {worst:e}");
        }
    }

    fn floats(values: &[f64], dtype: FloatDType, device: &Device) -> Tensor<1> {
        let options = (device, DType::from(dtype));
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), options)
    }

    fn flat(x: Tensor<3>) -> Tensor<1> {
        let n = x.shape().num_elements();
        x.reshape([n])
    }

    fn angles(n_rows: usize, n_tokens: usize, width: usize, seed: u64, device: &Device) -> RotaryAngles {
        let mut rng = StdRng::seed_from_u64(seed);
        let rows: Vec<Vec<usize>> =
            (0..n_rows).map(|_| (0..n_tokens).map(|_| rng.random_range(0..40)).collect()).collect();
        RotaryAngles::new(&AngleTables::new(width, 40), &Positions::new(&rows, &device.clone().without_autodiff()))
    }

    fn labels(rows: &[&[i32]], device: &Device) -> Tensor<2, Int> {
        let values: Vec<i32> = rows.concat();
        Tensor::from_data(TensorData::new(values, [rows.len(), rows[0].len()]), device)
    }

    #[test]
    fn elementwise_operations_equal_what_they_replace() {
        for [b, s, h] in [[1, 1, 1], [2, 3, 5], [3, 41, 67], [1, 130, 256]] {
            let shape = [b, s, h];
            let n = b * s * h;
            Case::new(1, &[&shape, &[h]], n)
                .check("gelu", &|_, x| flat(bias_gelu(x[0].clone().reshape(shape), x[1].clone())));
            if h > 1 {
                Case::new(2, &[&shape, &[h], &[h]], n)
                    .check("norm", &|_, x| flat(layer_norm(x[0].clone().reshape(shape), x[1].clone(), x[2].clone())));
            }
            Case::new(3, &[&shape, &shape, &[h]], n).check("gated sum", &|_, x| {
                flat(gated_sum(x[0].clone().reshape(shape), x[1].clone().reshape(shape), x[2].clone()))
            });
        }
    }

    #[test]
    fn products_equal_what_they_replace() {
        for [b, s, inputs, outputs] in [[1, 1, 1, 1], [2, 3, 5, 40], [3, 41, 67, 130], [1, 130, 300, 64]] {
            let case = Case::new(4, &[&[b, s, inputs], &[inputs, outputs]], b * s * outputs);
            case.check_products("product", &|_, x| {
                let [input, weight] = [x[0].clone(), x[1].clone()];
                flat(matmul(input.reshape([b, s, inputs]), weight.reshape([inputs, outputs])))
            });
        }
    }

    #[test]
    fn what_a_backward_pass_makes_again_is_what_it_would_have_kept() {
        for [b, s, inputs, outputs] in [[1, 1, 2, 3], [2, 41, 67, 130]] {
            let shapes: [&[usize]; 5] = [&[b, s, inputs], &[inputs], &[inputs], &[inputs, outputs], &[outputs]];
            let run = |narrow: Option<FloatDType>, normed: bool| {
                move |_: &Device, x: Vec<Tensor<1>>| {
                    let [input, weight, bias, layer, layer_bias] = std::array::from_fn(|index| x[index].clone());
                    let layer = layer.reshape([inputs, outputs]);
                    let layer = narrow.map_or(layer.clone(), |dtype| layer.cast(dtype));
                    let layer = Linear {
                        weight: Param::initialized(ParamId::new(), layer),
                        bias: Some(Param::initialized(ParamId::new(), layer_bias)),
                    };
                    // All inputs have a gradient, if 0.
                    let unused = (weight.clone().sum() + bias.clone().sum()) * 0.0;
                    let input = input.reshape([b, s, inputs]);
                    let input = if normed { recomputed_norm(input, [weight, bias]) } else { input };
                    let y = recomputed_linear(&layer, input);
                    // The square's gradient asks for it.
                    flat(y.clone() * y) + unused
                }
            };
            let case = Case::new(17, &shapes, b * s * outputs);
            case.check_products("made again, with a norm", &run(None, true));
            case.check_products("made again", &run(None, false));
            let composed = case.composed(&run(None, true));
            for (device, dtype) in devices().into_iter().flat_map(|d| HALF.map(|dtype| (d.clone(), dtype))) {
                if device.supports_dtype(DType::from(dtype)) {
                    let narrow = case.run(&device, FloatDType::F32, &run(Some(dtype), true));
                    compare(&format!("made again, {dtype:?}"), &device, &narrow, &composed, 2e-2);
                }
            }
        }
    }

    const HALF: [FloatDType; 2] = [FloatDType::BF16, FloatDType::F16];

    #[test]
    fn attention_within_groups_equals_masked_attention() {
        // A mixed row, a row of one group, and lengths around the piece that is held at a time.
        let mixed: Vec<i32> = (0..131).map(|i| i32::from(i * 7 % 5 < 2)).collect();
        let (none, one): (Vec<i32>, Vec<i32>) = (vec![0; 131], (0..131).map(|i| i32::from(i == 60)).collect());
        // The wider heads are those that matrix units take.
        for (n_tokens, head_width) in [1, 7, 64, 131].into_iter().flat_map(|n| [4, 32, 64].map(|width| (n, width))) {
            let (shape, width) = ([3, n_tokens, 3 * HEADS * head_width], HEADS * head_width);
            for rule in ["all", "groups", "causal"] {
                let case = Case::new(6, &[&shape], 3 * n_tokens * width);
                case.check_products(&format!("self-attention, {n_tokens} x {head_width}, {rule}"), &|device, x| {
                    let visibility = match rule {
                        "groups" => {
                            let all = labels(&[&mixed, &none, &one], device);
                            Some(Visibility::within(all.narrow(1, 0, n_tokens)))
                        }
                        "causal" => Some(Visibility::causal(n_tokens, n_tokens, device)),
                        _ => None,
                    };
                    let angles = angles(3, n_tokens, head_width, 5, device);
                    flat(self_attention(x[0].clone().reshape(shape), &angles, visibility.as_ref(), HEADS, DType::F32))
                });
            }
        }
    }

    #[test]
    fn attention_across_groups_equals_masked_attention_and_gives_zero_where_nothing_is_seen() {
        for head_width in [6, 32, 64] {
            attention_across_groups(head_width);
        }
    }

    fn attention_across_groups(head_width: usize) {
        let (n_queries, n_keys, width) = (70, 9, HEADS * head_width);
        let some: Vec<i32> = (0..70).map(|i| i % 2).collect();
        let (zeros, nobody) = (vec![0; 9], vec![7; 9]);
        let shapes = [[3, n_queries, width], [3, n_keys, 2 * width]];
        let run = |device: &Device, q: Tensor<3>, kv: Tensor<1>, rows: usize, groups: bool| {
            let keys = labels(&[&[0, 1, 1, 0, 0, 1, 0, 0, 9], &zeros, &nobody], device);
            let visibility = Visibility::across(labels(&[&some, &some, &some], device), keys);
            let [query_angles, key_angles] =
                [(n_queries, 7), (n_keys, 8)].map(|(n, seed)| angles(rows, n, head_width, seed, device));
            let (angles, visibility) = ([&query_angles, &key_angles], groups.then_some(&visibility));
            flat(cross_attention(q, kv.reshape(shapes[1]), angles, visibility, HEADS, DType::F32))
        };
        let of_all = |device: &Device, x: Vec<Tensor<1>>, groups: bool| {
            run(device, x[0].clone().reshape(shapes[0]), x[1].clone(), 3, groups)
        };
        let case = Case::new(9, &[&shapes[0], &shapes[1]], 3 * n_queries * width);
        case.check_products("cross-attention, groups", &|device, x| of_all(device, x, true));
        case.check_products("cross-attention, all", &|device, x| of_all(device, x, false));
        // As in training: queries and angles that all rows share.
        let shared = [1, n_queries, width];
        let case_of_one = Case::new(14, &[&shared, &shapes[1]], 3 * n_queries * width);
        case_of_one.check_products("cross-attention, queries of one row", &|device, x| {
            run(device, x[0].clone().reshape(shared).expand(shapes[0]), x[1].clone(), 1, true)
        });
        for device in devices() {
            let found = case.run(&device, FloatDType::F32, &|device, x| of_all(device, x, true));
            let last = |values: &Vec<f64>| values[values.len() / 3 * 2..].iter().all(|value| *value == 0.0);
            assert!(found.iter().all(last), "the last row sees nothing");
        }
    }

    // As with `precision = "bf16"` or `--dtype f16`; where no unit multiplies in half precision, it is float32.
    #[test]
    fn attention_in_half_precision_is_that_of_float32() {
        for (head_width, dtype) in [32, 64].into_iter().flat_map(|width| [DType::BF16, DType::F16].map(|d| (width, d)))
        {
            let (shape, width) = ([2, 150, 3 * HEADS * head_width], HEADS * head_width);
            let mixed: Vec<i32> = (0..150).map(|i| i32::from(i * 7 % 5 < 2)).collect();
            let attention = |products: DType| {
                let mixed = mixed.clone();
                move |device: &Device, x: Vec<Tensor<1>>| {
                    let visibility = Visibility::within(labels(&[&mixed, &mixed], device));
                    let angles = angles(2, 150, head_width, 5, device);
                    flat(self_attention(x[0].clone().reshape(shape), &angles, Some(&visibility), HEADS, products))
                }
            };
            let case = Case::new(15, &[&shape], 2 * 150 * width);
            let composed = case.composed(&attention(DType::F32));
            for device in devices() {
                let narrow = case.run(&device, FloatDType::F32, &attention(dtype));
                compare(&format!("self-attention, {dtype:?}"), &device, &narrow, &composed, 3e-2);
            }
        }
    }

    #[test]
    fn the_head_with_its_loss_equals_the_logits_loss() {
        for [n, h, v] in [[1, 1, 2], [5, 3, 70], [67, 20, 513]] {
            let mut rng = StdRng::seed_from_u64(10);
            let (mut targets, mut weights) = (Vec::new(), Vec::new());
            for row in 0..n {
                targets.push(rng.random_range(0..v as i32 - 1));
                weights.push(if row % 5 == 3 { 0.0 } else { rng.random_range(0.01..9.0_f64) });
            }
            let case = Case::new(11, &[&[n, h], &[h, v], &[v]], 1);
            case.check_products(&format!("head {n} {h} {v}"), &|device, x| {
                let targets = Tensor::<1, Int>::from_data(TensorData::new(targets.clone(), [n]), device);
                let (w, dtype): (_, FloatDType) = (x[1].clone().reshape([h, v]), x[0].dtype().into());
                let weights = floats(&weights, dtype, device);
                linear_cross_entropy(x[0].clone().reshape([n, h]), w, x[2].clone(), targets, weights, v - 1)
            });
        }
    }

    // As training in `precision = "bf16"` calls it; WGSL knows no bfloat16.
    #[test]
    fn a_head_with_a_narrow_weight_has_the_loss_of_a_wide_one() {
        let [n, h, v] = [70, 33, 301];
        let (targets, weights) = (vec![7_i32; n], vec![0.5; n]);
        let case = Case::new(13, &[&[n, h], &[h, v], &[v]], 1);
        let head = |narrow: Option<FloatDType>| {
            let (targets, weights) = (targets.clone(), weights.clone());
            move |device: &Device, x: Vec<Tensor<1>>| {
                let targets = Tensor::<1, Int>::from_data(TensorData::new(targets.clone(), [n]), device);
                let w = x[1].clone().reshape([h, v]);
                let w = narrow.map_or(w.clone(), |dtype| w.cast(dtype));
                let weights = floats(&weights, x[0].dtype().into(), device);
                linear_cross_entropy(x[0].clone().reshape([n, h]), w, x[2].clone(), targets, weights, v - 1)
            }
        };
        let composed = case.composed(&head(None));
        for device in devices() {
            for dtype in HALF {
                if device.supports_dtype(DType::from(dtype)) {
                    let narrow = case.run(&device, FloatDType::F32, &head(Some(dtype)));
                    compare(&format!("head, {dtype:?}"), &device, &narrow, &composed, 2e-2);
                }
            }
        }
    }

    #[test]
    fn what_the_optimiser_does_equals_what_it_replaces() {
        let case = Case::new(12, &[&[70_001], &[70_001], &[70_001], &[70_001]], 1);
        let run = |device: &Device, dtype| {
            let device = device.clone().without_autodiff();
            let [parameter, gradient, first, second] =
                [0, 1, 2, 3].map(|index: usize| floats(&case.inputs[index].0, dtype, &device));
            let second = second.square();
            let kept = parameter.clone();
            let (after, [first, second]) = adamw(parameter, gradient.clone(), [first, second], STEP);
            let factor = floats(&[0.3], dtype, &device);
            let moved = lerp(after.clone(), gradient.clone(), 0.25);
            let all = [after, first, second, sum_of_squares(gradient.clone()), scale(gradient, factor), moved, kept];
            all.map(numbers)
        };
        let composed = run(&Device::flex(), FloatDType::F64);
        for device in devices() {
            compare("optimiser", &device, &run(&device, FloatDType::F32), &composed, most(&device, false));
        }
    }

    const STEP: AdamWStep =
        AdamWStep { rate: 0.1, beta_1: 0.9, beta_2: 0.99, epsilon: 1e-8, weight_decay: 0.02, number: 3 };

    fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f64> {
        x.into_data().iter::<f64>().collect()
    }

    // Matrices as CUDA lays them out have gaps behind their rows, and a gradient may be a transposed product.
    #[test]
    fn the_optimiser_takes_matrices_however_they_stand() {
        // Views of the wider ones stay where they are, in the middle of somebody else's memory.
        let kinds = ["alike", "gradient turned", "views of columns", "views of rows"];
        for (columns, kind) in [301, 384].into_iter().flat_map(|columns| kinds.map(|kind| (columns, kind))) {
            let rows = 37;
            let case = Case::new(16, &[&[2 * rows * columns], &[2 * rows * columns], &[2 * rows * columns]], 1);
            let run = |device: &Device, dtype| {
                let device = device.clone().without_autodiff();
                let matrix = |index: usize| {
                    let all = floats(&case.inputs[index].0, dtype, &device);
                    match kind {
                        "views of columns" => all.reshape([rows, 2 * columns]).narrow(1, columns, columns),
                        "views of rows" => all.reshape([2 * rows, columns]).narrow(0, rows, rows),
                        "gradient turned" if index == 1 => {
                            all.reshape([2 * columns, rows]).narrow(0, 0, columns).swap_dims(0, 1)
                        }
                        _ => all.narrow(0, 0, rows * columns).reshape([rows, columns]),
                    }
                };
                let [parameter, gradient, first] = [0, 1, 2].map(matrix);
                let (second, kept) = (matrix(2).square(), matrix(0));
                let (after, [first, second]) = adamw(parameter, gradient, [first, second], STEP);
                [after, first, second, kept].map(numbers)
            };
            let composed = run(&Device::flex(), FloatDType::F64);
            for device in devices() {
                let found = run(&device, FloatDType::F32);
                compare(&format!("optimiser, {kind}"), &device, &found, &composed, most(&device, false));
            }
        }
    }
}
