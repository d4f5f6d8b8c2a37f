//! The file format of rows: a header, the tokens or pixels, and what each row has beside them.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `PGMROWS`, then the version of the format: `1` for text, `2` for pictures |
//! | 4 | bytes per token: 2 or 4; 1 for pixels (every number is little endian) |
//! | 4 | tokens or pixel values per row |
//! | 8 | rows |
//! | 4 | 1 when valid lengths follow the rows, plus 2 when labels do (version 2), else 0 |
//! | 4 | CRC-32 of everything after the header |
//! | 32 | SHA-256 of the tokenizer's file; of `image` in `data.json` in version 2 |
//! | rows x length x width | tokens or pixel values |
//! | rows x 4 | valid tokens of each row, in padded data |
//! | rows x 4 | the label of each row, in labelled data |

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::DataError;

const MAGIC: &[u8; 7] = b"PGMROWS";
const HEADER: usize = 64;

/// What the rows of a shard are made from. It decides the version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Text: version 1.
    Text,
    /// Pictures: version 2.
    Pictures {
        /// Whether each row has a label.
        labelled: bool,
    },
}

/// What all shards of a data folder have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Bytes per token, or 1 for pixels.
    pub(crate) width: usize,
    /// Tokens or pixel values per row.
    pub(crate) length: usize,
    /// Whether valid lengths are stored.
    pub(crate) padded: bool,
    /// What the rows are made from.
    pub(crate) content: Content,
    /// SHA-256 of what gives the rows their meaning: `tokenizer.json`, or the manifest's `image`.
    pub(crate) meaning: [u8; 32],
}

impl Layout {
    fn version(self) -> u8 {
        match self.content {
            Content::Text => b'1',
            Content::Pictures { .. } => b'2',
        }
    }

    fn labelled(self) -> bool {
        self.content == Content::Pictures { labelled: true }
    }

    // Bytes of a row and of what it has beside it.
    fn row_bytes(self) -> u64 {
        (self.length * self.width) as u64 + 4 * (u64::from(self.padded) + u64::from(self.labelled()))
    }
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
    labels: Vec<u8>,
    crc: crc32fast::Hasher,
    buffer: Vec<u8>,
}

