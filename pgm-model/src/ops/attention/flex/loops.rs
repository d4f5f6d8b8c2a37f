//! Vector loops of attention: rotation and the gradient of the softmax.

use crate::ops::flex::memory::Uninit;
use crate::ops::flex::simd::for_each_instruction_set;

for_each_instruction_set! {
    /// `scale * x`, rotated by the angles: the first half of a head is the real part.
    pub(super) fn rotate<'a>(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, out: &'a mut Uninit) -> &'a mut [f32]
        = rotate_body;
    /// `out = scale * x`, rotated by the opposite angles.
    pub(super) fn rotate_back(x: &[f32], cos: &[f32], sin: &[f32], scale: f32, out: &mut [f32]) = rotate_back_body;
    /// `grads = probabilities * (grads - shift)`.
    pub(super) fn softmax_grad(probabilities: &[f32], grads: &mut [f32], shift: f32) = softmax_grad_body;
}

#[inline(always)]
#[allow(unsafe_code)] // both halves of the output are written
fn rotate_body<'a, const FMA: bool>(
    x: &[f32],
    cos: &[f32],
    sin: &[f32],
    scale: f32,
    out: &'a mut Uninit,
) -> &'a mut [f32] {
    let half = cos.len();
    assert_eq!(out.len(), 2 * half, "two halves of a head");
    let ((real, imaginary), (out_real, out_imaginary)) = (x.split_at(half), out.split_at_mut(half));
    let (imaginary, sin, out_imaginary) = (&imaginary[..half], &sin[..half], &mut out_imaginary[..half]);
    for i in 0..half {
        out_real[i].write(scale * (real[i] * cos[i] - imaginary[i] * sin[i]));
        out_imaginary[i].write(scale * (imaginary[i] * cos[i] + real[i] * sin[i]));
    }
    // SAFETY: the loop wrote both halves.
    unsafe { out.assume_init_mut() }
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
fn softmax_grad_body<const FMA: bool>(probabilities: &[f32], grads: &mut [f32], shift: f32) {
    for (grad, probability) in grads.iter_mut().zip(probabilities) {
        *grad = probability * (*grad - shift);
    }
}
