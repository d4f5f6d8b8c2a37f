//! GPT-2's configuration: Hugging Face's `config.json`. A value that this implementation does not support is an error that
//! names its key.

use std::path::Path;

use pgm_model::model_folder::CONFIG_FILE;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// A Hugging Face `config.json` of a GPT-2. Unknown keys are ignored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpt2Config {
    /// Must be "gpt2".
    pub model_type: String,
    /// Size of the vocabulary.
    pub vocab_size: usize,
    /// Longest sequence.
    pub n_positions: usize,
    /// Hidden size.
    pub n_embd: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Attention heads.
    pub n_head: usize,
    /// Inner width of the feed-forward layer; absent means `4 * n_embd`.
    pub n_inner: Option<usize>,
    /// Added to the variance in every norm.
    pub layer_norm_epsilon: f64,
    /// Must be "gelu_new".
    pub activation_function: String,
    /// Whether the head shares the embedding's weight; must be true.
    pub tie_word_embeddings: bool,
    /// Whether attention scores are divided by the root of the head width; must be true.
    pub scale_attn_weights: bool,
    /// Whether attention scores are also divided by the block's number; must be false.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether blocks attend to an encoder; must be false.
    pub add_cross_attention: bool,
    /// The token that ends a text.
    pub eos_token_id: Option<u32>,
}

impl Default for Gpt2Config {
    /// GPT-2 small.
    fn default() -> Self {
        Self {
            model_type: "gpt2".to_string(),
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            layer_norm_epsilon: 1e-5,
            activation_function: "gelu_new".to_string(),
            tie_word_embeddings: true,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            add_cross_attention: false,
            eos_token_id: Some(50256),
        }
    }
}

impl Gpt2Config {
    /// Reads `config.json` of a folder.
    ///
    /// # Errors
    /// Names the file that cannot be read, or the key with an unsupported value.
    pub fn load(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(CONFIG_FILE);
        let json = std::fs::read(&path).map_err(|error| TrainError::file("read", &path, error))?;
        Self::parse(&json, &path.display().to_string())
    }

    fn parse(json: &[u8], origin: &str) -> Result<Self, TrainError> {
        let refuse =
            |cause: String| TrainError::judge(origin, format!("is not the configuration of a GPT-2 ({cause})"));
        if !json.trim_ascii_start().starts_with(b"{") {
            return Err(refuse("it is not a JSON object".to_string()));
        }
        let config: Self = serde_json::from_slice(json).map_err(|error| refuse(error.to_string()))?;
        let usual = Self::default();
        let unlike = |key: &str, found: &dyn std::fmt::Display, expected: &dyn std::fmt::Display| {
            let problem = format!("{key} = {found} is another architecture; the judge must have {key} = {expected}");
            Err(TrainError::judge(origin, problem))
        };
        if config.model_type != usual.model_type {
            return unlike("model_type", &config.model_type, &usual.model_type);
        }
        if config.activation_function != usual.activation_function {
            return unlike("activation_function", &config.activation_function, &usual.activation_function);
        }
        let switches = [
            ("tie_word_embeddings", config.tie_word_embeddings, usual.tie_word_embeddings),
            ("scale_attn_weights", config.scale_attn_weights, usual.scale_attn_weights),
            (
                "scale_attn_by_inverse_layer_idx",
                config.scale_attn_by_inverse_layer_idx,
                usual.scale_attn_by_inverse_layer_idx,
            ),
            ("add_cross_attention", config.add_cross_attention, usual.add_cross_attention),
        ];
        if let Some((key, found, expected)) = switches.iter().find(|(_, found, expected)| found != expected) {
            return unlike(key, found, expected);
        }
        let sizes = [
            ("vocab_size", config.vocab_size),
            ("n_positions", config.n_positions),
            ("n_embd", config.n_embd),
            ("n_layer", config.n_layer),
            ("n_head", config.n_head),
            ("n_inner", config.inner()),
        ];
        if let Some((key, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(TrainError::judge(origin, format!("{key} must be at least 1")));
        }
        if !config.n_embd.is_multiple_of(config.n_head) {
            let problem = format!("n_embd = {} is not a multiple of n_head = {}", config.n_embd, config.n_head);
            return Err(TrainError::judge(origin, problem));
        }
        Ok(config)
    }

    /// Width of the feed-forward layer.
    pub(super) fn inner(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsupported_value_is_named_by_its_key() {
        assert_eq!(Gpt2Config::parse(b"{\"n_ctx\": 1024, \"n_layer\": 36}", "c").unwrap().n_layer, 36);
        let cases = [
            ("{\"model_type\": \"llama\"}", "model_type = llama"),
            ("{\"activation_function\": \"relu\"}", "activation_function = relu"),
            ("{\"tie_word_embeddings\": false}", "tie_word_embeddings = false"),
            ("{\"scale_attn_weights\": false}", "scale_attn_weights = false"),
            ("{\"scale_attn_by_inverse_layer_idx\": true}", "scale_attn_by_inverse_layer_idx = true"),
            ("{\"n_head\": 7}", "not a multiple of n_head = 7"),
            ("{\"n_layer\": 0}", "n_layer must be at least 1"),
            ("[]", "not the configuration of a GPT-2 (it is not a JSON object)"),
            ("{\"n_layer\": \"two\"}", "not the configuration of a GPT-2 (invalid type"),
        ];
        for (json, expected) in cases {
            let message = Gpt2Config::parse(json.as_bytes(), "c.json").unwrap_err().to_string();
            assert!(message.starts_with("c.json: ") && message.contains(expected), "{message}");
        }
    }
}
