//! The averaged weights of a checkpoint.

use std::path::PathBuf;

use burn::store::ModuleRecord;

use crate::TrainError;
use crate::run::loop_model::LoopModel;

/// Where the averaged weights of a checkpoint are.
#[derive(Clone, Debug)]
pub(crate) enum StoredAverage {
    /// A record, in a checkpoint of an earlier version.
    Record(ModuleRecord),
    /// The weights of this model folder.
    Folder(PathBuf),
}

impl StoredAverage {
    /// `model` with the averaged weights. Its parameters keep their ids.
    ///
    /// # Errors
    /// As [`LoopModel::with_weights_of`].
    pub(crate) fn apply<M: LoopModel>(self, model: M) -> Result<M, TrainError> {
        match self {
            Self::Record(record) => Ok(model.load_record(record)),
            Self::Folder(folder) => model.with_weights_of(&folder),
        }
    }
}
