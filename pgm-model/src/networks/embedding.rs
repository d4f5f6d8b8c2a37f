//! The token embedding that all networks begin with.
// B batch, S positions, H hidden

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
