//! Published checkpoints: files of `torch.save` and safetensors files, read as data.
//!
//! [`PublishedCheckpoint`] is a view of a file: the raw weights and, if there are any, the averaged ones, under their
//! published names; the settings of the file's pickled configuration; the tokenizer in it.
//! [`PublishedCheckpoint::resolve`] makes a configuration of it. Sizes come from the tensors; the rest comes from flags, the
//! file or the published defaults, in this order. Weights are loaded by
//! [`model_folder::from_source`](crate::model_folder::from_source), so that one table knows the names.
//!
//! [`CheckpointFiles`] finds the files of a checkpoint: one file, the shards of an index, or a hub folder.
//!
//! [`torch_file`] reads the container and the pickle in it. Nothing is executed.

mod causal;
#[cfg(feature = "files")]
mod checkpoint_files;
mod configuration;
mod images;
mod metadata;
mod picker;
mod published_checkpoint;
mod resolve;
mod tensors;
mod torch_checkpoint;
pub mod torch_file;

pub(crate) use tensors::Tensors;
pub(crate) use torch_checkpoint::read_torch_state;

#[cfg(feature = "files")]
pub use checkpoint_files::CheckpointFiles;
pub use metadata::SpecialNames;
pub use picker::ResolvedSetting;
pub use published_checkpoint::{CheckpointWeights, PublishedCheckpoint};
pub use resolve::{ImportOverrides, SpecialIds};
