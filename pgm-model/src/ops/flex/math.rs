//! Loops over slices of float32 that become SIMD instructions: nothing in them calls libm.
//!
//! Each loop is written once and compiled for AVX-512, for AVX2 and for the target's baseline; the processor decides at
//! run time.

use burn::tensor::{bf16, f16};

use super::{AdamWStep, GELU};

// Without the instruction a fused multiply-add is a slow library call, so the bodies are told whether they have it.
const BASELINE_HAS_FMA: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

macro_rules! for_each_instruction_set {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? = $body:ident;)*) => {$(
        $(#[$doc])*
        pub(super) fn $name($($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512($($argument: $type),*) $(-> $result)? { $body::<true>($($argument),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $type),*) $(-> $result)? { $body::<true>($($argument),*) }

                if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq") && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the processor has the instructions.
                    return unsafe { avx512($($argument),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the processor has the instructions.
                    return unsafe { avx2($($argument),*) };
                }
            }
            $body::<BASELINE_HAS_FMA>($($argument),*)
        }
    )*};
}

for_each_instruction_set! {
    /// `out = gelu(x + bias)`, one row.
    fn bias_gelu(x: &[f32], bias: &[f32], out: &mut [f32]) = bias_gelu_body;
    /// `out = grad gelu'(x + bias)`, one row, and its addition to `bias_grad`.
    fn bias_gelu_grad(x: &[f32], bias: &[f32], grad: &[f32], out: &mut [f32], bias_grad: &mut [f32])
        = bias_gelu_grad_body;
    /// `out = normalised x * weight + bias`, one row; mean and reciprocal deviation.
    fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) -> [f32; 2] = layer_norm_body;
    /// The gradient of one row, and additions to those of weight and bias.
    fn layer_norm_grad(
        x: &[f32], weight: &[f32], moments: [f32; 2], grad: &[f32], out: &mut [f32],
        weight_grad: &mut [f32], bias_grad: &mut [f32]
    ) = layer_norm_grad_body;
    /// `out = x + branch gate`, one row.
    fn gated_sum(x: &[f32], branch: &[f32], gate: &[f32], out: &mut [f32]) = gated_sum_body;
    /// `out = grad gate`, one row, and the addition of `grad branch` to the gate's gradient.
    fn gated_sum_grad(branch: &[f32], gate: &[f32], grad: &[f32], out: &mut [f32], gate_grad: &mut [f32])
        = gated_sum_grad_body;
    /// Half-precision numbers as float32.
    fn widen_f16(x: &[f16], out: &mut [f32]) = widen_f16_body;
    /// Half-precision numbers as float32.
    fn widen_bf16(x: &[bf16], out: &mut [f32]) = widen_bf16_body;
    /// `out = x scale`.
    fn widen_i8(x: &[i8], scale: &[f32], out: &mut [f32]) = widen_i8_body;
    /// The largest of `values + bias`.
    fn max_with_bias(values: &[f32], bias: &[f32]) -> f32 = max_with_bias_body;
    /// `values = exp(values + bias - shift)`; their sum.
    fn exp_with_bias(values: &mut [f32], bias: &[f32], shift: f32) -> f32 = exp_with_bias_body;
    /// `values *= scale`, and their addition to `sums`.
    fn scale_and_add(values: &mut [f32], scale: f32, sums: &mut [f32]) = scale_and_add_body;
    /// The largest value.
    fn max(values: &[f32]) -> f32 = max_body;
    /// `values = exp(values - shift)`; their sum.
    fn exp(values: &mut [f32], shift: f32) -> f32 = exp_body;
    /// `grads = probabilities (grads - shift)`.
    fn softmax_grad(probabilities: &[f32], grads: &mut [f32], shift: f32) = softmax_grad_body;
    /// `out = scale * x`.
    fn scale(x: &[f32], scale: f32, out: &mut [f32]) = scale_body;
    /// The sum of products.
    fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body;
    /// `out = scale * x`, turned by the angles: the first half of a head is the real part.
    fn rotate(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, out: &mut [f32]) = rotate_body;
    /// As `rotate` by the opposite angles.
    fn rotate_back(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, out: &mut [f32]) = rotate_back_body;
    /// One step of AdamW, everything in place.
    fn adamw(
        parameters: &mut [f32], gradients: &[f32], moments_1: &mut [f32], moments_2: &mut [f32], step: AdamWStep
    ) = adamw_body;
    /// `x *= factor`.
    fn scale_in_place(x: &mut [f32], factor: f32) = scale_in_place_body;
    /// `x += (y - x) share`.
    fn moved(x: &mut [f32], y: &[f32], share: f32) = moved_body;
    /// `sums += values`.
    fn add(values: &[f32], sums: &mut [f32]) = add_body;
}

