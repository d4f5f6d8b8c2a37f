//! One file of token rows: a header, the tokens, and in padded data the number of valid tokens of each row.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `PGMROWS`, then the version of the format, `1` |
//! | 4 | bytes of a token: 2 or 4, little endian like every number here |
//! | 4 | tokens of a row |
//! | 8 | rows |
//! | 4 | 1 when valid lengths follow the tokens, else 0 |
//! | 4 | CRC-32 of all that follows the header |
//! | 32 | SHA-256 of the tokenizer's file |
//! | rows x length x width | tokens |
//! | rows x 4 | valid tokens of each row, in padded data |

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::DataError;

const MAGIC: &[u8; 8] = b"PGMROWS1";
const HEADER: usize = 64;

/// What every shard of a data folder agrees on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) width: usize,
    pub(crate) length: usize,
    pub(crate) padded: bool,
    pub(crate) tokenizer_hash: [u8; 32],
}

/// Writes rows; the header comes last, so that an unfinished file is none.
pub(crate) struct ShardWriter {
    path: PathBuf,
    file: BufWriter<File>,
    layout: Layout,
    n_rows: u64,
    valid: Vec<u8>,
    crc: crc32fast::Hasher,
    buffer: Vec<u8>,
}

impl ShardWriter {
    pub(crate) fn create(path: PathBuf, layout: Layout) -> Result<Self, DataError> {
        let file = File::create(&path).map_err(DataError::io("write", &path))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&[0; HEADER]).map_err(DataError::io("write", &path))?;
        Ok(Self { path, file, layout, n_rows: 0, valid: Vec::new(), crc: crc32fast::Hasher::new(), buffer: Vec::new() })
    }

    pub(crate) fn push(&mut self, row: &[u32], valid: usize) -> Result<(), DataError> {
        debug_assert_eq!(row.len(), self.layout.length);
        self.buffer.clear();
        for &token in row {
            self.buffer.extend_from_slice(&token.to_le_bytes()[..self.layout.width]);
        }
        self.crc.update(&self.buffer);
        self.file.write_all(&self.buffer).map_err(DataError::io("write", &self.path))?;
        if self.layout.padded {
            self.valid.extend_from_slice(&(valid as u32).to_le_bytes());
        }
        self.n_rows += 1;
        Ok(())
    }

    pub(crate) fn n_rows(&self) -> u64 {
        self.n_rows
    }

    pub(crate) fn finish(mut self) -> Result<u64, DataError> {
        self.crc.update(&self.valid);
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&(self.layout.width as u32).to_le_bytes());
        header.extend_from_slice(&(self.layout.length as u32).to_le_bytes());
        header.extend_from_slice(&self.n_rows.to_le_bytes());
        header.extend_from_slice(&u32::from(self.layout.padded).to_le_bytes());
        header.extend_from_slice(&self.crc.finalize().to_le_bytes());
        header.extend_from_slice(&self.layout.tokenizer_hash);
        let mut write = || {
            self.file.write_all(&self.valid)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(&header)?;
            self.file.flush()?;
            self.file.get_ref().sync_all()
        };
        write().map_err(DataError::io("write", &self.path))?;
        Ok(self.n_rows)
    }
}

/// A mapped shard.
#[derive(Debug)]
pub(crate) struct Shard {
    map: Mmap,
    layout: Layout,
    n_rows: usize,
}

impl Shard {
    /// Maps a shard and checks its header, its size and its checksum.
    pub(crate) fn open(path: &Path, layout: Layout) -> Result<Self, DataError> {
        let file = File::open(path).map_err(DataError::io("read", path))?;
        // SAFETY: the map is only read. Another process that truncates the file meanwhile could end this one with a
        // bus error, as with every mapped file; prepare never rewrites a finished folder.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(DataError::io("map", path))?;
        let damaged = |problem: &str| DataError::Damaged { path: path.to_path_buf(), problem: problem.to_string() };
        if map.len() < HEADER || &map[..8] != MAGIC {
            let other = map.len() >= HEADER && map[..7] == MAGIC[..7];
            return Err(damaged(if other { "it has another version of the format" } else { "it has no header" }));
        }
        let u32_at = |at: usize| u32::from_le_bytes(map[at..at + 4].try_into().expect("four bytes"));
        let n_rows = u64::from_le_bytes(map[16..24].try_into().expect("eight bytes")) as usize;
        let found = Layout {
            width: u32_at(8) as usize,
            length: u32_at(12) as usize,
            padded: u32_at(24) == 1,
            tokenizer_hash: map[32..64].try_into().expect("32 bytes"),
        };
        if found.tokenizer_hash != layout.tokenizer_hash {
            return Err(damaged("it was made with another tokenizer than the folder's tokenizer.json"));
        }
        if found != layout {
            return Err(damaged("its header does not fit data.json"));
        }
        let row_bytes = layout.length * layout.width + if layout.padded { 4 } else { 0 };
        if n_rows.checked_mul(row_bytes).and_then(|bytes| bytes.checked_add(HEADER)) != Some(map.len()) {
            return Err(damaged("its size does not fit its header"));
        }
        if crc32fast::hash(&map[HEADER..]) != u32_at(28) {
            return Err(damaged("its checksum does not fit"));
        }
        Ok(Self { map, layout, n_rows })
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub(crate) fn row(&self, index: usize) -> (Vec<u32>, usize) {
        let Layout { width, length, padded, .. } = self.layout;
        let start = HEADER + index * length * width;
        let bytes = &self.map[start..start + length * width];
        let tokens = if width == 2 {
            bytes.as_chunks::<2>().0.iter().map(|b| u32::from(u16::from_le_bytes(*b))).collect()
        } else {
            bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
        };
        let valid = if padded {
            let at = HEADER + self.n_rows * length * width + 4 * index;
            u32::from_le_bytes(self.map[at..at + 4].try_into().expect("four bytes")) as usize
        } else {
            length
        };
        (tokens, valid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_at_both_widths_with_and_without_padding() {
        let folder = tempfile::tempdir().unwrap();
        for (width, largest) in [(2, 65_535), (4, 70_000)] {
            for padded in [false, true] {
                let layout = Layout { width, length: 3, padded, tokenizer_hash: [7; 32] };
                let path = folder.path().join(format!("{width}-{padded}"));
                let mut writer = ShardWriter::create(path.clone(), layout).unwrap();
                writer.push(&[0, 1, largest], 3).unwrap();
                writer.push(&[5, largest, 2], 1).unwrap();
                assert_eq!(writer.finish().unwrap(), 2);
                let shard = Shard::open(&path, layout).unwrap();
                assert_eq!((shard.n_rows(), shard.row(0)), (2, (vec![0, 1, largest], 3)));
                assert_eq!(shard.row(1), (vec![5, largest, 2], if padded { 1 } else { 3 }));
            }
        }
    }
}
