//! The token embedding that all networks begin with.
// B batch, S positions, H hidden, R registers

use std::ops::Range;

use burn::module::Initializer;
use burn::nn::{Embedding, EmbeddingConfig};
use burn::tensor::{Device, FloatDType, Int, Tensor};

use crate::config::BackboneConfig;
use crate::ops::is_half;

/// A new embedding, drawn from U(-1/sqrt(H), 1/sqrt(H)).
pub(crate) fn embedding(config: &BackboneConfig, device: &Device) -> Embedding {
    let bound = 1.0 / (config.hidden_size as f64).sqrt();
    EmbeddingConfig::new(config.vocab_size, config.hidden_size)
        .with_initializer(Initializer::Uniform { min: -bound, max: bound })
        .init(device)
}

/// The vectors of tokens, in float32 also where the embedding is stored in half precision.
///
/// # Shapes
/// `[B, S] -> [B, S, H]`
pub(crate) fn embed(embedding: &Embedding, tokens: Tensor<2, Int>) -> Tensor<3> {
    let vectors = embedding.forward(tokens); // [B, S, H]
    if is_half(vectors.dtype()) { vectors.cast(FloatDType::F32) } else { vectors }
}

/// Vectors of registers, drawn from N(0, 0.02^2); `None` where there are no registers.
pub(crate) fn register_embedding(n: usize, width: usize, device: &Device) -> Option<Embedding> {
    let initializer = Initializer::Normal { mean: 0.0, std: 0.02 };
    (n > 0).then(|| EmbeddingConfig::new(n, width).with_initializer(initializer).init(device))
}

/// Some of the registers, for each of `n_rows` rows.
///
/// # Shapes
/// `-> [n_rows, R, H]`
pub(crate) fn registers(embedding: &Embedding, range: Range<usize>, n_rows: usize) -> Tensor<3> {
    let (n, device) = (range.len(), embedding.weight.lazy_device());
    let index = Tensor::<1, Int>::arange(range.start as i64..range.end as i64, &device).unsqueeze::<2>();
    let vectors = embed(embedding, index); // [1, R, H]
    let width = vectors.dims()[2];
    vectors.expand([n_rows, n, width])
}
