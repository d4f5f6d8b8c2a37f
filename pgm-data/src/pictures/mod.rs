//! Pictures of any source as rows of pixels, or of pixels as tokens.
//!
//! [`PictureInputs::find`] finds pictures in folders, MNIST and CIFAR files, webdataset tar files, Parquet and Arrow files;
//! [`prepare_images`] decodes them, crops them to squares and writes a data folder.

mod archive;
pub(crate) mod classes;
#[cfg(feature = "columns")]
pub(crate) mod columns;
mod decode;
pub(crate) mod held_out;
mod inputs;
mod label_file;
mod packed;
pub(crate) mod picture;
mod prepare;
mod resample;
pub(crate) mod source;
mod square;
mod walk;

pub use classes::read_class_names;
pub use inputs::{PictureInputs, PictureLabels, PictureOptions};
pub use prepare::{PictureCounts, PictureValidation, PrepareImages, prepare_images};
