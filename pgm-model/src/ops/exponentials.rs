//! Exponentials in float64, several at a time: the cost of a draw from many classes.

#[cfg(feature = "flex")]
use super::flex::simd::for_each_instruction_set;

/// Sets `out` to `e^(scale (x - largest))`, to about one unit in the last place. Results below the smallest normal number
/// are 0; a NaN stays NaN. `out` is as long as x.
///
/// # Panics
/// When the lengths differ.
pub fn exponentials(x: &[f32], largest: f32, scale: f64, out: &mut [f64]) {
    assert_eq!(x.len(), out.len(), "a result for each number");
    all(x, f64::from(largest), scale, out);
}

#[cfg(feature = "flex")]
for_each_instruction_set! {
    fn all(x: &[f32], largest: f64, scale: f64, out: &mut [f64]) = all_body;
}

#[cfg(not(feature = "flex"))]
fn all(x: &[f32], largest: f64, scale: f64, out: &mut [f64]) {
    all_body::<false>(x, largest, scale, out);
}

#[inline(always)]
fn all_body<const FMA: bool>(x: &[f32], largest: f64, scale: f64, out: &mut [f64]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = exp_of::<FMA>((f64::from(*x) - largest) * scale);
    }
}

#[inline(always)]
fn fma<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

// x = n ln 2 + r, the Taylor polynomial of e^r, and n in the exponent's bits.
#[inline(always)]
fn exp_of<const FMA: bool>(x: f64) -> f64 {
    const LOWEST: f64 = -708.39;
    const HIGHEST: f64 = 709.43;
    // Adding this leaves the nearest integer in the low bits of the sum.
    const ROUNDER: f64 = 6_755_399_441_055_744.0;
    // ln 2 in two parts; the product of the first with n is exact.
    const LN2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
    // 1 / 13! to 1 / 2!.
    const COEFFICIENTS: [f64; 12] = [
        1.0 / 6_227_020_800.0,
        1.0 / 479_001_600.0,
        1.0 / 39_916_800.0,
        1.0 / 3_628_800.0,
        1.0 / 362_880.0,
        1.0 / 40_320.0,
        1.0 / 5040.0,
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
    ];
    let bounded = x.clamp(LOWEST, HIGHEST);
    let sum = fma::<FMA>(bounded, std::f64::consts::LOG2_E, ROUNDER);
    let n = sum - ROUNDER;
    let r = fma::<FMA>(n, -LN2[1], fma::<FMA>(n, -LN2[0], bounded));
    let mut polynomial = COEFFICIENTS[0];
    for coefficient in &COEFFICIENTS[1..] {
        polynomial = fma::<FMA>(polynomial, r, *coefficient);
    }
    let power = fma::<FMA>(polynomial, r * r, r) + 1.0;
    let two_to_n = f64::from_bits((sum.to_bits() << 52).wrapping_add(1.0_f64.to_bits()));
    if x < LOWEST { 0.0 } else { power * two_to_n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_right_to_two_units_in_the_last_place() {
        let x: Vec<f32> = (0..200_003).map(|i| 80.0 - i as f32 * (780.0 / 2e5)).collect();
        for (largest, scale) in [(80.0, 1.0), (3.25, 0.7), (0.0, 1.0)] {
            let mut y = vec![f64::NAN; x.len()];
            exponentials(&x, largest, scale, &mut y);
            for (x, y) in x.iter().zip(&y) {
                let exact = ((f64::from(*x) - f64::from(largest)) * scale).exp();
                let limit = if exact < 1e-307 { 1e-307 } else { 2.0 * f64::EPSILON * exact };
                assert!((y - exact).abs() <= limit, "{x}, {largest}, {scale}: {y:e} and {exact:e}");
            }
        }
    }

    #[test]
    fn special_numbers_keep_their_meaning() {
        let x = [f32::NEG_INFINITY, f32::NAN, 1.0, f32::INFINITY, -1e30, 1.0];
        let mut y = [0.0; 6];
        exponentials(&x, 1.0, 1.0, &mut y);
        assert!(y[1].is_nan());
        assert_eq!([y[0], y[2], y[4], y[5]], [0.0, 1.0, 0.0, 1.0]);
        exponentials(&x, f32::INFINITY, 1.0, &mut y);
        assert!(y[3].is_nan(), "a draw from an infinite logit is refused");
    }
}
