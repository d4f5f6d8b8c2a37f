//! Vector loops that several operations use.

use super::simd::{exp_of, for_each_instruction_set, max_of, sum_of};

for_each_instruction_set! {
    /// The largest value.
    pub(crate) fn max(values: &[f32]) -> f32 = max_body;
    /// `values = exp(values - shift)`; their sum.
    pub(crate) fn exp(values: &mut [f32], shift: f32) -> f32 = exp_body;
    /// `out = scale * x`.
    pub(crate) fn scale(x: &[f32], scale: f32, out: &mut [f32]) = scale_body;
    /// The dot product.
    pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body;
    /// `sums += values`.
    pub(crate) fn add(values: &[f32], sums: &mut [f32]) = add_body;
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
fn add_body<const FMA: bool>(values: &[f32], sums: &mut [f32]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}

/// Prefetches these numbers into the cache, where the processor has an instruction for it.
#[inline(always)]
#[allow(unsafe_code)] // a compiler intrinsic
#[allow(unused_variables)] // on other processors
pub(crate) fn prefetch(x: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in x.chunks(16) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, and it has no effect that the program sees.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
}

/// Prefetches the cache line of this address, which may be any, into L2. Lines whose addresses differ by a power of two
/// would drive each other out of L1.
#[inline(always)]
#[allow(unsafe_code)] // a compiler intrinsic
#[allow(unused_variables)] // on other processors
pub(crate) fn prefetch_to_l2<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, and it has no effect that the program sees.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
