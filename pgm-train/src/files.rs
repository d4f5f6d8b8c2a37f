//! Files that must survive a power loss, and checksums of files.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Size and CRC-32 of a file.
pub(crate) fn fingerprint(path: &Path) -> std::io::Result<(u64, u32)> {
    fingerprint_of(&mut File::open(path)?)
}

/// As [`fingerprint`], of an open file.
pub(crate) fn fingerprint_of(file: &mut File) -> std::io::Result<(u64, u32)> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok((size, hasher.finalize()));
        }
        size += n as u64;
        hasher.update(&buffer[..n]);
    }
}

/// Opens a file that was written by its path, so that it can be read and synced. Windows syncs a file only through a
/// handle that may write.
pub(crate) fn open_for_sync(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Syncs the entries of a folder: files that were created, renamed or removed in it. Windows has no such call.
pub(crate) fn sync_folder(path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    File::open(path)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
