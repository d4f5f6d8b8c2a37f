//! Files that are replaced as a whole: neither a crash nor a power loss leaves a half-written one.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::error::ModelError;

/// Replaces the file at `path`: a reader sees the old contents or the new ones, never a part.
///
/// The bytes are written to a temporary file in the same folder and synced. The file is then renamed to `path`, and the
/// folder is synced, so that the rename survives a power loss, too.
///
/// # Errors
/// [`ModelError::Io`] naming `path`; the temporary file is removed.
pub fn atomic_write(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    write_and_sync(path, bytes, sync_folder_entry).map_err(|cause| io_error("write", path, cause))
}

/// Writes the data of a file that another writer made to the disk.
///
/// The file is opened for writing, because Windows refuses to sync a handle that is open for reading only.
///
/// # Errors
/// [`ModelError::Io`] naming `path`.
pub fn sync_file(path: &Path) -> Result<(), ModelError> {
    let sync = || OpenOptions::new().write(true).open(path)?.sync_all();
    sync().map_err(|cause| io_error("write", path, cause))
}

/// Writes the entries of a folder (files that were created, renamed or removed in it) to the disk. On Windows it does
/// nothing, because folders cannot be synced there.
///
/// # Errors
/// [`ModelError::Io`] naming `folder`.
pub fn sync_folder(folder: &Path) -> Result<(), ModelError> {
    sync_folder_entry(folder).map_err(|cause| io_error("write", folder, cause))
}

fn write_and_sync(path: &Path, bytes: &[u8], sync_folder: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".writing-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    // The handle that wrote the bytes syncs them.
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync_folder(folder)
}

#[cfg(unix)]
fn sync_folder_entry(folder: &Path) -> io::Result<()> {
    match File::open(folder)?.sync_all() {
        // Some network file systems cannot sync folders.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        result => result,
    }
}

#[cfg(not(unix))]
fn sync_folder_entry(_folder: &Path) -> io::Result<()> {
    Ok(())
}

pub(super) fn io_error(action: &'static str, path: &Path, cause: io::Error) -> ModelError {
    ModelError::Io { action, path: path.to_path_buf(), cause }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn the_folder_is_synced_after_the_new_file_is_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        std::fs::write(&path, b"old").unwrap();
        let seen = RefCell::new(Vec::new());
        let sync = |folder: &Path| {
            seen.borrow_mut().push((folder.to_path_buf(), std::fs::read(&path)?));
            Ok(())
        };
        write_and_sync(&path, b"new", sync).unwrap();
        assert_eq!(*seen.borrow(), [(folder.path().to_path_buf(), b"new".to_vec())]);
    }

    #[test]
    fn a_file_of_another_writer_is_synced_by_a_handle_that_may_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("optimizer.bin");
        std::fs::write(&path, b"moments").unwrap();
        sync_file(&path).unwrap();
        sync_folder(folder.path()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"moments");
        // A folder can be opened for reading, never for writing.
        assert!(sync_file(folder.path()).is_err(), "the handle is open for writing");
        let missing = folder.path().join("missing");
        let error = sync_file(&missing).unwrap_err().to_string();
        assert!(error.contains("missing"), "{error}");
        assert!(!missing.exists());
        #[cfg(unix)]
        assert!(sync_folder(&missing).unwrap_err().to_string().contains("missing"));
    }
}
