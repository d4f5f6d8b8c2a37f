//! Text to token rows: memory-mapped training data, in an order that is a pure function of (seed, step).
//!
//! [`prepare()`] turns plain text, JSON, tables, Parquet and Arrow into a data folder. [`DataFolder`] opens it,
//! [`TokenRows`] maps the rows of one split, and [`RowOrder`] says which rows a training step takes. This crate knows no
//! model.

pub mod data_folder;
pub mod detokenize;
pub mod error;
mod files;
pub mod image_info;
pub mod image_writer;
pub mod manifest;
pub mod prepare;
pub mod row_order;
pub mod rows;
mod shard;
pub mod source;
pub mod special_tokens;
pub mod tokenizer;

pub use data_folder::DataFolder;
pub use detokenize::Detokenizer;
pub use error::DataError;
pub use image_info::{CodecIdentity, Crop, ImageInfo, ImageKind, PixelShape};
pub use image_writer::ImageFolderWriter;
pub use manifest::{Manifest, Mode, Split, SplitManifest};
pub use prepare::{Prepare, Prepared, Progress, Validation, prepare, prepare_with_notes};
pub use row_order::RowOrder;
pub use rows::{PixelRows, Row, TokenRows};
pub use source::{Compression, Documents, FileFormat, InputFile, ReadOptions, SkippedFile, TextEncoding, TextInputs};
pub use special_tokens::{SpecialNames, SpecialTokens};
pub use tokenizer::TextTokenizer;
