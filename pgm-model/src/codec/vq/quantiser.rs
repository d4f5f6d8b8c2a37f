//! The codebook: vectors to codes, and codes to vectors. All vectors are scaled to length 1 first.
// N pictures, Q width of a code's vector, h x w codes, M = N h w, V codes

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{Device, Int, Tensor};

use super::config::VqCodecConfig;

/// Vectors compared with the codebook at a time. The matmul of a chunk is at most `[VECTORS_AT_ONCE, V]`.
const VECTORS_AT_ONCE: usize = 1024;

/// The codebook.
#[derive(Module, Debug)]
pub(super) struct Quantiser {
    embedding: Embedding,
}

impl Quantiser {
    pub(super) fn new(config: &VqCodecConfig, device: &Device) -> Self {
        let bound = 1.0 / config.n_codes as f64;
        let initializer = Initializer::Uniform { min: -bound, max: bound };
        let embedding =
            EmbeddingConfig::new(config.n_codes, config.code_width).with_initializer(initializer).init(device);
        Self { embedding }
    }

    // The codebook, each vector of length 1: [V, Q].
    fn codebook(&self) -> Tensor<2> {
        unit(self.embedding.weight.val())
    }

    /// The codes whose vectors have the greatest cosine with the given ones; the first of several.
    ///
    /// # Shapes
    /// `[N, Q, h, w] -> [N, h w]`
    pub(super) fn codes(&self, vectors: Tensor<4>) -> Tensor<2, Int> {
        let [n, width, rows, columns] = vectors.dims();
        let vectors = unit(vectors.permute([0, 2, 3, 1]).reshape([n * rows * columns, width])); // [M, Q]
        let codebook = self.codebook();
        // The public code compares squared distances, which include the (nearly equal) squared lengths.
        let lengths = codebook.clone().powi_scalar(2).sum_dim(1).swap_dims(0, 1); // [1, V]
        let codebook = codebook.swap_dims(0, 1); // [Q, V]
        let n_vectors = n * rows * columns;
        let chunks = (0..n_vectors).step_by(VECTORS_AT_ONCE).map(|start| {
            let some = vectors.clone().narrow(0, start, VECTORS_AT_ONCE.min(n_vectors - start));
            let own = some.clone().powi_scalar(2).sum_dim(1); // [M, 1]
            let distances = own + lengths.clone() - some.matmul(codebook.clone()) * 2.0; // [M, V]
            distances.argmin(1)
        });
        Tensor::cat(chunks.collect(), 0).reshape([n, rows * columns])
    }

    /// The vectors of codes.
    ///
    /// # Shapes
    /// `[N, h w] -> [N, Q, h, w]` for a grid `[h, w]`
    pub(super) fn vectors(&self, codes: Tensor<2, Int>, [rows, columns]: [usize; 2]) -> Tensor<4> {
        let [n, n_codes] = codes.dims();
        let codebook = self.codebook();
        let width = codebook.dims()[1];
        let vectors = codebook.select(0, codes.reshape([n * n_codes])); // [M, Q]
        vectors.reshape([n, rows, columns, width]).permute([0, 3, 1, 2])
    }
}

// Each row divided by its length, which is at least 1e-12.
fn unit(vectors: Tensor<2>) -> Tensor<2> {
    let lengths = vectors.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(1e-12);
    vectors / lengths
}