/// Asks the processor to have these in its cache, where there is an instruction for it.
#[allow(unused_variables)] // where there is none
pub(super) fn fetch(x: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in x.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has it, and it reads nothing that the program sees.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
}

#[inline(always)]
fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

// e^x to about one unit in the last place: x = n ln 2 + r, a polynomial for e^r, n into the exponent's bits. Below the
// smallest normal number 0, above the largest one it stays there; NaN stays NaN.
#[inline(always)]
fn exp_of<const FMA: bool>(x: f32) -> f32 {
    const LOWEST: f32 = -87.336_54;
    const HIGHEST: f32 = 88.37;
    // Adding it leaves the nearest integer in the low bits of the sum.
    const ROUNDER: f32 = 12_582_912.0;
    // ln 2 in two parts; the product of the first with n is exact.
    const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    const COEFFICIENTS: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let bounded = x.clamp(LOWEST, HIGHEST);
    let sum = fma::<FMA>(bounded, std::f32::consts::LOG2_E, ROUNDER);
    let n = sum - ROUNDER;
    let r = fma::<FMA>(n, -LN2[1], fma::<FMA>(n, -LN2[0], bounded));
    let mut polynomial = COEFFICIENTS[0];
    for coefficient in &COEFFICIENTS[1..] {
        polynomial = fma::<FMA>(polynomial, r, *coefficient);
    }
    let power = fma::<FMA>(polynomial, r * r, r) + 1.0;
    let two_to_n = f32::from_bits((sum.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    if x < LOWEST { 0.0 } else { power * two_to_n }
}

#[inline(always)]
fn bias_gelu_body<const FMA: bool>(x: &[f32], bias: &[f32], out: &mut [f32]) {
    for ((out, x), bias) in out.iter_mut().zip(x).zip(bias) {
        let x = x + bias;
        let u = x * fma::<FMA>(x * x, GELU[1], GELU[0]);
        *out = x / (1.0 + exp_of::<FMA>(-u));
    }
}

#[inline(always)]
fn bias_gelu_grad_body<const FMA: bool>(x: &[f32], bias: &[f32], grad: &[f32], out: &mut [f32], bias_grad: &mut [f32]) {
    for ((((out, x), bias), grad), bias_grad) in out.iter_mut().zip(x).zip(bias).zip(grad).zip(bias_grad) {
        let x = x + bias;
        let square = x * x;
        let e = exp_of::<FMA>(-x * fma::<FMA>(square, GELU[1], GELU[0]));
        let s = 1.0 / (1.0 + e);
        // 1 - s = e s, without the cancellation.
        let derivative = s * fma::<FMA>(x * fma::<FMA>(square, 3.0 * GELU[1], GELU[0]), e * s, 1.0);
        *out = grad * derivative;
        *bias_grad += *out;
    }
}

// The compiler must not reorder sums of floats, so each sum is kept as this many that it can add side by side.
const LANES: usize = 64;

#[inline(always)]
fn sum_of(n: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let whole = n - n % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    let rest: f32 = (whole..n).map(&term).sum();
    rest + sums.iter().sum::<f32>()
}

#[inline(always)]
fn max_of(n: usize, value: impl Fn(usize) -> f32) -> f32 {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let whole = n - n % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, max) in maxima.iter_mut().enumerate() {
            let value = value(start + lane);
            *max = if value > *max { value } else { *max };
        }
    }
    let rest = (whole..n).map(&value).fold(f32::NEG_INFINITY, f32::max);
    maxima.iter().fold(rest, |max, value| max.max(*value))
}

#[inline(always)]
fn layer_norm_body<const FMA: bool>(x: &[f32], weight: &[f32], bias: &[f32], out: &mut [f32]) -> [f32; 2] {
    let n = x.len();
    let (weight, bias, out) = (&weight[..n], &bias[..n], &mut out[..n]);
    let mean = sum_of(n, |i| x[i]) / n as f32;
    let variance = sum_of(n, |i| (x[i] - mean) * (x[i] - mean)) / n as f32;
    let rate = 1.0 / (variance + super::EPSILON).sqrt();
    for i in 0..n {
        out[i] = fma::<FMA>((x[i] - mean) * rate, weight[i], bias[i]);
    }
    [mean, rate]
}

