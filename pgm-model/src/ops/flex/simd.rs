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
// Terms behind the last whole LANES go to the first of them in pieces of this size.
const PIECE: usize = 16;

/// The sum of `term(i)` below n: term i goes to the partial sum i mod 64, but for the last n mod 16, which are added one after the
/// other. Partial sums are added by halves.
#[inline(always)]
pub(crate) fn sum_of(n: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut sums = [0.0_f32; LANES];
    over_lanes(n, |lane, i| sums[lane] += term(i));
    (n - n % PIECE..n).map(&term).sum::<f32>() + by_halves(&mut sums, |a, b| a + b)
}

/// The largest `value(i)` below n. A NaN counts for nothing.
#[inline(always)]
pub(crate) fn max_of(n: usize, value: impl Fn(usize) -> f32) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut maxima = [f32::NEG_INFINITY; LANES];
    over_lanes(n, |lane, i| maxima[lane] = larger(maxima[lane], value(i)));
    (n - n % PIECE..n).map(&value).fold(by_halves(&mut maxima, larger), larger)
}

// Calls `add(lane, i)` for each i below n, without the last n mod PIECE. The lanes are constants, so that they stay in registers.
#[inline(always)]
fn over_lanes(n: usize, mut add: impl FnMut(usize, usize)) {
    let whole = n - n % LANES;
    for start in (0..whole).step_by(LANES) {
        for lane in 0..LANES {
            add(lane, start + lane);
        }
    }
    for first in [0, PIECE, 2 * PIECE] {
        if whole + first + PIECE <= n {
            for lane in first..first + PIECE {
                add(lane, whole + lane);
            }
        }
    }
}

// One after the other each would wait for the last.
#[inline(always)]
fn by_halves(lanes: &mut [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    for half in [32, 16, 8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = join(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    // The definition, term by term.
    fn in_order(x: &[f32]) -> f32 {
        let mut sums = [0.0_f32; LANES];
        let (pieces, rest) = x.split_at(x.len() - x.len() % PIECE);
        pieces.iter().enumerate().for_each(|(i, x)| sums[i % LANES] += x);
        let mut sums = sums.to_vec();
        while sums.len() > 1 {
            let (low, high) = sums.split_at(sums.len() / 2);
            sums = low.iter().zip(high).map(|(low, high)| low + high).collect();
        }
        rest.iter().sum::<f32>() + sums[0]
    }

    #[test]
    fn sums_have_their_order_whatever_their_length() {
        for n in [0, 1, 15, 16, 17, 31, 32, 47, 48, 63, 64, 65, 100, 128, 200] {
            let x: Vec<f32> = (0..n).map(|i| (i * 104_729 % 1013) as f32 / 37.0 - 11.0).collect();
            assert_eq!(sum_of(n, |i| x[i]).to_bits(), in_order(&x).to_bits(), "{n} numbers");
        }
        assert_eq!(sum_of(3, |_| -0.0).to_bits(), 0.0_f32.to_bits());
    }

    #[test]
    fn the_largest_value_is_found_wherever_it_is() {
        for n in [1, 5, 16, 40, 63, 64, 70, 128, 131, 190] {
            for best in 0..n {
                let value = |i: usize| if i == best { 3.0 } else { -(i as f32) };
                assert_eq!(max_of(n, value), 3.0, "{best} of {n}");
            }
        }
        assert_eq!(max_of(130, |i| if i % 3 == 0 { f32::NAN } else { i as f32 }), 128.0);
        assert_eq!(max_of(0, |_| 0.0), f32::NEG_INFINITY);
    }
}
