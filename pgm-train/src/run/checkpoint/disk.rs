//! Folders that are written as a whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::files::{open_for_sync, sync_folder};

/// Prefix of what is being written or replaced; a killed run may leave such folders.
const TEMPORARY: &str = ".writing-";

/// What is done to the disk while a folder is written, in order. Tests check the order.
#[cfg_attr(not(test), allow(dead_code))]
pub(super) enum DiskStep<'a> {
    /// A file of the new folder is synced through this handle.
    SyncFile(&'a str, &'a File),
    /// The entries of a folder are synced.
    SyncFolder(&'a Path),
    /// The new folder gets its name.
    Rename,
    /// An older folder is removed.
    Remove(&'a Path),
}

pub(super) type Observe<'a> = &'a mut dyn FnMut(DiskStep);
type AnyError = Box<dyn std::error::Error>;

/// A folder under a temporary name.
pub(super) struct NewFolder<'a> {
    parent: &'a Path,
    temporary: tempfile::TempDir,
    observe: Observe<'a>,
}

impl<'a> NewFolder<'a> {
    /// Creates it in `parent`, which is created if it does not exist, and removes what a killed run has left there.
    pub(super) fn create(parent: &'a Path, observe: Observe<'a>) -> Result<Self, AnyError> {
        fs::create_dir_all(parent)?;
        for entry in fs::read_dir(parent)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let temporary = tempfile::Builder::new().prefix(TEMPORARY).tempdir_in(parent)?;
        Ok(Self { parent, temporary, observe })
    }

    /// The path of a file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// Writes a file.
    pub(super) fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), AnyError> {
        fs::write(self.path(name), bytes)?;
        self.sync(name, |_| Ok(()))
    }

    /// Syncs a file that was written by its path, after `look` at it.
    pub(super) fn sync<T>(
        &mut self,
        name: &str,
        look: impl FnOnce(&mut File) -> std::io::Result<T>,
    ) -> Result<T, AnyError> {
        let mut file = open_for_sync(&self.path(name))?;
        let seen = look(&mut file)?;
        file.sync_all()?;
        (self.observe)(DiskStep::SyncFile(name, &file));
        Ok(seen)
    }

    /// Syncs the folder and gives it its name. A folder that has it makes room first and is removed last.
    pub(super) fn rename(self, name: &str) -> Result<(), AnyError> {
        let Self { parent, temporary, observe } = self;
        let target = parent.join(name);
        sync_folder(temporary.path())?;
        observe(DiskStep::SyncFolder(temporary.path()));
        let old = target.exists().then(|| parent.join(format!("{TEMPORARY}old-{name}")));
        if let Some(old) = &old {
            fs::rename(&target, old)?;
        }
        fs::rename(temporary.path(), &target)?;
        observe(DiskStep::Rename);
        let _ = temporary.keep();
        sync_folder(parent)?;
        observe(DiskStep::SyncFolder(parent));
        if let Some(old) = old {
            observe(DiskStep::Remove(&old));
            fs::remove_dir_all(old)?;
        }
        Ok(())
    }
}
