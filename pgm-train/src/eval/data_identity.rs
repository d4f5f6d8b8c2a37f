//! Identifies the content of a data folder.

use pgm_data::{DataFolder, Split};

use crate::TrainError;

/// A fingerprint of a data folder's manifest and rows. Two texts have different fingerprints, even with equal row counts.
///
/// # Errors
/// When the rows cannot be read.
pub(super) fn data_identity(data: &DataFolder) -> Result<String, TrainError> {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&serde_json::to_vec(data.manifest()).expect("a manifest always serialises"));
    for split in [Split::Train, Split::Validation] {
        let rows = data.rows(split)?;
        for index in 0..rows.len() {
            let row = rows.row(index)?;
            hasher.update(&(row.valid as u64).to_le_bytes());
            row.tokens.iter().for_each(|token| hasher.update(&token.to_le_bytes()));
        }
    }
    Ok(format!("{:08x}", hasher.finalize()))
}
