//! The built-in byte tokenizer, as a `tokenizer.json`.

use serde_json::{Value, json};

/// The names of the special tokens of the tokenizers that this crate makes.
pub(super) const SPECIAL: [&str; 2] = ["<|endoftext|>", "<|mask|>"];

/// A byte-level BPE without merges.
pub(super) fn bytes_json() -> Vec<u8> {
    let vocab: serde_json::Map<String, Value> =
        (0..=255_u8).map(|byte| (byte_level_char(byte).to_string(), json!(byte))).collect();
    let special = |id: usize, name: &str| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(256, SPECIAL[0]), special(257, SPECIAL[1])],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": []},
    });
    serde_json::to_vec_pretty(&tokenizer).expect("JSON values always serialise")
}

// GPT-2's printable character for a byte: the byte itself if it prints, else the next free code point from 256 on.
fn byte_level_char(byte: u8) -> char {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if prints(byte) {
        char::from(byte)
    } else {
        let index = (0..byte).filter(|&earlier| !prints(earlier)).count() as u32;
        char::from_u32(256 + index).expect("a small code point")
    }
}
