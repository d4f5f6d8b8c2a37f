//! Tiny models with random weights and tokenizers of all kinds.

use burn::tensor::Device;
use pgm_infer::{GenerationConfig, TextModel};
use pgm_model::{
    AutoregressiveConfig, BackboneConfig, MaskedConfig, ModelConfig, Network, PartitionConfig, Projection, Queries,
};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

/// Tokens of a row.
pub const LENGTH: usize = 64;

fn model(tokenizer: Value) -> TextModel {
    model_of_kind(tokenizer, partition)
}

fn partition(backbone: BackboneConfig) -> ModelConfig {
    ModelConfig::Partition(PartitionConfig {
        backbone,
        encoder_blocks: 1,
        decoder_blocks: 1,
        queries: Queries::LearnFreqs,
        projection: Projection::Linear,
        sets: Default::default(),
    })
}

fn model_of_kind(mut tokenizer: Value, kind: fn(BackboneConfig) -> ModelConfig) -> TextModel {
    let vocab = &tokenizer["model"]["vocab"];
    let n = vocab.as_object().map_or_else(|| vocab.as_array().unwrap().len(), serde_json::Map::len);
    let special = json!({
        "id": n, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true,
    });
    tokenizer["added_tokens"] = json!([special]);
    for key in ["normalizer", "post_processor", "truncation", "padding"] {
        if tokenizer[key].is_null() {
            tokenizer[key] = Value::Null;
        }
    }
    tokenizer["version"] = "1.0".into();
    let backbone = BackboneConfig { cond_dim: 8, ..BackboneConfig::new(n + 2, 16, 2, LENGTH) };
    let config = kind(BackboneConfig { bos_index: n, eos_index: n, mask_index: n + 1, ..backbone });
    let device = Device::flex();
    let network = Network::new(&config, &device).with_noise(0.5, 4);
    let tokenizer = Tokenizer::from_bytes(tokenizer.to_string()).unwrap();
    TextModel::new(config, network, tokenizer, GenerationConfig::default(), &device, "test").unwrap()
}

fn letters() -> Vec<String> {
    let printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others = (0..=255_u8).filter(|byte| !printable(byte)).count() as u32;
    let printable = (0..=255_u8).filter(printable).map(|byte| char::from(byte).to_string());
    printable.chain((256..256 + others).map(|letter| char::from_u32(letter).unwrap().to_string())).collect()
}

// Byte-level BPE with these words, each by merges from the left.
fn byte_level(words: &[&str], kind: fn(BackboneConfig) -> ModelConfig) -> TextModel {
    let (mut tokens, mut merges) = (letters(), Vec::new());
    for word in words {
        let letters: Vec<char> = word.chars().collect();
        for end in 1..letters.len() {
            let left: String = letters[..end].iter().collect();
            let whole = format!("{left}{}", letters[end]);
            if !tokens.contains(&whole) {
                merges.push(format!("{left} {}", letters[end]));
                tokens.push(whole);
            }
        }
    }
    let vocab: serde_json::Map<String, Value> =
        tokens.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
        "pre_tokenizer": level, "post_processor": level, "decoder": level,
    });
    model_of_kind(tokenizer, kind)
}

const WORDS: [&str; 8] =
    ["\u{120}king", "\u{120}kingdom", "\u{120}of", "the", "\u{120}the", "\u{120}thereof", "of", "\u{120}beg"];

/// Byte-level BPE with a few words of the King James Bible.
pub fn bpe() -> TextModel {
    byte_level(&WORDS, partition)
}

/// The same in a masked model.
pub fn masked_bpe() -> TextModel {
    byte_level(&WORDS, |backbone| ModelConfig::Masked(MaskedConfig { backbone, n_blocks: 1 }))
}

/// The same in an autoregressive model.
pub fn causal_bpe() -> TextModel {
    byte_level(&WORDS, |backbone| ModelConfig::Autoregressive(AutoregressiveConfig { backbone, n_blocks: 1 }))
}

/// Each token is a byte.
pub fn bytes() -> TextModel {
    byte_level(&[], partition)
}

/// Words and their continuations.
pub fn word_piece() -> TextModel {
    let mut tokens = vec!["[UNK]".to_string()];
    for letter in ('a'..='z').chain(['é', ',', '.', '\'']) {
        tokens.extend([letter.to_string(), format!("##{letter}")]);
    }
    tokens.extend(["king", "##dom", "##s", "of", "the", "there", "##of", "beg"].map(String::from));
    tokens.dedup();
    let vocab: serde_json::Map<String, Value> =
        tokens.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    model(json!({
        "model": {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": false},
    }))
}

/// SentencePiece's unigram model, with spaces as letters.
pub fn unigram() -> TextModel {
    let mut vocab = vec![json!(["<unk>", 0.0]), json!(["\u{2581}", -3.0])];
    vocab.extend(('a'..='z').chain(['é', ',', '.', '\n', '\'']).map(|letter| json!([letter.to_string(), -5.0])));
    let words =
        ["\u{2581}king", "\u{2581}kingdom", "\u{2581}of", "of", "\u{2581}the", "\u{2581}thereof", "\u{2581}beg"];
    vocab.extend(words.map(|word| json!([word, -4.0])));
    let space = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    model(json!({
        "model": {"type": "Unigram", "unk_id": 0, "vocab": vocab, "byte_fallback": false},
        "pre_tokenizer": space, "decoder": space,
    }))
}

/// Llama's form: BPE over whole texts, with a space before each, and bytes for unknown letters.
pub fn llama() -> TextModel {
    let mut tokens = vec!["<unk>".to_string(), "\u{2581}".to_string()];
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(('a'..='z').chain([',', '.']).map(|letter| letter.to_string()));
    let mut merges = Vec::new();
    for word in ["\u{2581}king", "\u{2581}of", "\u{2581}the", "\u{2581}beg", "of"] {
        let letters: Vec<char> = word.chars().collect();
        for end in 1..letters.len() {
            let left: String = letters[..end].iter().collect();
            let whole = format!("{left}{}", letters[end]);
            if !tokens.contains(&whole) {
                merges.push(format!("{left} {}", letters[end]));
                tokens.push(whole);
            }
        }
    }
    let vocab: serde_json::Map<String, Value> =
        tokens.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
    model(json!({
        "model": {"type": "BPE", "vocab": vocab, "merges": merges, "unk_token": "<unk>", "byte_fallback": true, "fuse_unk": true},
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "\u{2581}"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        ]},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
    }))
}
