//! Evaluation of samples: their perplexity under another model, their entropy and their diversity.
//!
//! A [`Judge`] is an autoregressive language model that gives every token of a text its negative log-likelihood (NLL).
//! [`judge_samples`] makes a [`JudgeReport`] of these numbers: the generative perplexity by both conventions of the
//! field ([`counting`]), the unigram entropy, and the shares of distinct n-grams. Read the entropy together with the
//! perplexity: a model that repeats itself has a low perplexity. [`mauve()`] compares the [`features()`] of two sets.
//!
//! [`Gpt2Judge`] is a GPT-2 folder, [`OwnJudge`] an autoregressive model of this project. Other models become judges by
//! implementing the trait; [`ragged_nll`] helps with rows of different lengths.
//!
//! The judge tokenises a text as it is. No token is put before it, so its first token has no prediction. Names of
//! special tokens in the text (`<|endoftext|>`) are read as those tokens, as in the public code.

mod batches;
pub mod counting;
mod features;
mod gpt2;
mod language_model;
mod mauve;
pub mod metrics;
mod open;
mod own;
mod progress;
mod report;
mod samples;

#[cfg(test)]
mod tests;

pub use batches::{ragged_features, ragged_nll};
pub use features::{feature_name, features};
pub use gpt2::{Gpt2, Gpt2Config, Gpt2Judge};
pub use language_model::{Judge, Pooling};
pub use mauve::{CLUSTERINGS, Mauve, mauve};
pub use open::{identity, is_own, open};
pub use own::OwnJudge;
pub use progress::Observe;
pub(crate) use progress::report_progress;
pub use report::{JudgeReport, JudgeSettings, JudgedSample, Perplexity, judge_each, judge_samples};
pub use samples::{Sample, read_samples, write_samples};
