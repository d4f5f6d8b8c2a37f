//! Vector loops of attention: the vectors of some tokens gathered, rotated and multiplied; the gradient of the softmax.

use crate::ops::flex::math;
use crate::ops::flex::memory::{Uninit, write_chunks};
use crate::ops::flex::simd::{for_each_instruction_set, sum_of};

/// Vectors of `size` numbers, the i-th from `i * stride` on.
#[derive(Clone, Copy)]
pub(super) struct Vectors<'a> {
    pub(super) values: &'a [f32],
    pub(super) stride: usize,
    pub(super) size: usize,
}

impl<'a> Vectors<'a> {
    #[inline(always)]
    fn at(self, index: usize) -> &'a [f32] {
        &self.values[index * self.stride..][..self.size]
    }

    // The tokens of a group follow no pattern that a processor could predict, so the vectors of later ones are prefetched.
    #[inline(always)]
    fn prefetch_after(self, place: usize, tokens: &[usize]) {
        const AHEAD: usize = 8;
        if let Some(next) = tokens.get(place + AHEAD) {
            math::prefetch(self.at(*next));
        }
    }
}

for_each_instruction_set! {
    /// The vectors of some tokens times `scale`, rotated by the tokens' angles: the first half of a vector is the real part.
    /// `angles` has a cosine for each element of a half, then the sines.
    pub(super) fn rotate<'a>(vectors: Vectors<'_>, tokens: &[usize], angles: &[f32], scale: f32, out: &'a mut Uninit)
        -> &'a mut [f32] = rotate_body;
    /// The vectors of some tokens.
    pub(super) fn gather<'a>(vectors: Vectors<'_>, tokens: &[usize], out: &'a mut Uninit) -> &'a mut [f32] = gather_body;
    /// The dot products of two vectors of each token.
    pub(super) fn dots(left: Vectors<'_>, right: Vectors<'_>, tokens: &[usize], out: &mut [f32]) = dots_body;
    /// `out = scale * x`, rotated by the opposite angles.
    pub(super) fn rotate_back(x: &[f32], angles: &[f32], scale: f32, out: &mut [f32]) = rotate_back_body;
    /// `grads = probabilities * (grads - shift)`.
    pub(super) fn softmax_grad(probabilities: &[f32], grads: &mut [f32], shift: f32) = softmax_grad_body;
}

// Vectors of the usual sizes have loops of their own, without a remainder.
macro_rules! with_usual_sizes {
    ($size:expr, $loop:ident($($argument:expr),*)) => {
        match $size {
            32 => $loop(32, $($argument),*),
            64 => $loop(64, $($argument),*),
            size => $loop(size, $($argument),*),
        }
    };
}

#[inline(always)]
#[allow(unsafe_code)] // both halves of each vector are written
fn rotate_body<'a, const FMA: bool>(
    vectors: Vectors<'_>,
    tokens: &[usize],
    angles: &[f32],
    scale: f32,
    out: &'a mut Uninit,
) -> &'a mut [f32] {
    assert!(vectors.size.is_multiple_of(2) && out.len() == tokens.len() * vectors.size, "two halves for each token");
    with_usual_sizes!(vectors.size, rotate_sized(vectors, tokens, angles, scale, out));
    // SAFETY: the loop wrote both halves of each vector.
    unsafe { out.assume_init_mut() }
}

#[inline(always)]
fn rotate_sized(size: usize, vectors: Vectors<'_>, tokens: &[usize], angles: &[f32], scale: f32, out: &mut Uninit) {
    let half = size / 2;
    for (place, (token, out)) in tokens.iter().zip(out.chunks_exact_mut(size)).enumerate() {
        vectors.prefetch_after(place, tokens);
        let (real, imaginary) = vectors.at(*token)[..size].split_at(half);
        let (cos, sin) = angles[token * size..][..size].split_at(half);
        let (out_real, out_imaginary) = out.split_at_mut(half);
        for i in 0..half {
            out_real[i].write(scale * (real[i] * cos[i] - imaginary[i] * sin[i]));
            out_imaginary[i].write(scale * (imaginary[i] * cos[i] + real[i] * sin[i]));
        }
    }
}

#[inline(always)]
fn gather_body<'a, const FMA: bool>(vectors: Vectors<'_>, tokens: &[usize], out: &'a mut Uninit) -> &'a mut [f32] {
    assert_eq!(out.len(), tokens.len() * vectors.size, "a vector for each token");
    with_usual_sizes!(vectors.size, gather_sized(vectors, tokens, out))
}

#[inline(always)]
fn gather_sized<'a>(size: usize, vectors: Vectors<'_>, tokens: &[usize], out: &'a mut Uninit) -> &'a mut [f32] {
    write_chunks(out, size, |place, out| {
        vectors.prefetch_after(place, tokens);
        out.write_copy_of_slice(&vectors.at(tokens[place])[..size])
    })
}

#[inline(always)]
fn dots_body<const FMA: bool>(left: Vectors<'_>, right: Vectors<'_>, tokens: &[usize], out: &mut [f32]) {
    with_usual_sizes!(left.size, dots_sized(left, right, tokens, out));
}

#[inline(always)]
fn dots_sized(size: usize, left: Vectors<'_>, right: Vectors<'_>, tokens: &[usize], out: &mut [f32]) {
    for (place, (token, out)) in tokens.iter().zip(out).enumerate() {
        left.prefetch_after(place, tokens);
        right.prefetch_after(place, tokens);
        let (left, right) = (&left.at(*token)[..size], &right.at(*token)[..size]);
        *out = sum_of(size, |i| left[i] * right[i]);
    }
}

#[inline(always)]
fn rotate_back_body<const FMA: bool>(x: &[f32], angles: &[f32], scale: f32, out: &mut [f32]) {
    let half = angles.len() / 2;
    let (cos, sin) = angles.split_at(half);
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
