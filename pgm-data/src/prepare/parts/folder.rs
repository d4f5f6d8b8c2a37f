//! The folder of a part.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::settings::PartSettings;
use crate::error::DataError;
use crate::source::PartIndex;

/// What every part has. It is written last.
const PART_FILE: &str = "part.json";
/// The start of the names of parts.
const PREFIX: &str = "part-";
const VERSION: u32 = 1;

/// The content of `part.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartManifest {
    version: u32,
    /// Its place among the parts, from 0.
    pub(super) index: u64,
    /// What all parts have in common.
    pub(super) settings: PartSettings,
    /// The tokens of each source: of the inputs, or of each input of a mixture, then of the validation inputs.
    pub(super) sources: Vec<StoredSource>,
    /// The first records that were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) bad_records: Vec<String>,
}

/// The tokens of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoredSource {
    /// The file's name.
    pub(super) file: String,
    /// Its size.
    pub(super) file_bytes: u64,
    /// Its CRC-32.
    pub(super) checksum: u32,
    /// Bytes of the files' text that it stands for.
    pub(super) source_bytes: u64,
    /// Documents that end in it.
    pub(super) documents: u64,
    /// Tokens.
    pub(super) tokens: u64,
}

impl PartManifest {
    pub(super) fn new(
        index: u64,
        settings: PartSettings,
        sources: Vec<StoredSource>,
        bad_records: Vec<String>,
    ) -> Self {
        Self { version: VERSION, index, settings, sources, bad_records }
    }

    /// Reads the `part.json` of a folder.
    pub(super) fn read(folder: &Path) -> Result<Self, DataError> {
        let refused = |problem: String| {
            let problem =
                format!("is no finished part ({PART_FILE}: {problem}); remove it and prepare this part again");
            DataError::Parts { path: folder.to_path_buf(), problem }
        };
        let json = std::fs::read(folder.join(PART_FILE)).map_err(|error| refused(error.to_string()))?;
        let manifest: Self = serde_json::from_slice(&json).map_err(|error| refused(error.to_string()))?;
        if manifest.version != VERSION {
            return Err(refused(format!("version {} is not {VERSION}", manifest.version)));
        }
        let n_sources = manifest.settings.n_sources();
        if manifest.sources.len() != n_sources {
            return Err(refused(format!("{} sources are not {n_sources}", manifest.sources.len())));
        }
        PartIndex::new(manifest.index, manifest.settings.parts).map_err(|error| refused(error.to_string()))?;
        Ok(manifest)
    }

    /// Writes it into a folder.
    pub(super) fn write(&self, folder: &Path) -> Result<(), DataError> {
        let json = serde_json::to_vec_pretty(self).expect("a manifest always serialises");
        crate::files::write_file(&folder.join(PART_FILE), &json)
    }
}

/// The name of a part's folder.
pub(super) fn part_name(part: PartIndex) -> String {
    format!("{PREFIX}{:05}-of-{:05}", part.index(), part.count())
}

/// Whether a folder is that of a part.
pub(super) fn is_part(folder: &Path) -> bool {
    folder.join(PART_FILE).is_file()
}

/// The parts in a folder, by name.
pub(super) fn parts_in(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let io = |error| DataError::io("read", folder)(error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let entry = entry.map_err(io)?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && entry.path().is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a folder has parts.
pub(crate) fn has_parts(folder: &Path) -> bool {
    parts_in(folder).is_ok_and(|parts| parts.iter().any(|part| is_part(part)))
}
