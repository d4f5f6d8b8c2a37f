//! Files that are mapped into memory.

use std::fs::File;
use std::path::Path;

use super::atomic_write::io_error;
use crate::error::ModelError;

/// A file mapped into memory for reading.
#[derive(Debug)]
pub struct MappedFile {
    map: memmap2::Mmap,
    origin: String,
}

impl MappedFile {
    /// Maps a file.
    ///
    /// # Errors
    /// [`ModelError::Io`] naming `path`.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(|cause| io_error("read", path, cause))?;
        // SAFETY: the map is only read. If another process truncates the file meanwhile, this one may end with a bus
        // error, as with every mapped file; our own writers replace files by renaming and never truncate.
        #[allow(unsafe_code)]
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|cause| io_error("read", path, cause))?;
        Ok(Self { map, origin: path.display().to_string() })
    }

    /// The contents of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The path of the file, for error messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Tells the system that `bytes`, a part of the map, will not be read again soon, so that their pages no longer count
    /// as memory of this process.
    #[cfg(unix)]
    pub(super) fn release(&self, bytes: &[u8]) {
        const PAGE: usize = 1 << 16; // a multiple of every page size in use
        let start = (bytes.as_ptr() as usize - self.map.as_ptr() as usize).next_multiple_of(PAGE);
        let end = (bytes.as_ptr() as usize + bytes.len() - self.map.as_ptr() as usize) / PAGE * PAGE;
        if start < end {
            // SAFETY: the map is of a file and only read, so a released page is read again when it is touched. Advice
            // that the system refuses changes nothing.
            #[allow(unsafe_code)]
            let _ = unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
        }
    }

    #[cfg(not(unix))]
    pub(super) fn release(&self, _bytes: &[u8]) {}
}
