//! Which data a run was made with.

use std::fmt;
use std::io::Read;
use std::path::Path;

use pgm_data::DataFolder;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// The data of a run, as in `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DataIdentity {
    /// SHA-256 of the tokenizer, and the number of training rows.
    pub(crate) data: (String, u64),
    /// Hash of the manifest and of the shards' checksums; absent in checkpoints of earlier versions.
    #[serde(default)]
    pub(crate) data_identity: Option<String>,
}

impl DataIdentity {
    pub(crate) fn new(path: &Path, folder: &DataFolder) -> Result<Self, TrainError> {
        let manifest = folder.manifest();
        Ok(Self {
            data: (manifest.tokenizer_sha256.clone(), manifest.train.rows),
            data_identity: Some(data_identity(path, folder)?),
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

const MANIFEST_FILE: &str = "data.json";
// Bytes of a shard's header, which holds the CRC-32 of the rest.
const SHARD_HEADER: usize = 64;

/// A hash of the manifest and of name, size and stored checksum of every shard, in hexadecimal.
fn data_identity(path: &Path, folder: &DataFolder) -> Result<String, TrainError> {
    let failed = |path: &Path, error: std::io::Error| TrainError::file("read", path, error);
    let manifest = path.join(MANIFEST_FILE);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&std::fs::read(&manifest).map_err(|error| failed(&manifest, error))?);
    let (train, validation) = (&folder.manifest().train, &folder.manifest().validation);
    for name in train.shards.iter().chain(&validation.shards) {
        let shard = path.join(name);
        let mut header = [0; SHARD_HEADER];
        let mut file = std::fs::File::open(&shard).map_err(|error| failed(&shard, error))?;
        file.read_exact(&mut header).map_err(|error| failed(&shard, error))?;
        let size = file.metadata().map_err(|error| failed(&shard, error))?.len();
        hasher.update(name.as_bytes());
        hasher.update(&size.to_le_bytes());
        hasher.update(&header);
    }
    Ok(format!("{:08x}", hasher.finalize()))
}
