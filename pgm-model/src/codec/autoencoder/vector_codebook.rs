//! A learned codebook of unit vectors: the code of a vector is the codebook's nearest by direction.
//!
//! This is LlamaGen's quantiser (tokenizer/tokenizer_image/vq_model.py:215-232), made trainable: vectors and codebook are
//! normalised, the gradient passes the choice as if it were not there, and a loss pulls the codebook to the vectors and,
//! at a quarter of the weight, the vectors to the codebook (VQ-VAE, arXiv 1711.00937).
//
// B batch, D width of the vectors, h x w grid of codes, N = B * h * w, K codes

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Device, Int, Tensor};

/// Weight of the term that pulls vectors to the codebook.
const COMMITMENT: f64 = 0.25;
/// Smallest norm that a vector is divided by.
const EPSILON: f64 = 1e-12;

/// The codebook.
#[derive(Module, Debug)]
pub struct VectorCodebook {
    /// Before they are normalised, `[K, D]`.
    pub vectors: Param<Tensor<2>>,
}

impl VectorCodebook {
    /// A codebook of so many random directions.
    pub fn new(n_codes: usize, width: usize, device: &Device) -> Self {
        let init = Initializer::Normal { mean: 0.0, std: 1.0 };
        Self { vectors: init.init([n_codes, width], device) }
    }

    /// The codebook's vectors that are nearest, and the loss that pulls both together, `[1]`.
    ///
    /// # Shapes
    /// `[B, D, h, w] -> [B, D, h, w]`
    pub fn quantise(&self, vectors: Tensor<4>) -> (Tensor<4>, Tensor<1>) {
        let [batch, width, h, w] = vectors.dims();
        let rows = rows_of(vectors);
        let codes = self.nearest(rows.clone());
        let chosen = normalised(self.vectors.val()).select(0, codes); // [N, D]
        let codebook = (chosen.clone() - rows.clone().detach()).square().mean();
        let commitment = (chosen.clone().detach() - rows.clone()).square().mean();
        let straight_through = rows.clone() + (chosen - rows).detach();
        (grid_of(straight_through, [batch, width, h, w]), codebook + commitment * COMMITMENT)
    }

    /// The codes of vectors.
    ///
    /// # Shapes
    /// `[B, D, h, w] -> [B, h * w]`
    pub fn codes(&self, vectors: Tensor<4>) -> Tensor<2, Int> {
        let [batch, _, h, w] = vectors.dims();
        self.nearest(rows_of(vectors)).reshape([batch, h * w])
    }

    /// The unit vectors of codes.
    ///
    /// # Shapes
    /// `[B, h * w] -> [B, D, h, w]`
    pub fn values(&self, codes: Tensor<2, Int>, [h, w]: [usize; 2]) -> Tensor<4> {
        let [batch, n] = codes.dims();
        let vectors = normalised(self.vectors.val());
        let width = vectors.dims()[1];
        grid_of(vectors.select(0, codes.reshape([batch * n])), [batch, width, h, w])
    }

    // [N, D] -> [N]
    fn nearest(&self, rows: Tensor<2>) -> Tensor<1, Int> {
        let n = rows.dims()[0];
        let cosines = rows.detach().matmul(normalised(self.vectors.val().detach()).transpose()); // [N, K]
        cosines.argmax(1).reshape([n])
    }
}

fn normalised(rows: Tensor<2>) -> Tensor<2> {
    let norm = rows.clone().square().sum_dim(1).sqrt().clamp_min(EPSILON);
    rows / norm
}

// [B, D, h, w] -> unit rows [N, D]
fn rows_of(vectors: Tensor<4>) -> Tensor<2> {
    let [batch, width, h, w] = vectors.dims();
    normalised(vectors.permute([0, 2, 3, 1]).reshape([batch * h * w, width]))
}

// [N, D] -> [B, D, h, w]
fn grid_of(rows: Tensor<2>, [batch, width, h, w]: [usize; 4]) -> Tensor<4> {
    rows.reshape([batch, h, w, width]).permute([0, 3, 1, 2])
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::module::ParamId;

    fn codebook(device: &Device) -> VectorCodebook {
        let vectors = Tensor::from_data([[2.0, 0.0], [0.0, 0.5], [-1.0, -1.0]], device);
        VectorCodebook { vectors: Param::initialized(ParamId::new(), vectors).set_require_grad(true) }
    }

    #[test]
    fn the_nearest_direction_is_the_code_whatever_the_lengths() {
        let device = Device::flex();
        let codebook = codebook(&device);
        // Two rows of pictures, three places: (x, y) of each.
        let vectors = Tensor::<4>::from_data(
            [[[[0.1, -5.0, 1.0]], [[0.05, -4.0, 3.0]]], [[[-0.1, 0.2, 9.0]], [[0.3, -0.1, 8.0]]]],
            &device,
        );
        let codes = codebook.codes(vectors.clone()).into_data().iter::<i32>().collect::<Vec<_>>();
        assert_eq!(codes, [0, 2, 1, 1, 0, 0]);
        let values = codebook.values(codebook.codes(vectors.clone()), [1, 3]);
        let (quantised, _) = codebook.quantise(vectors);
        let [values, quantised] = [values, quantised].map(|tensor| tensor.try_into_vec_as::<f32>().unwrap());
        let half = 0.5_f32.sqrt();
        let expected = [1.0, -half, 0.0, 0.0, -half, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0];
        for ((value, quantised), expected) in values.iter().zip(&quantised).zip(expected) {
            assert!((value - expected).abs() < 1e-6 && (quantised - expected).abs() < 1e-6, "{values:?} {quantised:?}");
        }
    }

    #[test]
    fn the_loss_moves_codebook_and_vectors_and_the_gradient_passes_the_choice() {
        let device = Device::flex().autodiff();
        let codebook = codebook(&device);
        let at = |x: f32, y: f32| Tensor::<4>::from_data([[[[x]], [[y]]]], &device).require_grad();
        let vectors = at(3.0, 4.0);
        let (quantised, _) = codebook.quantise(vectors.clone());
        let (_, loss) = codebook.quantise(vectors.clone());
        // Unit (0.6, 0.8), nearest (0, 1): the mean of 0.36 and 0.04, once and a quarter.
        assert!((loss.clone().into_scalar::<f32>() - 0.2 * 1.25).abs() < 1e-6);
        let gradients = (quantised * Tensor::from_data([[[[1.0]], [[0.0]]]], &device)).sum().backward();
        // d/d(x, y) of x / |(x, y)| = (y^2, -x y) / |.|^3, though the quantised value is constant.
        let found = vectors.grad(&gradients).unwrap().try_into_vec_as::<f32>().unwrap();
        assert!((found[0] - 16.0 / 125.0).abs() < 1e-6 && (found[1] + 12.0 / 125.0).abs() < 1e-6, "{found:?}");
        let gradients = loss.backward();
        let moved = codebook.vectors.val().grad(&gradients).unwrap().try_into_vec_as::<f32>().unwrap();
        // Only the chosen vector moves, and only along the circle: (0, 0.5) towards (0.6, 0.8), so its x grows.
        assert!(moved[2] < -0.1 && moved[3].abs() < 1e-6, "{moved:?}");
        assert!([0, 1, 4, 5].iter().all(|&i| moved[i] == 0.0), "{moved:?}");
        assert!(vectors.grad(&gradients).is_some());
    }
}
