//! Request bodies, as far as they can be read without a model.
//!
//! These files know neither axum nor a model, so that `fuzz/` builds them alone.

mod chat;
mod common;
mod completion;
mod infill;
pub mod llama_cpp;
mod neutral;
mod parse;
mod score;
mod tokenize;

pub use chat::{ChatBody, ChatMessage};
pub use common::{Common, MAX_SEED};
pub use completion::{CompletionBody, Prompt};
pub use infill::InfillBody;
pub use parse::{BodyError, RequestBody, parse};
pub use score::{Reduction, ScoreBody};
pub use tokenize::{DetokenizeBody, TokenizeBody};
