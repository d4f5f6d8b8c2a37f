//! Numbers, hashes and paths as a card has them.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

use pgm_model::model_folder::{BEST_PREFIX, CHECKPOINTS_FOLDER, MODEL_FOLDER, ROUND_PREFIX, STEP_PREFIX};
use sha2::{Digest, Sha256};

/// Name of the card in a model folder.
pub(crate) const README_FILE: &str = "README.md";
/// The version of Burn that this crate is built with.
pub(super) const BURN_VERSION: &str = "0.22.1";

/// A file of weights.
#[derive(Clone, Debug)]
pub(crate) struct StoredWeights {
    pub(super) n_parameters: usize,
    pub(super) n_bytes: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub(crate) sha256: String,
}

impl StoredWeights {
    /// The weights of so many parameters that are stored as `bytes`.
    pub(crate) fn new(n_parameters: usize, bytes: &[u8]) -> Self {
        Self { n_parameters, n_bytes: bytes.len() as u64, sha256: sha256(bytes) }
    }

    /// As [`new`](Self::new), from the file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read(n_parameters: usize, path: &Path) -> std::io::Result<Self> {
        let (mut file, mut hasher, mut n_bytes) = (File::open(path)?, Sha256::new(), 0);
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                return Ok(Self { n_parameters, n_bytes, sha256: hex(&hasher.finalize()) });
            }
            n_bytes += n as u64;
            hasher.update(&buffer[..n]);
        }
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 1234567 as 1,234,567.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2,000 rows`.
pub(super) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// A path as a card names it. Of an absolute one it is the end, because the rest is this machine's: the last name, and a
/// run's before those of its folders.
pub(crate) fn shown_path(path: &Path) -> String {
    let text = |path: &Path| path.display().to_string().replace('\\', "/");
    if !path.is_absolute() {
        return text(path);
    }
    let name = |component: Component| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    };
    let names: Vec<String> = path.components().filter_map(name).collect();
    let is_of_a_run = |name: &&String| {
        let prefixes = [STEP_PREFIX, BEST_PREFIX, ROUND_PREFIX];
        [MODEL_FOLDER, CHECKPOINTS_FOLDER].contains(&name.as_str())
            || prefixes.iter().any(|prefix| {
                let number = name.strip_prefix(prefix).unwrap_or_default();
                !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
            })
    };
    let n = names.iter().rev().take_while(is_of_a_run).count() + 1;
    names[names.len().saturating_sub(n)..].join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(grouped(number), expected);
        }
        assert_eq!((counted(1, "row"), counted(2000, "row")), ("1 row".to_string(), "2,000 rows".to_string()));
    }

    #[test]
    #[cfg(unix)]
    fn of_an_absolute_path_only_its_end_is_shown() {
        for (path, expected) in [
            ("runs/mdlm@best", "runs/mdlm@best"),
            ("../mdlm", "../mdlm"),
            ("/home/ann/runs/mdlm@best", "mdlm@best"),
            ("/home/ann/runs/mdlm/model", "mdlm/model"),
            ("/home/ann/sdtt/round-2/model/", "sdtt/round-2/model"),
            ("/home/ann/run/checkpoints/best-00000012", "run/checkpoints/best-00000012"),
            ("/srv/step-by-step", "step-by-step"),
            ("/model", "model"),
            ("/", ""),
        ] {
            assert_eq!(shown_path(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn the_version_of_burn_is_that_of_the_lock_file() {
        let lock = include_str!("../../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"burn\"\nversion = \"{BURN_VERSION}\"\n")), "it is not {BURN_VERSION}");
    }

    #[test]
    fn weights_have_one_hash_in_memory_and_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w");
        std::fs::write(&path, b"abc").unwrap();
        let read = StoredWeights::read(3, &path).unwrap();
        // FIPS 180-2, appendix B.1.
        assert_eq!(read.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((read.n_bytes, read.sha256), (3, StoredWeights::new(3, b"abc").sha256));
    }
}