#[inline(always)]
fn layer_norm_grad_body<const FMA: bool>(
    x: &[f32],
    weight: &[f32],
    [mean, rate]: [f32; 2],
    grad: &[f32],
    out: &mut [f32],
    weight_grad: &mut [f32],
    bias_grad: &mut [f32],
) {
    let n = x.len();
    let (weight, grad, out) = (&weight[..n], &grad[..n], &mut out[..n]);
    let (weight_grad, bias_grad) = (&mut weight_grad[..n], &mut bias_grad[..n]);
    let average = sum_of(n, |i| grad[i] * weight[i]) / n as f32;
    let projection = sum_of(n, |i| grad[i] * weight[i] * ((x[i] - mean) * rate)) / n as f32;
    for i in 0..n {
        let normalised = (x[i] - mean) * rate;
        weight_grad[i] = fma::<FMA>(grad[i], normalised, weight_grad[i]);
        bias_grad[i] += grad[i];
        out[i] = rate * (grad[i] * weight[i] - average - normalised * projection);
    }
}

#[inline(always)]
fn gated_sum_body<const FMA: bool>(x: &[f32], branch: &[f32], gate: &[f32], out: &mut [f32]) {
    for (((out, x), branch), gate) in out.iter_mut().zip(x).zip(branch).zip(gate) {
        *out = fma::<FMA>(*branch, *gate, *x);
    }
}

#[inline(always)]
fn gated_sum_grad_body<const FMA: bool>(
    branch: &[f32],
    gate: &[f32],
    grad: &[f32],
    out: &mut [f32],
    gate_grad: &mut [f32],
) {
    for ((((out, branch), gate), grad), gate_grad) in out.iter_mut().zip(branch).zip(gate).zip(grad).zip(gate_grad) {
        *out = grad * gate;
        *gate_grad = fma::<FMA>(*grad, *branch, *gate_grad);
    }
}

#[inline(always)]
fn widen_f16_body<const FMA: bool>(x: &[f16], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        // The exponent moves from bias 15 to 127 by a multiplication, which also makes subnormal numbers normal; what
        // was infinite or no number stays so.
        let bits = u32::from(x.to_bits());
        let magnitude = (bits & 0x7fff) << 13;
        let value = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
        let special = if magnitude >= 0x0f80_0000 { 0x7f80_0000 } else { 0 };
        *out = f32::from_bits(value.to_bits() | special | (bits & 0x8000) << 16);
    }
}

fn widen_bf16_body<const FMA: bool>(x: &[bf16], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = f32::from_bits(u32::from(x.to_bits()) << 16);
    }
}

fn widen_i8_body<const FMA: bool>(x: &[i8], scale: &[f32], out: &mut [f32]) {
    for ((out, &x), scale) in out.iter_mut().zip(x).zip(scale) {
        *out = f32::from(x) * scale;
    }
}

fn max_with_bias_body<const FMA: bool>(values: &[f32], bias: &[f32]) -> f32 {
    let bias = &bias[..values.len()];
    max_of(values.len(), |i| values[i] + bias[i])
}

#[inline(always)]
fn exp_with_bias_body<const FMA: bool>(values: &mut [f32], bias: &[f32], shift: f32) -> f32 {
    for (value, bias) in values.iter_mut().zip(bias) {
        *value = exp_of::<FMA>(*value + bias - shift);
    }
    sum_of(values.len(), |i| values[i])
}

#[inline(always)]
fn scale_and_add_body<const FMA: bool>(values: &mut [f32], scale: f32, sums: &mut [f32]) {
    for (value, sum) in values.iter_mut().zip(sums) {
        *value *= scale;
        *sum += *value;
    }
}

#[inline(always)]
fn max_body<const FMA: bool>(values: &[f32]) -> f32 {
    max_of(values.len(), |i| values[i])
}

#[inline(always)]
fn exp_body<const FMA: bool>(values: &mut [f32], shift: f32) -> f32 {
    for value in values.iter_mut() {
        *value = exp_of::<FMA>(*value - shift);
    }
    sum_of(values.len(), |i| values[i])
}

#[inline(always)]
fn softmax_grad_body<const FMA: bool>(probabilities: &[f32], grads: &mut [f32], shift: f32) {
    for (grad, probability) in grads.iter_mut().zip(probabilities) {
        *grad = probability * (*grad - shift);
    }
}

