//! Text to token rows: what training reads, memory-mapped, in an order that is a pure function of (seed, step).
//!
//! [`prepare()`] turns text, JSONL and Parquet into a data folder; [`TokenRows`] maps a split of it; [`RowOrder`] says
//! which row a training step takes. Nothing here knows a model.

pub mod detokenize;
pub mod error;
pub mod order;
pub mod prepare;
pub mod rows;
mod shard;
pub mod source;
pub mod tokenizer;

pub use detokenize::Detokenizer;
pub use error::DataError;
pub use order::RowOrder;
pub use prepare::{Mode, Prepare, Validation, prepare};
pub use rows::{DataFolder, Manifest, Row, Split, TokenRows};
pub use source::TextInputs;
pub use tokenizer::{SpecialNames, SpecialTokens, TextTokenizer};
