//! Evaluation of models: perplexity of held-out rows ([`ppl()`]), multiple choice ([`choice()`]), the last word of a text
//! ([`greedy()`]), samples for a judge ([`sample_texts()`]), and the frontier of several samplers ([`frontier()`]).
//!
//! Random draws (rows, hidden tokens, samples) depend on the seed and an index only. They do not depend on the model, the
//! batch size or an interruption. Two models with one seed are therefore asked the same questions, a repeated run gives
//! the same numbers, and with a [`ResultLog`] a stopped run continues where it stopped.

mod bound;
pub mod cache;
pub mod choice;
pub mod frontier;
pub mod generative;
pub mod greedy;
pub mod images;
mod model;
pub mod ppl;
mod result_log;

pub use choice::{ChoiceReport, ChoiceSettings, Question, choice};
pub use frontier::{Frontier, FrontierSettings, frontier};
pub use generative::{GenerativeSettings, sample_texts};
pub use greedy::{GreedyReport, GreedySettings, LastWord, greedy};
pub use model::{EvalModel, kind, same_tokenizer};
pub(crate) use model::{check_same_data, check_same_tokens};
pub use ppl::{PplReport, PplSettings, RowNats, ppl};
pub use result_log::ResultLog;
