//! A preparation in several processes that never meet: [`prepare_part`] tokenizes a part of the inputs, and [`merge_parts`]
//! makes of all parts the folder that one process would have made, to the byte.
//!
//! Whatever depends on all text is left to the merge: the place of the validation split, the order of shuffled documents, the
//! shares of a mixture, and where rows begin. A part therefore keeps the pieces of its text as tokens, each with what the
//! merge needs to know of it. Tokenizing is most of the work; the merge copies tokens and is bound by the disk.
//!
//! Where the validation text begins within a piece, its two halves have other tokens than the whole. The merge reads this
//! one piece of the inputs again.
//!
//! A part is a folder `part-00003-of-00016` that is renamed from a temporary name when it is complete.

mod find;
mod folder;
mod merge;
mod settings;
mod stream;
mod write;

pub(crate) use folder::has_parts;
pub use merge::{MergeParts, merge_parts};
pub use write::{PreparedPart, part_share, prepare_part};
