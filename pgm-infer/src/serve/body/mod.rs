//! Request bodies, as far as they can be read without a model.
//!
//! These files know neither axum nor a model, so that `fuzz/` builds them alone.

mod common;
mod completion;
mod infill;
mod neutral;
mod parse;

pub use common::{Common, MAX_SEED};
pub use completion::{CompletionBody, Prompt};
pub use infill::InfillBody;
pub use parse::{BodyError, RequestBody, parse};
