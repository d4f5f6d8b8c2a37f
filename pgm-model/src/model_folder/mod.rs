//! Model folders: `config.json` and `model.safetensors`, with `tokenizer.json`, `tokenizer_config.json` and
//! `generation_config.json` beside.
//!
//! Weights are stored under the names of the published checkpoints, without their `backbone.` prefix. Linear weights are
//! stored as `[out, in]`. So PyTorch code reads our files, and we read its files. `published_names.rs` has the one table
//! of names.
//!
//! Loading checks that every tensor is there, has the configured shape and belongs to the model. Files of other formats
//! (see [`import`](crate::import)) are loaded by [`from_source`], with the same table and checks.
//!
//! Everything that opens a model folder by its path also takes a training run, see [`resolve`].
//!
//! Everything that touches the disk needs the feature `files`. Without it, [`load_bytes`] loads a model from memory.

#[cfg(feature = "files")]
mod atomic_write;
mod convert;
mod file_names;
mod folder;
mod load;
#[cfg(feature = "files")]
mod mapped_file;
mod published_names;
#[cfg(feature = "files")]
mod run_folder;
mod serialise;
mod tensor_source;

#[cfg(feature = "files")]
pub use atomic_write::{atomic_write, atomic_write as write_file, sync_file, sync_folder};
pub use file_names::{
    BEST_PREFIX, CHECKPOINTS_FOLDER, CONFIG_FILE, GENERATION_FILE, MODEL_FOLDER, ROUND_PREFIX, STEP_PREFIX,
    TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, TRAINING_FILE, WEIGHTS_FILE,
};
pub use folder::load_bytes;
#[cfg(feature = "files")]
pub use folder::{load, load_config, load_weights, load_with_progress, save};
pub(crate) use load::from_finite_source;
pub use load::{from_safetensors, from_source};
#[cfg(feature = "files")]
pub use mapped_file::MappedFile;
pub(crate) use published_names::is_buffer;
pub use published_names::known_names;
#[cfg(feature = "files")]
pub use run_folder::{numbered, resolve, trained_step};
pub use serialise::{CONFIG_METADATA, TOKENIZER_METADATA, to_published, to_published_with_tokenizer, to_safetensors};
pub(crate) use serialise::{Collected, collect};
pub(crate) use tensor_source::SafeTensorsSource;
pub use tensor_source::{StoredTensor, TensorSource, refuse_substitute};