#[inline(always)]
fn scale_body<const FMA: bool>(x: &[f32], scale: f32, out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = scale * x;
    }
}

#[inline(always)]
fn dot_body<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let b = &b[..a.len()];
    sum_of(a.len(), |i| a[i] * b[i])
}

#[inline(always)]
fn rotate_body<const FMA: bool>(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, out: &mut [f32]) {
    let half = cos.len();
    let ((real, imaginary), (out_real, out_imaginary)) = (x.split_at(half), out.split_at_mut(half));
    let (imaginary, sin, out_imaginary) = (&imaginary[..half], &sin[..half], &mut out_imaginary[..half]);
    for i in 0..half {
        out_real[i] = scale * (real[i] * cos[i] - imaginary[i] * sin[i]);
        out_imaginary[i] = scale * (imaginary[i] * cos[i] + real[i] * sin[i]);
    }
}

#[inline(always)]
fn rotate_back_body<const FMA: bool>(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, out: &mut [f32]) {
    let half = cos.len();
    let ((real, imaginary), (out_real, out_imaginary)) = (x.split_at(half), out.split_at_mut(half));
    let (imaginary, sin, out_imaginary) = (&imaginary[..half], &sin[..half], &mut out_imaginary[..half]);
    for i in 0..half {
        out_real[i] = scale * (real[i] * cos[i] + imaginary[i] * sin[i]);
        out_imaginary[i] = scale * (imaginary[i] * cos[i] - real[i] * sin[i]);
    }
}

#[inline(always)]
fn adamw_body<const FMA: bool>(
    parameters: &mut [f32],
    gradients: &[f32],
    moments_1: &mut [f32],
    moments_2: &mut [f32],
    step: AdamWStep,
) {
    let [correction_1, correction_2] = step.corrections();
    let kept = 1.0 - step.rate * step.weight_decay;
    let n = parameters.len();
    let (gradients, moments_1, moments_2) = (&gradients[..n], &mut moments_1[..n], &mut moments_2[..n]);
    for i in 0..n {
        let gradient = gradients[i];
        moments_1[i] = step.beta_1 * moments_1[i] + (1.0 - step.beta_1) * gradient;
        moments_2[i] = step.beta_2 * moments_2[i] + (1.0 - step.beta_2) * gradient * gradient;
        let update = (moments_1[i] / correction_1) / ((moments_2[i] / correction_2).sqrt() + step.epsilon);
        parameters[i] = parameters[i] * kept - step.rate * update;
    }
}

#[inline(always)]
fn scale_in_place_body<const FMA: bool>(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

#[inline(always)]
fn moved_body<const FMA: bool>(x: &mut [f32], y: &[f32], share: f32) {
    for (x, y) in x.iter_mut().zip(y) {
        *x = fma::<FMA>(y - *x, share, *x);
    }
}

#[inline(always)]
fn add_body<const FMA: bool>(values: &[f32], sums: &mut [f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_precision_number_is_widened_to_itself() {
        let all: Vec<u16> = (0..=u16::MAX).collect();
        let mut out = vec![0.0; all.len()];
        let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        let numbers: Vec<f16> = all.iter().map(|&bits| f16::from_bits(bits)).collect();
        widen_f16(&numbers, &mut out);
        assert!(out.iter().zip(&numbers).all(|(&a, b)| same(a, b.to_f32())));
        let numbers: Vec<bf16> = all.iter().map(|&bits| bf16::from_bits(bits)).collect();
        widen_bf16(&numbers, &mut out);
        assert!(out.iter().zip(&numbers).all(|(&a, b)| same(a, b.to_f32())));
    }

    #[test]
    fn the_exponential_is_right_to_two_units_in_the_last_place() {
        let x: Vec<f32> = (0..=1_000_000).map(|i| -87.3 + i as f32 * (175.6 / 1e6)).collect();
        let mut y = x.clone();
        exp(&mut y, 0.0);
        for (x, y) in x.iter().zip(&y) {
            let exact = f64::from(*x).exp();
            let unit = f64::from(f32::from_bits((exact as f32).to_bits() + 1)) - f64::from(exact as f32);
            assert!(((f64::from(*y) - exact) / unit).abs() < 2.0, "e^{x} = {y}");
        }
        let mut special = [f32::NAN, f32::NEG_INFINITY, 0.0, -100.0, -1e30];
        exp(&mut special, 0.0);
        assert!(special[0].is_nan());
        assert_eq!(special[1..], [0.0, 1.0, 0.0, 0.0]);
    }
}
