//! The trait of a judge.

use crate::TrainError;

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
}
