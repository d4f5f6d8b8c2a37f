//! The last line of a card, by which an edited one is known.

use std::path::{Path, PathBuf};

use pgm_model::model_folder::write_file;

use super::words::{README_FILE, sha256};
use crate::TrainError;

fn last_line(text: &str) -> String {
    let hash = sha256(text.as_bytes());
    format!("<!-- Written by pgm-train. SHA-256 of all before this line: {hash}. An edited card is kept. -->")
}

/// A card with its last line.
pub(super) fn sealed(text: &str) -> Vec<u8> {
    format!("{text}{}\n", last_line(text)).into_bytes()
}

/// Whether a file is a card as it was written. Git may have changed its line ends.
fn is_as_written(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let text = text.replace("\r\n", "\n");
    let text = text.trim_end_matches('\n');
    let start = text.rfind('\n').map_or(0, |end| end + 1);
    text[start..] == last_line(&text[..start])
}

/// The card of a folder if a person wrote or edited it.
pub(crate) fn edited_card(folder: &Path) -> Option<Vec<u8>> {
    std::fs::read(folder.join(README_FILE)).ok().filter(|bytes| !is_as_written(bytes))
}

/// Writes the card of a folder. One that is not as it was written stays, and its path is returned.
///
/// # Errors
/// [`TrainError::Model`] when it cannot be written.
pub(crate) fn write_card(folder: &Path, card: &[u8]) -> Result<Option<PathBuf>, TrainError> {
    let path = folder.join(README_FILE);
    let is_free = match std::fs::read(&path) {
        Ok(bytes) => is_as_written(&bytes),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if !is_free {
        return Ok(Some(path));
    }
    write_file(&path, card)?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_card_stays_and_another_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(README_FILE);
        let (one, two) = (sealed("# One\n"), sealed("# Two\n"));
        let read = || std::fs::read(&path).unwrap();
        for (before, is_kept) in [
            (None, false),
            (Some(one.clone()), false),
            (Some(String::from_utf8(one.clone()).unwrap().replace('\n', "\r\n").into_bytes()), false),
            (Some(String::from_utf8(one.clone()).unwrap().replace("One", "Eins").into_bytes()), true),
            (Some([one.clone(), b"More.\n".to_vec()].concat()), true),
            (Some(b"# Mine\n".to_vec()), true),
            (Some(Vec::new()), true),
            (Some(b"\xff\xfe".to_vec()), true),
        ] {
            let _ = std::fs::remove_file(&path);
            before.iter().for_each(|bytes| std::fs::write(&path, bytes).unwrap());
            assert_eq!(write_card(folder.path(), &two).unwrap().is_some(), is_kept, "{before:?}");
            assert_eq!(read(), if is_kept { before.clone().unwrap() } else { two.clone() });
            assert_eq!(edited_card(folder.path()), before.filter(|_| is_kept));
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(write_card(folder.path(), &two).unwrap(), Some(path));
    }
}
