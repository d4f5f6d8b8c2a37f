//! A tiny model with random weights.
#![allow(dead_code)] // each test program uses its part

#[cfg(feature = "server")]
pub mod http;

use std::collections::HashMap;

use burn::tensor::Device;
use pgm_infer::{GenerationConfig, TextModel};
use pgm_model::{BackboneConfig, ModelConfig, Network, PartitionConfig, Projection, Queries};
use tokenizers::Tokenizer;

/// Tokens, the mask included.
pub const VOCAB: usize = 40;

/// Sizes.
pub fn backbone() -> BackboneConfig {
    BackboneConfig { cond_dim: 8, ..BackboneConfig::new(VOCAB, 32, 2, 24) }
}

/// A partition model's sizes.
pub fn partition_config() -> PartitionConfig {
    PartitionConfig {
        backbone: backbone(),
        encoder_blocks: 1,
        decoder_blocks: 1,
        queries: Queries::LearnFreqs,
        projection: Projection::Linear,
    }
}

/// The same of a model.
pub fn partition() -> ModelConfig {
    ModelConfig::Partition(partition_config())
}

/// A model whose tokens are the words w0, w1, ... with spaces between them.
pub fn model(config: &ModelConfig) -> TextModel {
    model_of(config, config)
}

/// A model whose network knows half of its tokens: over the others a backend panics, as over a device that is lost.
pub fn failing_model() -> TextModel {
    let config = |vocab_size: usize| {
        let backbone = BackboneConfig { bos_index: 0, eos_index: 0, vocab_size, ..backbone() };
        let backbone = BackboneConfig { mask_index: vocab_size - 1, ..backbone };
        ModelConfig::Partition(PartitionConfig { backbone, ..partition_config() })
    };
    model_of(&config(VOCAB), &config(VOCAB / 2))
}

/// A model whose tokenizer panics on every text but the empty one.
pub fn panicking_model() -> TextModel {
    with_pre_tokenizer(&partition(), &partition(), serde_json::json!({"type": "FixedLength", "length": 0}))
}

fn model_of(config: &ModelConfig, network: &ModelConfig) -> TextModel {
    with_pre_tokenizer(config, network, serde_json::json!({"type": "WhitespaceSplit"}))
}

fn with_pre_tokenizer(config: &ModelConfig, network: &ModelConfig, pre_tokenizer: serde_json::Value) -> TextModel {
    let vocab: HashMap<String, usize> = (0..VOCAB - 1).map(|id| (format!("w{id}"), id)).collect();
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"},
    });
    let tokenizer = Tokenizer::from_bytes(json.to_string()).unwrap();
    let device = Device::flex();
    let network = Network::new(network, &device).with_noise(0.5, 4);
    TextModel::new(config.clone(), network, tokenizer, GenerationConfig::default(), &device, "test").unwrap()
}
