//! Batches and their loaders. A batch is a function of (seed, step) and holds data only, never a network.

mod batch;
mod host_batch;
mod iterator;
pub(crate) mod random;
mod train_loader;
mod validation_loader;

pub use batch::{Batch, DistillBatch, MaskedRow, NetworkInputs, ObjectiveBatch, ValidationBatch};
pub use train_loader::TrainLoader;
pub use validation_loader::ValidationLoader;

pub(crate) use host_batch::{draw_groups, read_rows};
pub(crate) use iterator::BatchIterator;