impl ShardWriter {
    pub(crate) fn create(path: PathBuf, layout: Layout) -> Result<Self, DataError> {
        let file = File::create(&path).map_err(DataError::io("write", &path))?;
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(&[0; HEADER]).map_err(DataError::io("write", &path))?;
        let (valid, labels, buffer) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { path, file, layout, n_rows: 0, valid, labels, crc: crc32fast::Hasher::new(), buffer })
    }

    /// Writes a row of text.
    pub(crate) fn push(&mut self, row: &[u32], valid: usize) -> Result<(), DataError> {
        self.write_tokens(row)?;
        if self.layout.padded {
            self.valid.extend_from_slice(&(valid as u32).to_le_bytes());
        }
        Ok(())
    }

    /// Writes a row of tokens that stand for a picture. The label counts in labelled data only.
    pub(crate) fn push_tokens(&mut self, row: &[u32], label: u32) -> Result<(), DataError> {
        self.write_tokens(row)?;
        self.push_label(label);
        Ok(())
    }

    /// Writes a row of pixels.
    pub(crate) fn push_pixels(&mut self, pixels: &[u8], label: u32) -> Result<(), DataError> {
        debug_assert_eq!(self.layout.width, 1);
        self.write_bytes(pixels)?;
        self.push_label(label);
        Ok(())
    }

    fn push_label(&mut self, label: u32) {
        if self.layout.labelled() {
            self.labels.extend_from_slice(&label.to_le_bytes());
        }
    }

    fn write_tokens(&mut self, row: &[u32]) -> Result<(), DataError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        for &token in row {
            buffer.extend_from_slice(&token.to_le_bytes()[..self.layout.width]);
        }
        let result = self.write_bytes(&buffer);
        self.buffer = buffer;
        result
    }

    fn write_bytes(&mut self, row: &[u8]) -> Result<(), DataError> {
        debug_assert_eq!(row.len(), self.layout.length * self.layout.width);
        self.crc.update(row);
        self.file.write_all(row).map_err(DataError::io("write", &self.path))?;
        self.n_rows += 1;
        Ok(())
    }

    pub(crate) fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Writes the header, syncs the file and returns the number of rows.
    pub(crate) fn finish(mut self) -> Result<u64, DataError> {
        self.crc.update(&self.valid);
        self.crc.update(&self.labels);
        let flags = u32::from(self.layout.padded) + 2 * u32::from(self.layout.labelled());
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.push(self.layout.version());
        header.extend_from_slice(&(self.layout.width as u32).to_le_bytes());
        header.extend_from_slice(&(self.layout.length as u32).to_le_bytes());
        header.extend_from_slice(&self.n_rows.to_le_bytes());
        header.extend_from_slice(&flags.to_le_bytes());
        header.extend_from_slice(&self.crc.finalize().to_le_bytes());
        header.extend_from_slice(&self.layout.meaning);
        let mut write = || {
            self.file.write_all(&self.valid)?;
            self.file.write_all(&self.labels)?;
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
        if &header[..7] != MAGIC {
            return Err("it has no header");
        }
        if header[7] != layout.version() {
            return Err(match header[7] {
                b'1' => "it has rows of text, and data.json is that of pictures",
                b'2' => "it has rows of pictures, and data.json is that of text",
                _ => "it has another version of the format",
            });
        }
        let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        let n_rows = u64::from_le_bytes(header[16..24].try_into().expect("eight bytes"));
        let content = match layout.content {
            Content::Text => Content::Text,
            Content::Pictures { .. } => Content::Pictures { labelled: u32_at(24) & 2 != 0 },
        };
        let found = Layout {
            width: u32_at(8) as usize,
            length: u32_at(12) as usize,
            padded: u32_at(24) & 1 != 0,
            content,
            meaning: header[32..64].try_into().expect("32 bytes"),
        };
        if found.meaning != layout.meaning {
            return Err(match content {
                Content::Text => "it was written with another tokenizer than the folder's tokenizer.json",
                Content::Pictures { .. } => "it was written with another \"image\" than data.json has",
            });
        }
        if found != layout {
            return Err("its header does not match data.json");
        }
        if n_rows.checked_mul(layout.row_bytes()).and_then(|bytes| bytes.checked_add(HEADER as u64)) != Some(file_bytes)
        {
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
    /// Maps a shard and checks its header and its size, and its checksum unless `is_checked`.
    pub(crate) fn open(path: &Path, layout: Layout, is_checked: bool) -> Result<Self, DataError> {
        let file = File::open(path).map_err(DataError::io("read", path))?;
        // SAFETY: the map is only read. If another process truncates the file meanwhile, this process can end with a
        // bus error, as with every mapped file. `prepare` never changes a complete folder.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(DataError::io("map", path))?;
        let header = ShardHeader::parse(&map, map.len() as u64, layout).map_err(|problem| damaged(path, problem))?;
        if !is_checked && crc32fast::hash(&map[HEADER..]) != header.checksum {
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
        let bytes = self.bytes(index);
        let tokens = match width {
            1 => bytes.iter().map(|&byte| u32::from(byte)).collect(),
            2 => bytes.as_chunks::<2>().0.iter().map(|b| u32::from(u16::from_le_bytes(*b))).collect(),
            _ => bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect(),
        };
        let valid = if padded { self.number_after_rows(index) as usize } else { length };
        (tokens, valid)
    }

    /// The stored bytes of a row: the pixels of a shard of pixels.
    pub(crate) fn bytes(&self, index: usize) -> &[u8] {
        let row_bytes = self.layout.length * self.layout.width;
        let start = HEADER + index * row_bytes;
        &self.map[start..start + row_bytes]
    }

    /// The label of a row, in labelled data.
    pub(crate) fn label(&self, index: usize) -> Option<u32> {
        let before = if self.layout.padded { self.n_rows } else { 0 };
        self.layout.labelled().then(|| self.number_after_rows(before + index))
    }

    fn number_after_rows(&self, index: usize) -> u32 {
        let at = HEADER + self.n_rows * self.layout.length * self.layout.width + 4 * index;
        u32::from_le_bytes(self.map[at..at + 4].try_into().expect("four bytes"))
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
                let layout = Layout { width, length: 3, padded, content: Content::Text, meaning: [7; 32] };
                let path = folder.path().join(format!("{width}-{padded}"));
                let mut writer = ShardWriter::create(path.clone(), layout).unwrap();
                writer.push(&[0, 1, largest], 3).unwrap();
                writer.push(&[5, largest, 2], 1).unwrap();
                assert_eq!(writer.finish().unwrap(), 2);
                let shard = Shard::open(&path, layout, false).unwrap();
                assert_eq!((shard.n_rows(), shard.row(0)), (2, (vec![0, 1, largest], 3)));
                assert_eq!(shard.row(1), (vec![5, largest, 2], if padded { 1 } else { 3 }));
            }
        }
    }

    #[test]
    fn labels_and_pixels_come_back_and_text_shards_are_written_as_before() {
        let folder = tempfile::tempdir().unwrap();
        for (width, labelled) in [(1, true), (1, false), (2, true), (4, false)] {
            let layout =
                Layout { width, length: 3, padded: false, content: Content::Pictures { labelled }, meaning: [3; 32] };
            let path = folder.path().join(format!("{width}-{labelled}"));
            let mut writer = ShardWriter::create(path.clone(), layout).unwrap();
            for (row, label) in [([1_u8, 2, 255], 70_000), ([0, 9, 4], 0)] {
                match width {
                    1 => writer.push_pixels(&row, label).unwrap(),
                    _ => writer.push_tokens(&row.map(u32::from), label).unwrap(),
                }
            }
            writer.finish().unwrap();
            let shard = Shard::open(&path, layout, false).unwrap();
            assert_eq!((shard.row(0), shard.row(1)), ((vec![1, 2, 255], 3), (vec![0, 9, 4], 3)));
            let labels = [shard.label(0), shard.label(1)];
            assert_eq!(labels, if labelled { [Some(70_000), Some(0)] } else { [None, None] });
            let text = Layout { content: Content::Text, ..layout };
            let message = Shard::open(&path, text, false).unwrap_err().to_string();
            assert!(message.contains("rows of pictures"), "{message}");
        }

        // The bytes of version 1, as this crate has always written them.
        let layout = Layout { width: 2, length: 2, padded: true, content: Content::Text, meaning: [7; 32] };
        let path = folder.path().join("text");
        let mut writer = ShardWriter::create(path.clone(), layout).unwrap();
        writer.push(&[1, 258], 1).unwrap();
        writer.finish().unwrap();
        let body = [1, 0, 2, 1, 1, 0, 0, 0];
        let mut expected = b"PGMROWS1\x02\0\0\0\x02\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0".to_vec();
        expected.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        expected.extend_from_slice(&[7; 32]);
        expected.extend_from_slice(&body);
        assert_eq!(std::fs::read(&path).unwrap(), expected);
    }
}
