//! Finite scalar quantisation (Mentzer et al., arXiv 2309.15505): each channel is rounded to one of a few levels, and the
//! code is the number whose digits the levels are. There is no codebook to learn, and every code can be reached.
//!
//! A channel of L levels is bounded by `b = tanh(z + atanh(offset / half)) * half - offset` with
//! `half = (L - 1) (1 + 0.001) / 2` and `offset` 0.5 for an even L, else 0. Its value is `round(b) / floor(L / 2)`, its
//! digit `round(b) + floor(L / 2)`, and the code is the sum of digits times the product of the levels before.
//
// B batch, D channels of the vectors, h x w grid of codes

use burn::tensor::{Device, Int, Tensor, TensorData};

/// How far the bound reaches over the outermost levels, so that they can be rounded to.
const MARGIN: f64 = 1e-3;

/// The levels of each channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fsq {
    levels: Vec<usize>,
}

impl Fsq {
    /// A quantiser of so many levels for each channel.
    pub fn new(levels: Vec<usize>) -> Self {
        Self { levels }
    }

    /// Number of codes: the product of the levels.
    pub fn n_codes(&self) -> usize {
        self.levels.iter().product()
    }

    /// The values that vectors are rounded to, in -1 to 1. The gradient passes the rounding as if it were not there.
    ///
    /// # Shapes
    /// `[B, D, h, w] -> [B, D, h, w]`
    pub fn quantise(&self, vectors: Tensor<4>) -> Tensor<4> {
        let device = vectors.device();
        let bounded = self.bound(vectors);
        let rounded = bounded.clone().detach().round();
        let straight_through = bounded.clone() + (rounded - bounded.detach());
        straight_through / self.per_channel(&device, |levels| (levels / 2) as f64)
    }

    /// The codes of vectors.
    ///
    /// # Shapes
    /// `[B, D, h, w] -> [B, h * w]`
    pub fn codes(&self, vectors: Tensor<4>) -> Tensor<2, Int> {
        let device = vectors.device();
        let [batch, _, h, w] = vectors.dims();
        let digits = self.bound(vectors).round() + self.per_channel(&device, |levels| (levels / 2) as f64);
        let digits = digits.int();
        let mut codes: Option<Tensor<4, Int>> = None;
        for (channel, place) in self.places().into_iter().enumerate() {
            let digit = digits.clone().narrow(1, channel, 1) * place as i32; // [B, 1, h, w]
            codes = Some(match codes {
                Some(codes) => codes + digit,
                None => digit,
            });
        }
        codes.expect("a quantiser has a channel").reshape([batch, h * w])
    }

    /// The values of codes.
    ///
    /// # Shapes
    /// `[B, h * w] -> [B, D, h, w]`
    pub fn values(&self, codes: Tensor<2, Int>, [h, w]: [usize; 2]) -> Tensor<4> {
        let device = codes.device();
        let [batch, _] = codes.dims();
        let codes = codes.reshape([batch, 1, h, w]);
        let digits = self.levels.iter().zip(self.places()).map(|(&levels, place)| {
            codes.clone().div_scalar(place as i32).remainder_scalar(levels as i32) // [B, 1, h, w]
        });
        let digits = Tensor::cat(digits.collect(), 1).float(); // [B, D, h, w]
        let half = self.per_channel(&device, |levels| (levels / 2) as f64);
        (digits - half.clone()) / half
    }

    // The bound that rounds to the levels.
    fn bound(&self, vectors: Tensor<4>) -> Tensor<4> {
        let device = vectors.device();
        let half = |levels: usize| (levels - 1) as f64 * (1.0 + MARGIN) / 2.0;
        let offset = |levels: usize| if levels.is_multiple_of(2) { 0.5 } else { 0.0 };
        let shift = self.per_channel(&device, |levels| (offset(levels) / half(levels)).atanh());
        let bounded = (vectors + shift).tanh() * self.per_channel(&device, half);
        bounded - self.per_channel(&device, offset)
    }

    // What a digit of each channel is worth.
    fn places(&self) -> Vec<usize> {
        let mut place = 1;
        let next = |&levels: &usize| {
            let this = place;
            place *= levels;
            this
        };
        self.levels.iter().map(next).collect()
    }

