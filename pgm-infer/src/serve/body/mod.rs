//! Request bodies, as far as they can be read without a model.
//!
//! These files know neither axum nor a model, so that `fuzz/` builds them alone.

mod chat;
mod common;
mod completion;
mod edit;
mod infill;
pub mod llama_cpp;
mod neutral;
mod parse;
mod picture;
mod refresh;
mod sampler;
mod score;
mod tokenize;

pub use chat::{ChatBody, ChatMessage};
pub use common::Common;
pub use completion::{CompletionBody, Prompt};
pub use edit::{EditArea, EditBody, FormField, Upload};
pub use infill::InfillBody;
pub use parse::{BodyError, RequestBody, parse};
pub use picture::{ClassName, Classes, GenerationBody, PictureFields};
pub use sampler::MAX_SEED;
pub use score::{Reduction, ScoreBody};
pub use tokenize::{DetokenizeBody, TokenizeBody};
