//! Checkpoints of a run, in `OUT/checkpoints/`.
//!
//! | folder | what |
//! |---|---|
//! | `step-NNNNNNNN/` | a model folder with what training needs to go on: `optim.bpk`, `scheduler.bpk`, `state.json`, and `model.bpk` where `model.safetensors` has the averaged weights |
//! | `best-NNNNNNNN/` | the model folder of the lowest validation so far |
//!
//! A folder is written under a temporary name, synced and renamed; only then are older ones removed. `state.json` holds size
//! and CRC-32 of the large files, so a damaged checkpoint is recognised and the one before is used. No weights are stored
//! twice: without an average `model.safetensors` is what a resumed run reads, and the weights of a best model of the same
//! step are one file under two names.

mod average;
mod disk;
mod read;
mod state;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use average::StoredAverage;
pub(crate) use read::{Checkpoint, CheckpointRecords, newest};
pub(crate) use state::{CheckpointState, PendingLoss, list, started};
pub(crate) use writer::{CheckpointParts, CheckpointWriter, write_best};
