//! One run at a time in a folder: a lock file with the operating system's lock, which ends with its process.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::event::TrainEvent;
use crate::TrainError;

/// Name of the lock file in a run's folder.
const LOCK_FILE: &str = ".lock";

/// The right to write into a run's folder. It ends when this is dropped, or with the process however that ends.
#[derive(Debug)]
pub(crate) struct RunLock {
    _file: File,
}

impl RunLock {
    /// Locks a folder, which is created if it does not exist. Where the file system has no locks, `observe` is called with a
    /// notice.
    ///
    /// # Errors
    /// [`TrainError::Busy`] while another run holds the lock, [`TrainError::File`] when the file cannot be written.
    pub(crate) fn acquire(out: &Path, observe: &dyn Fn(&TrainEvent)) -> Result<Self, TrainError> {
        std::fs::create_dir_all(out).map_err(|error| TrainError::file("write", out, error))?;
        let path = out.join(LOCK_FILE);
        let failed = |error: std::io::Error| TrainError::file("write", &path, error);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(failed)?;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(TrainError::Busy { path: out.to_path_buf(), process: process_of(&mut file) });
            }
            Err(TryLockError::Error(error)) => observe(&TrainEvent::Notice(format!(
                "{} cannot be locked ({error}); take care that no other run writes into this folder",
                path.display()
            ))),
        }
        Ok(Self { _file: file })
    }
}

// The process in a lock file. Windows does not show the contents of a locked file.
fn process_of(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_until_the_run_ends() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("run");
        let lock = RunLock::acquire(&out, &|_| ()).unwrap();
        let refused = RunLock::acquire(&out, &|_| ()).unwrap_err();
        assert!(matches!(&refused, TrainError::Busy { path, .. } if *path == out), "{refused}");
        #[cfg(unix)]
        assert!(refused.to_string().contains(&format!("process {}", std::process::id())), "{refused}");
        drop(lock);
        // What a killed process has left in the file does not matter.
        std::fs::write(out.join(LOCK_FILE), "12345678901234567890").unwrap();
        RunLock::acquire(&out, &|_| ()).unwrap();
    }
}
