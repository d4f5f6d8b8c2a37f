//! Loops over float32 slices that the compiler turns into SIMD instructions: nothing in them calls libm.
//!
//! Each loop is written once and compiled for AVX-512, for AVX2 and for the target's baseline; the processor decides at
//! run time.

/// Whether the target's baseline has fused multiply-add. Without the instruction it is a slow library call, so each loop
/// has `FMA` as a parameter.
pub(crate) const BASELINE_HAS_FMA: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

/// Defines a function that runs the named loop, `loop<FMA>`, with the best instruction set of the processor.
macro_rules! for_each_instruction_set {
    ($(
        $(#[$doc:meta])*
        $vis:vis fn $name:ident $(<$lifetime:lifetime>)? ($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?
            = $body:ident;
    )*) => {$(
        $(#[$doc])*
        #[allow(unsafe_code)] // calls that need an instruction set
        #[allow(clippy::too_many_arguments)]
        $vis fn $name $(<$lifetime>)? ($($argument: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512 $(<$lifetime>)? ($($argument: $type),*) $(-> $result)? { $body::<true>($($argument),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2 $(<$lifetime>)? ($($argument: $type),*) $(-> $result)? { $body::<true>($($argument),*) }

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
            $body::<{ $crate::ops::flex::simd::BASELINE_HAS_FMA }>($($argument),*)
        }
    )*};
}
pub(crate) use for_each_instruction_set;

/// `a b + c`, rounded once if `FMA`.
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x` to about one unit in the last place: x = n ln 2 + r, a polynomial for e^r, and n in the exponent's bits. Results
/// below the smallest normal number are 0, results above the largest one stay there, NaN stays NaN.
#[inline(always)]
pub(crate) fn exp_of<const FMA: bool>(x: f32) -> f32 {
    const LOWEST: f32 = -87.336_54;
    const HIGHEST: f32 = 88.37;
    // Adding this leaves the nearest integer in the low bits of the sum.
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

// The compiler must not reorder sums of floats, so a sum is kept as this many partial sums, which it can add side by side.
const LANES: usize = 64;

/// The sum of `term(i)` below n.
#[inline(always)]
pub(crate) fn sum_of(n: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    let whole = n - n % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += term(start + lane);
        }
    }
    let rest: f32 = (whole..n).map(&term).sum();
    if whole == 0 {
        return rest + 0.0; // the sum of the lanes, without 64 additions that wait for each other
    }
    rest + sums.iter().sum::<f32>()
}

/// The largest `value(i)` below n.
#[inline(always)]
pub(crate) fn max_of(n: usize, value: impl Fn(usize) -> f32) -> f32 {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let whole = n - n % LANES;
    for start in (0..whole).step_by(LANES) {
        for (lane, max) in maxima.iter_mut().enumerate() {
            let value = value(start + lane);
            *max = if value > *max { value } else { *max };
        }
    }
    let rest = (whole..n).map(&value).fold(f32::NEG_INFINITY, f32::max);
    // By halves: one after the other each would wait for the last. No maximum is NaN.
    let mut n_lanes = if whole == 0 { 1 } else { LANES };
    while n_lanes > 1 {
        n_lanes /= 2;
        for lane in 0..n_lanes {
            let other = maxima[lane + n_lanes];
            maxima[lane] = if other > maxima[lane] { other } else { maxima[lane] };
        }
    }
    rest.max(maxima[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    // One partial sum after the other, as the numbers of a training run have always been added.
    fn in_order(x: &[f32]) -> f32 {
        let mut sums = [0.0_f32; LANES];
        let (whole, rest) = x.as_chunks::<LANES>();
        for chunk in whole {
            sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += x);
        }
        rest.iter().sum::<f32>() + sums.iter().sum::<f32>()
    }

    #[test]
    fn sums_have_their_order_whatever_their_length() {
        for n in [0, 1, 31, 63, 64, 65, 128, 200] {
            let x: Vec<f32> = (0..n).map(|i| (i * 104_729 % 1013) as f32 / 37.0 - 11.0).collect();
            assert_eq!(sum_of(n, |i| x[i]).to_bits(), in_order(&x).to_bits(), "{n} numbers");
        }
        let zeros = [-0.0; 3];
        assert_eq!(sum_of(3, |i| zeros[i]).to_bits(), in_order(&zeros).to_bits());
    }

    #[test]
    fn the_largest_value_is_found_wherever_it_is() {
        for n in [1, 5, 64, 70, 128, 131] {
            for best in 0..n {
                let value = |i: usize| if i == best { 3.0 } else { -(i as f32) };
                assert_eq!(max_of(n, value), 3.0, "{best} of {n}");
            }
        }
        assert_eq!(max_of(130, |i| if i % 3 == 0 { f32::NAN } else { i as f32 }), 128.0);
        assert_eq!(max_of(0, |_| 0.0), f32::NEG_INFINITY);
    }
}
