//! Durable writes. A crash or a power loss leaves the old content or the new content, never a part of it.
//!
//! The order is always the same: write under a temporary name, sync through the handle that wrote (Windows refuses to
//! sync a read-only handle), rename, sync the folder that holds the name.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use tempfile::{NamedTempFile, TempDir};

use crate::error::DataError;

/// Writes `bytes` to a temporary file beside `path` and renames it to `path`.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let write = || {
        let folder = parent_of(path);
        let mut file = temporary_file_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    write().map_err(DataError::io("write", path))
}

/// The start of the names of folders that are not published.
const UNFINISHED: &str = ".preparing-";

/// An empty folder beside `path`, removed on drop unless [`publish_folder`] renames it to `path`.
pub(crate) fn folder_beside(path: &Path) -> Result<TempDir, DataError> {
    folder_named(parent_of(path), UNFINISHED)
}

/// An empty folder in a folder, removed on drop unless it is published.
pub(crate) fn folder_in(parent: &Path) -> Result<TempDir, DataError> {
    folder_named(parent, UNFINISHED)
}

/// As [`folder_in`], with a purpose that its name has.
pub(crate) fn folder_for(parent: &Path, purpose: &str) -> Result<TempDir, DataError> {
    folder_named(parent, &format!("{UNFINISHED}{purpose}-"))
}

/// Removes what killed processes left in a folder in which nothing is at work.
pub(crate) fn remove_unfinished(parent: &Path) {
    remove_named(parent, UNFINISHED);
}

/// As [`remove_unfinished`], for one purpose of [`folder_for`].
pub(crate) fn remove_unfinished_for(parent: &Path, purpose: &str) {
    remove_named(parent, &format!("{UNFINISHED}{purpose}-"));
}

fn remove_named(parent: &Path, prefix: &str) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            // What cannot be removed takes space and does no harm.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn folder_named(parent: &Path, prefix: &str) -> Result<TempDir, DataError> {
    let create = || {
        std::fs::create_dir_all(parent)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(prefix);
        #[cfg(unix)]
        builder.permissions(ordinary_permissions(0o777));
        builder.tempdir_in(parent)
    };
    create().map_err(DataError::io("write", parent))
}

/// Renames a folder whose files are written and synced to `path`.
pub(crate) fn publish_folder(folder: TempDir, path: &Path) -> Result<(), DataError> {
    let publish = || {
        sync_folder(folder.path())?;
        std::fs::rename(folder.path(), path)?;
        sync_folder(parent_of(path))
    };
    publish().map_err(DataError::io("write", path))?;
    // The temporary name no longer exists; `keep` stops the drop from removing it.
    let _ = folder.keep();
    Ok(())
}

/// Renames the files of a folder, written and synced, into another folder, `last` after all others: without it they do
/// not count.
pub(crate) fn publish_into(folder: TempDir, path: &Path, last: &str) -> Result<(), DataError> {
    let publish = || {
        for entry in std::fs::read_dir(folder.path())? {
            let name = entry?.file_name();
            if name != last {
                std::fs::rename(folder.path().join(&name), path.join(&name))?;
            }
        }
        sync_folder(path)?;
        std::fs::rename(folder.path().join(last), path.join(last))?;
        sync_folder(path)
    };
    publish().map_err(DataError::io("write", path))
}

fn temporary_file_in(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".writing-");
    #[cfg(unix)]
    builder.permissions(ordinary_permissions(0o666));
    builder.tempfile_in(folder)
}

// Temporary files are private by default. These modes are limited by the umask, as for any other file.
#[cfg(unix)]
fn ordinary_permissions(mode: u32) -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    std::fs::Permissions::from_mode(mode)
}

fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Syncs the names in a folder. Only Unix has such a call: Windows cannot open a folder as a file.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_stays_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.json");
        for content in ["old and long", "new"] {
            write_file(&path, content.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let message = write_file(&folder.path().join("missing/file.json"), b"x").unwrap_err().to_string();
        assert!(message.contains("missing") && message.contains("write"), "{message}");
    }

    #[cfg(unix)]
    #[test]
    fn written_files_have_the_permissions_of_ordinary_files() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (written, ordinary) = (folder.path().join("written"), folder.path().join("ordinary"));
        write_file(&written, b"x").unwrap();
        std::fs::write(&ordinary, "x").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&written), mode(&ordinary));
    }

    #[test]
    fn a_folder_appears_under_its_name_or_not_at_all() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        drop(folder_beside(&path).unwrap());
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
        let folder = folder_beside(&path).unwrap();
        write_file(&folder.path().join("file"), b"x").unwrap();
        publish_folder(folder, &path).unwrap();
        assert_eq!(std::fs::read(path.join("file")).unwrap(), b"x");
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
