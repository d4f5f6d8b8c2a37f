//! Which data a run was made with.

use std::fmt;

use pgm_data::DataFolder;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::special_tokens::{SpecialToken, special_of_data};

/// The data of a run, as in `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DataIdentity {
    /// SHA-256 of the tokenizer, and the number of training rows.
    pub(crate) data: (String, u64),
    /// [`DataFolder::identity`]; absent in checkpoints of earlier versions.
    #[serde(default)]
    pub(crate) data_identity: Option<String>,
    /// Its special tokens; empty in checkpoints of earlier versions.
    #[serde(default)]
    pub(crate) special: Vec<SpecialToken>,
}

impl DataIdentity {
    pub(crate) fn new(folder: &DataFolder) -> Result<Self, TrainError> {
        let manifest = folder.manifest();
        Ok(Self {
            data: (manifest.tokenizer_sha256.clone(), manifest.train.rows),
            data_identity: Some(folder.identity()?),
            special: special_of_data(folder),
        })
    }

    /// Whether a run with data `self` can be resumed with data `now`. An identity without a hash is that of any data
    /// with its tokenizer and number of rows.
    pub(crate) fn same_as(&self, now: &Self) -> bool {
        let same_hash = match (&self.data_identity, &now.data_identity) {
            (Some(before), Some(now)) => before == now,
            _ => true,
        };
        self.data == now.data && same_hash
    }
}

impl fmt::Display for DataIdentity {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let short = |hash: &str| hash.get(..8).unwrap_or(hash).to_string();
        let (tokenizer, rows) = &self.data;
        write!(f, "{rows} rows with tokenizer {}", short(tokenizer))?;
        match &self.data_identity {
            Some(hash) => write!(f, " and checksum {}", short(hash)),
            None => Ok(()),
        }
    }
}
