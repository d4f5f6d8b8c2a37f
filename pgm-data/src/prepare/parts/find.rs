//! The parts that are merged, checked to be all parts of one preparation.

use std::path::{Path, PathBuf};

use super::folder::{PartManifest, is_part, parts_in};
use crate::error::DataError;

/// All parts of one preparation, in order.
pub(super) struct PartSet {
    pub(super) parts: Vec<Part>,
}

/// A finished part.
pub(super) struct Part {
    pub(super) folder: PathBuf,
    pub(super) manifest: PartManifest,
}

impl PartSet {
    /// The parts in folders of parts, and parts that are named themselves.
    pub(super) fn find(paths: &[PathBuf]) -> Result<Self, DataError> {
        let refused = |path: &Path, problem: String| Err(DataError::Parts { path: path.to_path_buf(), problem });
        let mut folders = Vec::new();
        for path in paths {
            if is_part(path) {
                folders.push(path.clone());
                continue;
            }
            let found = parts_in(path)?;
            if found.is_empty() {
                return refused(
                    path,
                    "has no part; prepare its parts with pgm-data prepare --shard I/N --out".to_string(),
                );
            }
            folders.extend(found);
        }
        let mut parts = Vec::new();
        for folder in folders {
            parts.push(Part { manifest: PartManifest::read(&folder)?, folder });
        }
        parts.sort_by_key(|part| part.manifest.index);
        let Some(first) = parts.first() else {
            return Err(DataError::Option("no part to merge; name a folder of parts".to_string()));
        };
        for part in &parts {
            if let Some(difference) = first.manifest.settings.difference(&part.manifest.settings) {
                let problem = format!(
                    "does not fit {}: they were prepared with other settings ({difference}); remove one of them, or prepare it again",
                    first.folder.display(),
                );
                return refused(&part.folder, problem);
            }
        }
        for pair in parts.windows(2) {
            if pair[0].manifest.index == pair[1].manifest.index {
                let problem = format!(
                    "is part {} of {}, as {} is; leave one of them out",
                    pair[1].manifest.index,
                    pair[1].manifest.settings.parts,
                    pair[0].folder.display()
                );
                return refused(&pair[1].folder, problem);
            }
        }
        let count = first.manifest.settings.parts;
        let missing = missing(count, parts.iter().map(|part| part.manifest.index));
        if !missing.is_empty() {
            let folder = paths.first().cloned().unwrap_or_default();
            let (part, them) = if parts.len() as u64 + 1 == count { ("part", "it") } else { ("parts", "each of them") };
            let problem = format!(
                "lacks the {part} {missing} of {count}; prepare {them} with the same command and --shard I/{count}"
            );
            return refused(&folder, problem);
        }
        Ok(Self { parts })
    }
}

// Numbers and ranges: "1, 5-7".
fn missing(count: u64, found: impl Iterator<Item = u64>) -> String {
    let mut ranges: Vec<String> = Vec::new();
    let mut next = 0;
    for index in found.chain([count]) {
        match index.saturating_sub(next) {
            0 => {}
            1 => ranges.push(next.to_string()),
            _ => ranges.push(format!("{next}-{}", index - 1)),
        }
        next = index + 1;
    }
    ranges.join(", ")
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn missing_parts_are_numbers_and_ranges() {
        for (count, found, expected) in
            [(4, vec![0, 1, 2, 3], ""), (4, vec![0, 3], "1-2"), (9, vec![0, 2, 3, 7], "1, 4-6, 8"), (3, vec![2], "0-1")]
        {
            assert_eq!(missing(count, found.into_iter()), expected);
        }
    }
}
