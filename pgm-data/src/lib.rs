//! Text and pictures to rows: memory-mapped training data, in an order that is a pure function of (seed, step).
//!
//! [`prepare()`] turns plain text, JSON, tables, Parquet and Arrow into a data folder, [`prepare_images`] turns pictures into
//! one. [`DataFolder`] opens it, [`TokenRows`] and [`PixelRows`] map the rows of one split, and [`RowOrder`] says which rows a
//! training step takes. [`prepare_part`] and [`merge_parts`] divide the work among processes. This crate knows no model and no codec; an [`ImageFolderWriter`] takes the codes of any.

pub mod codes;
pub mod data_folder;
pub mod detokenize;
pub mod error;
mod files;
pub mod image_info;
pub mod image_writer;
pub mod manifest;
mod mix;
#[cfg(not(feature = "columns"))]
mod no_columns;
pub mod pictures;
pub mod prepare;
pub mod row_order;
pub mod rows;
mod shard;
pub mod source;
pub mod special_tokens;
pub mod tokenizer;

pub use codes::{CodesFormat, ImportCodes, import_codes};
pub use data_folder::DataFolder;
pub use detokenize::Detokenizer;
pub use error::DataError;
pub use image_info::{CodecIdentity, Crop, ImageInfo, ImageKind, PixelShape};
pub use image_writer::ImageFolderWriter;
pub use manifest::{Manifest, Mode, Split, SplitManifest};
pub use pictures::{
    PictureCounts, PictureInputs, PictureLabels, PictureOptions, PictureValidation, PrepareImages, prepare_images,
    read_class_names,
};
pub use prepare::{
    MergeParts, Prepare, Prepared, PreparedPart, Progress, Validation, merge_parts, part_share, prepare, prepare_part,
    prepare_with_notes,
};
pub use row_order::RowOrder;
pub use rows::{PixelRows, Row, TokenRows};
pub use source::{
    Compression, Documents, FileFormat, InputFile, PartIndex, ReadOptions, SkippedFile, TextEncoding, TextInputs,
};
pub use special_tokens::{SpecialNames, SpecialTokens};
pub use tokenizer::TextTokenizer;
