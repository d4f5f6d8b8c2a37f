//! The trait of a judge.

use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Which of a row's last hidden states is its feature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// That of the last token, as MAUVE's authors do.
    #[default]
    Last,
    /// The mean over the row.
    Mean,
}

impl Pooling {
    /// The name in reports: what is taken of a judge's hidden states.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Last => "last hidden state of the last token",
            Self::Mean => "last hidden states, mean over the row",
        }
    }
}

/// An autoregressive language model with its tokenizer.
pub trait Judge {
    /// The judge's tokens of a text. No special token is added.
    ///
    /// # Errors
    /// When the tokenizer cannot encode the text.
    fn encode(&self, text: &str) -> Result<Vec<u32>, TrainError>;

    /// The token that ends a text.
    fn eos(&self) -> u32;

    /// Size of the vocabulary.
    fn vocab_size(&self) -> usize;

    /// Tokens of the longest row that the model accepts.
    fn max_length(&self) -> usize;

    /// NLL in nats of each row's tokens but the first, given the tokens before: entry `i` belongs to token `i + 1`.
    /// The rows are one batch. None is empty, none is longer than [`max_length`](Self::max_length).
    ///
    /// # Errors
    /// When the device fails.
    fn token_nll(&self, rows: &[&[u32]]) -> Result<Vec<Vec<f64>>, TrainError>;

    /// The feature of each row for [`mauve`](crate::judge::mauve()). The rows are as those of
    /// [`token_nll`](Self::token_nll); all features have one width. [`ragged_features`](crate::judge::ragged_features) helps.
    ///
    /// # Errors
    /// When the device fails, or the judge has no hidden states to give, as by default.
    fn features(&self, rows: &[&[u32]], pooling: Pooling) -> Result<Vec<Vec<f32>>, TrainError> {
        let _ = (rows, pooling);
        Err(TrainError::judge("MAUVE", "this judge gives no hidden states; take a GPT-2 or a model of pgm-train"))
    }

    /// The network in a few words, to name the features: its kind, its blocks, its width.
    fn network(&self) -> String {
        "the judge".to_string()
    }
}
