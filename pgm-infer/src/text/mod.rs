//! Text around the sampling loop: a model with its tokenizer, templates, and how a row of tokens reads.

pub mod canvas;
mod generation;
mod model;
mod pieces;
pub(crate) mod reader;
mod request;
pub mod template;

pub use generation::GenerationConfig;
pub use model::{ModelBytes, TextModel, check_tokenizer};
pub use reader::FilledBlank;