    // A number for each channel, [1, D, 1, 1].
    fn per_channel(&self, device: &Device, number: impl Fn(usize) -> f64) -> Tensor<4> {
        let numbers: Vec<f32> = self.levels.iter().map(|&levels| number(levels) as f32).collect();
        Tensor::from_data(TensorData::new(numbers, [1, self.levels.len(), 1, 1]), device)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;

    const LEVELS: [&[usize]; 6] = [&[8, 5, 5, 5], &[8, 8, 8], &[2], &[3], &[7, 2, 4, 3], &[256, 9]];

    // The bound's inverse: the vector whose bound is this level.
    fn vector_of(levels: usize, level: f64) -> f64 {
        let half = (levels - 1) as f64 * 1.001 / 2.0;
        let offset = if levels.is_multiple_of(2) { 0.5 } else { 0.0 };
        ((level + offset) / half).atanh() - (offset / half).atanh()
    }

    #[test]
    fn every_code_and_its_values_are_inverse_to_each_other() {
        let device = Device::flex();
        for levels in LEVELS {
            let fsq = Fsq::new(levels.to_vec());
            let n = fsq.n_codes();
            let all: Vec<i32> = (0..n as i32).collect();
            // Two rows of codes in a grid of 1 x n.
            let codes = Tensor::<1, Int>::from_data(TensorData::new(all.clone(), [n]), &device).reshape([1, n]);
            let codes = Tensor::cat(vec![codes.clone(), codes.flip([1])], 0);
            let values = fsq.values(codes.clone(), [1, n]);
            assert_eq!(values.dims(), [2, levels.len(), 1, n]);
            let flat = values.clone().try_into_vec_as::<f32>().unwrap();
            assert!(flat.iter().all(|value| (-1.0..=1.0).contains(value)));
            // The vectors that lie on the levels have these codes and values.
            let vectors: Vec<f32> = flat
                .iter()
                .enumerate()
                .map(|(index, &value)| {
                    let levels = levels[index / n % levels.len()];
                    vector_of(levels, (f64::from(value) * (levels / 2) as f64).round()) as f32
                })
                .collect();
            let vectors = Tensor::<4>::from_data(TensorData::new(vectors, [2, levels.len(), 1, n]), &device);
            let found = fsq.codes(vectors.clone()).into_data().iter::<i32>().collect::<Vec<_>>();
            let expected: Vec<i32> = all.iter().copied().chain(all.iter().rev().copied()).collect();
            assert_eq!(found, expected, "{levels:?}");
            let quantised = fsq.quantise(vectors).try_into_vec_as::<f32>().unwrap();
            let worst = quantised.iter().zip(&flat).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-6, "{levels:?}: {worst}");
        }
    }

    #[test]
    fn codes_by_hand() {
        // Levels 3 and 4: digits of 0 are 1 and 2, so the code is 1 + 2 * 3. Far below they are 0, far above 2 and 3.
        let device = Device::flex();
        let fsq = Fsq::new(vec![3, 4]);
        let vectors = Tensor::<4>::from_data([[[[0.0, -9.0, 9.0, 9.0]], [[0.0, -9.0, 9.0, -9.0]]]], &device);
        let codes = fsq.codes(vectors.clone()).into_data().iter::<i32>().collect::<Vec<_>>();
        assert_eq!(codes, [7, 0, 11, 2]);
        let values = fsq.quantise(vectors).try_into_vec_as::<f32>().unwrap();
        assert_eq!(values, [0.0, -1.0, 1.0, 1.0, 0.0, -1.0, 0.5, -1.0]);
    }

    #[test]
    fn the_gradient_is_that_of_the_bound() {
        let device = Device::flex().autodiff();
        let fsq = Fsq::new(vec![5]);
        let at = [-0.4_f64, 0.0, 0.3, 2.0];
        let data = TensorData::new(at.map(|z| z as f32).to_vec(), [1, 1, 2, 2]);
        let vectors = Tensor::<4>::from_data(data, &device).require_grad();
        let gradients = fsq.quantise(vectors.clone()).sum().backward();
        let found = vectors.grad(&gradients).unwrap().try_into_vec_as::<f32>().unwrap();
        for (z, found) in at.into_iter().zip(found) {
            // d/dz tanh(z) * 2.002 / 2
            let expected = (1.0 - z.tanh().powi(2)) * 1.001;
            assert!((f64::from(found) - expected).abs() < 1e-5, "{z}: {found} for {expected}");
        }
    }

    #[test]
    fn no_vector_however_large_leaves_the_codebook() {
        let device = Device::flex();
        for levels in LEVELS {
            let fsq = Fsq::new(levels.to_vec());
            for sign in [-1.0, 1.0] {
                let vectors = Tensor::<4>::full([1, levels.len(), 1, 1], sign * 1e30, &device);
                let code = fsq.codes(vectors).into_data().iter::<i64>().next().unwrap();
                assert_eq!(code, if sign < 0.0 { 0 } else { fsq.n_codes() as i64 - 1 }, "{levels:?}");
            }
        }
    }
}
