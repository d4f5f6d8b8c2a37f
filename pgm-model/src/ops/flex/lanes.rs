//! Vectors of float32 for loops that keep many of them in registers, written once over [`Lanes`]: AVX-512, AVX2 with FMA, or
//! what the compiler makes of arrays.
#![allow(unsafe_code)] // vector instructions and pointers

use burn::tensor::{bf16, f16};

use super::simd::{BASELINE_HAS_FMA, fma};

/// A vector of float32 numbers.
///
/// # Safety
/// Every function needs the processor's instructions, and pointers to [`COUNT`](Lanes::COUNT) numbers, which need not be
/// aligned. Callers are compiled for the instruction set.
pub(super) trait Lanes {
    type Vector: Copy;
    /// Numbers of a vector.
    const COUNT: usize;

    unsafe fn splat(x: f32) -> Self::Vector;
    unsafe fn load(from: *const f32) -> Self::Vector;
    unsafe fn store(to: *mut f32, vector: Self::Vector);
    unsafe fn mul(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a b + c`, rounded once where the processor can.
    unsafe fn fma(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    unsafe fn from_f16(from: *const f16) -> Self::Vector;
    unsafe fn from_bf16(from: *const bf16) -> Self::Vector;
    unsafe fn from_i8(from: *const i8) -> Self::Vector;
}

/// A type of weights that are widened to float32 in registers.
pub(super) trait Number: Copy {
    /// Whether blocks of weights have scales.
    const SCALED: bool = false;

    /// # Safety
    /// As [`Lanes`].
    unsafe fn widen<L: Lanes>(from: *const Self) -> L::Vector;
}

impl Number for f32 {
    #[inline(always)]
    unsafe fn widen<L: Lanes>(from: *const f32) -> L::Vector {
        // SAFETY: the caller's promise.
        unsafe { L::load(from) }
    }
}

impl Number for f16 {
    #[inline(always)]
    unsafe fn widen<L: Lanes>(from: *const f16) -> L::Vector {
        // SAFETY: the caller's promise.
        unsafe { L::from_f16(from) }
    }
}

impl Number for bf16 {
    #[inline(always)]
    unsafe fn widen<L: Lanes>(from: *const bf16) -> L::Vector {
        // SAFETY: the caller's promise.
        unsafe { L::from_bf16(from) }
    }
}

impl Number for i8 {
    const SCALED: bool = true;

    #[inline(always)]
    unsafe fn widen<L: Lanes>(from: *const i8) -> L::Vector {
        // SAFETY: the caller's promise.
        unsafe { L::from_i8(from) }
    }
}

/// Arrays, for processors without the instructions below.
pub(super) struct Portable;

const PORTABLE: usize = 8;

#[inline(always)]
fn array(value: impl Fn(usize) -> f32) -> [f32; PORTABLE] {
    let mut array = [0.0; PORTABLE];
    for (i, slot) in array.iter_mut().enumerate() {
        *slot = value(i);
    }
    array
}

impl Lanes for Portable {
    type Vector = [f32; PORTABLE];
    const COUNT: usize = PORTABLE;

    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; PORTABLE] {
        [x; PORTABLE]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; PORTABLE] {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<[f32; PORTABLE]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, vector: [f32; PORTABLE]) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; PORTABLE]>().write_unaligned(vector) }
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; PORTABLE], b: [f32; PORTABLE]) -> [f32; PORTABLE] {
        array(|i| a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn fma(a: [f32; PORTABLE], b: [f32; PORTABLE], c: [f32; PORTABLE]) -> [f32; PORTABLE] {
        array(|i| fma::<BASELINE_HAS_FMA>(a[i], b[i], c[i]))
    }

    #[inline(always)]
    unsafe fn from_f16(from: *const f16) -> [f32; PORTABLE] {
        // SAFETY: the caller's promise.
        let x = unsafe { from.cast::<[f16; PORTABLE]>().read_unaligned() };
        array(|i| widened_f16(x[i]))
    }

    #[inline(always)]
    unsafe fn from_bf16(from: *const bf16) -> [f32; PORTABLE] {
        // SAFETY: the caller's promise.
        let x = unsafe { from.cast::<[bf16; PORTABLE]>().read_unaligned() };
        array(|i| widened_bf16(x[i]))
    }

    #[inline(always)]
    unsafe fn from_i8(from: *const i8) -> [f32; PORTABLE] {
        // SAFETY: the caller's promise.
        let x = unsafe { from.cast::<[i8; PORTABLE]>().read_unaligned() };
        array(|i| f32::from(x[i]))
    }
}

/// A half-precision number as float32, without a branch.
#[inline(always)]
pub(crate) fn widened_f16(x: f16) -> f32 {
    // A multiplication moves the exponent's bias from 15 to 127 and normalises subnormal numbers. Infinities and NaN keep
    // the largest exponent.
    let bits = u32::from(x.to_bits());
    let magnitude = (bits & 0x7fff) << 13;
    let value = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
    let special = if magnitude >= 0x0f80_0000 { 0x7f80_0000 } else { 0 };
    f32::from_bits(value.to_bits() | special | (bits & 0x8000) << 16)
}

/// A bfloat16 number as float32.
#[inline(always)]
pub(crate) fn widened_bf16(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Lanes, bf16, f16};

    /// Eight numbers.
    pub(crate) struct Avx2;

    /// Sixteen numbers.
    pub(crate) struct Avx512;

    // SAFETY of all functions: the caller's promise.
    macro_rules! lanes {
        (
            $lanes:ident, $vector:ty, $count:literal, $splat:ident, $load:ident, $store:ident, $mul:ident, $fma:ident,
            f16 $f16:expr, bf16 $bf16:expr, i8 $i8:expr
        ) => {
            impl Lanes for $lanes {
                type Vector = $vector;
                const COUNT: usize = $count;

                #[inline(always)]
                unsafe fn splat(x: f32) -> $vector {
                    unsafe { $splat(x) }
                }

                #[inline(always)]
                unsafe fn load(from: *const f32) -> $vector {
                    unsafe { $load(from) }
                }

                #[inline(always)]
                unsafe fn store(to: *mut f32, vector: $vector) {
                    unsafe { $store(to, vector) }
                }

                #[inline(always)]
                unsafe fn mul(a: $vector, b: $vector) -> $vector {
                    unsafe { $mul(a, b) }
                }

                #[inline(always)]
                unsafe fn fma(a: $vector, b: $vector, c: $vector) -> $vector {
                    unsafe { $fma(a, b, c) }
                }

                #[inline(always)]
                unsafe fn from_f16(from: *const f16) -> $vector {
                    unsafe { $f16(from) }
                }

                #[inline(always)]
                unsafe fn from_bf16(from: *const bf16) -> $vector {
                    unsafe { $bf16(from) }
                }

                #[inline(always)]
                unsafe fn from_i8(from: *const i8) -> $vector {
                    unsafe { $i8(from) }
                }
            }
        };
    }

    lanes!(
        Avx2, __m256, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_mul_ps, _mm256_fmadd_ps,
        f16 f16_to_8, bf16 bf16_to_8, i8 i8_to_8
    );
    lanes!(
        Avx512, __m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_mul_ps, _mm512_fmadd_ps,
        f16 f16_to_16, bf16 bf16_to_16, i8 i8_to_16
    );

    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn f16_to_8(from: *const f16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn bf16_to_8(from: *const bf16) -> __m256 {
        let numbers = unsafe { _mm_loadu_si128(from.cast()) };
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(numbers)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn i8_to_8(from: *const i8) -> __m256 {
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(from.cast()) }))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn f16_to_16(from: *const f16) -> __m512 {
        _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(from.cast()) })
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn bf16_to_16(from: *const bf16) -> __m512 {
        let numbers = unsafe { _mm256_loadu_si256(from.cast()) };
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(numbers)))
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn i8_to_16(from: *const i8) -> __m512 {
        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(unsafe { _mm_loadu_si128(from.cast()) }))
    }
}
