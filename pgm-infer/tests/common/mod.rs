//! A tiny model with random weights.
#![allow(dead_code)] // each test program uses its part

#[cfg(feature = "server")]
pub mod http;
pub mod image_models;
pub mod text_models;

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::Device;
use pgm_infer::{GenerationConfig, TextModel};
use pgm_model::{BackboneConfig, ModelConfig, Network, PartitionConfig, Projection, Queries};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

/// Size of the vocabulary, the mask included.
pub const VOCAB: usize = 40;

/// The sizes that all test models share.
pub fn backbone() -> BackboneConfig {
    BackboneConfig { cond_dim: 8, ..BackboneConfig::new(VOCAB, 32, 2, 24) }
}

/// The configuration of a partition model.
pub fn partition_config() -> PartitionConfig {
    PartitionConfig {
        backbone: backbone(),
        encoder_blocks: 1,
        decoder_blocks: 1,
        queries: Queries::LearnFreqs,
        projection: Projection::Linear,
        sets: Default::default(),
    }
}

/// The same as the configuration of any model.
pub fn partition() -> ModelConfig {
    ModelConfig::Partition(partition_config())
}

/// A model whose tokens are the words w0, w1, ... with spaces between them.
pub fn model(config: &ModelConfig) -> TextModel {
    model_of(config, config, Value::Null)
}

/// A model whose tokenizer panics when it decodes token 7: its decoder cuts a w from either end of that token's one letter.
pub fn model_whose_tokenizer_panics() -> TextModel {
    model_of(&partition(), &partition(), json!({"type": "Strip", "content": "w", "start": 1, "stop": 1}))
}

/// A model whose network knows half of its tokens: for the others a backend panics, as it does when a device is lost.
pub fn failing_model() -> TextModel {
    let config = |vocab_size: usize| {
        let backbone = BackboneConfig { bos_index: 0, eos_index: 0, vocab_size, ..backbone() };
        let backbone = BackboneConfig { mask_index: vocab_size - 1, ..backbone };
        ModelConfig::Partition(PartitionConfig { backbone, ..partition_config() })
    };
    model_of(&config(VOCAB), &config(VOCAB / 2), Value::Null)
}

/// A model whose network knows half of its tokens, and not BOS: a backend panics in each step, as when its device is lost.
pub fn broken_model() -> TextModel {
    let backbone = BackboneConfig { bos_index: 0, eos_index: 0, mask_index: VOCAB / 2 - 1, ..backbone() };
    let network =
        PartitionConfig { backbone: BackboneConfig { vocab_size: VOCAB / 2, ..backbone }, ..partition_config() };
    model_of(&partition(), &ModelConfig::Partition(network), Value::Null)
}

/// A model whose tokenizer panics when it encodes a text that is not empty.
pub fn model_whose_tokenizer_cannot_encode() -> TextModel {
    model_with(&partition(), &partition(), json!({"type": "FixedLength", "length": 0}), Value::Null)
}

/// The model of `tests/byte-model`, whose tokens are bytes, in rows of 128; with a chat template, if one is given.
pub fn bytes(chat_template: Option<&str>) -> TextModel {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/byte-model");
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    if let Some(template) = chat_template {
        let config = json!({"bos_token": {"content": "<|endoftext|>"}, "chat_template": template});
        std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    }
    TextModel::load(folder.path(), &Device::flex()).unwrap()
}

fn model_of(config: &ModelConfig, network: &ModelConfig, decoder: Value) -> TextModel {
    model_with(config, network, json!({"type": "WhitespaceSplit"}), decoder)
}

fn model_with(config: &ModelConfig, network: &ModelConfig, pre_tokenizer: Value, decoder: Value) -> TextModel {
    let word = |id: usize| if id == 7 && !decoder.is_null() { "w".to_string() } else { format!("w{id}") };
    let vocab: HashMap<String, usize> = (0..VOCAB - 1).map(|id| (word(id), id)).collect();
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"},
    });
    let tokenizer = Tokenizer::from_bytes(json.to_string()).unwrap();
    let device = Device::flex();
    let network = Network::new(network, &device).with_noise(0.5, 4);
    TextModel::new(config.clone(), network, tokenizer, GenerationConfig::default(), &device, "test").unwrap()
}
