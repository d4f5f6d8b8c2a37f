//! Text around the sampling loop: a model with its tokenizer, templates, and how a row of tokens reads.

mod animation;
mod border;
pub mod canvas;
mod cells;
pub mod denoise;
mod generation;
pub(crate) mod layout;
mod model;
mod pieces;
pub(crate) mod reader;
pub(crate) mod request;
mod special_tokens;
pub mod template;
#[cfg(all(test, feature = "flex"))]
mod tests;
mod token_bytes;
mod token_names;

pub use animation::TextAnimation;
pub use generation::GenerationConfig;
pub use layout::TextRow;
pub use model::{ModelBytes, TextModel, check_tokenizer};
pub use reader::{FilledBlank, FilledRow};
pub use special_tokens::{ChatTemplates, SpecialTokens};
