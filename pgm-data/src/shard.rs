//! The file format of token rows: a header, the tokens, and in padded data the number of valid tokens per row.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `PGMROWS`, then the version of the format, `1` |
//! | 4 | bytes per token: 2 or 4 (every number is little endian) |
//! | 4 | tokens per row |
//! | 8 | rows |
//! | 4 | 1 when valid lengths follow the tokens, else 0 |
//! | 4 | CRC-32 of everything after the header |
//! | 32 | SHA-256 of the tokenizer's file |
//! | rows x length x width | tokens |
//! | rows x 4 | valid tokens of each row, in padded data |

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::DataError;

const MAGIC: &[u8; 8] = b"PGMROWS1";
const HEADER: usize = 64;

/// What all shards of a data folder have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Bytes per token.
    pub(crate) width: usize,
    /// Tokens per row.
    pub(crate) length: usize,
    /// Whether valid lengths are stored.
    pub(crate) padded: bool,
    /// SHA-256 of `tokenizer.json`.
    pub(crate) tokenizer_hash: [u8; 32],
}

/// Bytes per stored token: 2 for a vocabulary of at most 65536, else 4.
pub(crate) fn token_width(vocab_size: usize) -> usize {
    if vocab_size <= 1 << 16 { 2 } else { 4 }
}

/// Writes rows. The header is written last, so an unfinished file has none.
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

    /// Writes the header, syncs the file and returns the number of rows.
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

/// The header of a shard that fits its file's size and its folder's layout.
pub(crate) struct ShardHeader {
    /// Number of rows.
    pub(crate) n_rows: usize,
    /// CRC-32 of everything after the header, as stored.
    pub(crate) checksum: u32,
    /// Size of the file, header included.
    pub(crate) file_bytes: u64,
}

impl ShardHeader {
    /// Reads the header of a file and nothing else.
    pub(crate) fn read(path: &Path, layout: Layout) -> Result<Self, DataError> {
        let mut file = File::open(path).map_err(DataError::io("read", path))?;
        let file_bytes = file.metadata().map_err(DataError::io("read", path))?.len();
        let mut bytes = [0; HEADER];
        match file.read_exact(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Self::parse(&[], file_bytes, layout),
            Err(error) => return Err(DataError::io("read", path)(error)),
            Ok(()) => Self::parse(&bytes, file_bytes, layout),
        }
        .map_err(|problem| damaged(path, problem))
    }

    // `start` is the beginning of a file of `file_bytes` bytes.
    fn parse(start: &[u8], file_bytes: u64, layout: Layout) -> Result<Self, &'static str> {
        let header: &[u8; HEADER] = start.first_chunk().ok_or("it has no header")?;
        if &header[..8] != MAGIC {
            let other = header[..7] == MAGIC[..7];
            return Err(if other { "it has another version of the format" } else { "it has no header" });
        }
        let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let n_rows = u64::from_le_bytes(header[16..24].try_into().expect("eight bytes"));
        let found = Layout {
            width: u32_at(8) as usize,
            length: u32_at(12) as usize,
            padded: u32_at(24) == 1,
            tokenizer_hash: header[32..64].try_into().expect("32 bytes"),
        };
        if found.tokenizer_hash != layout.tokenizer_hash {
            return Err("it was written with another tokenizer than the folder's tokenizer.json");
        }
        if found != layout {
            return Err("its header does not match data.json");
        }
        let row_bytes = (layout.length * layout.width + if layout.padded { 4 } else { 0 }) as u64;
        if n_rows.checked_mul(row_bytes).and_then(|bytes| bytes.checked_add(HEADER as u64)) != Some(file_bytes) {
            return Err("its size does not match its header");
        }
        Ok(Self { n_rows: n_rows as usize, checksum: u32_at(28), file_bytes })
    }
}

fn damaged(path: &Path, problem: &str) -> DataError {
    DataError::Damaged { path: path.to_path_buf(), problem: problem.to_string() }
}

/// A memory-mapped shard.
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
        // SAFETY: the map is only read. If another process truncates the file meanwhile, this process can end with a
        // bus error, as with every mapped file. `prepare` never changes a complete folder.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(DataError::io("map", path))?;
        let header = ShardHeader::parse(&map, map.len() as u64, layout).map_err(|problem| damaged(path, problem))?;
        if crc32fast::hash(&map[HEADER..]) != header.checksum {
            return Err(damaged(path, "its checksum does not match its content"));
        }
        Ok(Self { map, layout, n_rows: header.n_rows })
    }

    pub(crate) fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// The tokens of a row and how many of them are valid.
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
