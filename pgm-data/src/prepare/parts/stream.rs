//! The file of tokens that a part has for each source: frames of records. A frame is its length and its CRC-32, four bytes
//! each, then records, each after its length. Nothing of a frame is used before its checksum was checked.
//!
//! | record | after its flags |
//! |---|---|
//! | place (32) | index of the file, kind, start and end of what is read of it, index of the next piece there |
//! | piece (1 ends a document, 2 divisible, 4 continues one) | bytes of the source, bytes of text; with 8, records left out before it; with 16, unknown tokens, lost and sampled characters, four markers; then the tokens |
//! | end (64) | records left out after the last piece of a range |
//!
//! Numbers are LEB128, tokens have two or four bytes. The pieces of a range come in the order of the range.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::super::piece::EncodedPiece;
use super::folder::StoredSource;
use crate::error::DataError;
use crate::source::{FileRange, PiecePlace, Spilled};

const ENDS_DOCUMENT: u8 = 1;
const DIVISIBLE: u8 = 2;
const CONTINUES: u8 = 4;
const SKIPS: u8 = 8;
const COUNTS: u8 = 16;
const PLACE: u8 = 32;
const END: u8 = 64;
/// Bytes of a frame, if its last record does not need more.
const FRAME: usize = 1 << 20;

/// A record with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Where it is. What comes after the last piece of a range has the index `u64::MAX`.
    pub(super) place: PiecePlace,
    /// The piece, absent at the end of a range.
    pub(super) piece: Option<EncodedPiece>,
    /// Nulls before it.
    pub(super) nulls: u64,
    /// Bad records before it.
    pub(super) bad: u64,
}

impl Item {
    /// The order of the text.
    pub(super) fn key(&self) -> (u64, u64, u64) {
        let start = match self.place.range {
            FileRange::Whole => 0,
            FileRange::Lines { start, .. } | FileRange::Rows { start, .. } => start,
        };
        (self.place.file, start, self.place.index)
    }
}

/// Writes the tokens of a source.
pub(super) struct StreamWriter {
    path: PathBuf,
    file: File,
    width: usize,
    // Of the next piece, if it follows the last one.
    next: Option<PiecePlace>,
    record: Vec<u8>,
    frame: Vec<u8>,
    // Of the checksums of all frames.
    crc: crc32fast::Hasher,
    stored: StoredSource,
}

impl StreamWriter {
    pub(super) fn create(folder: &Path, name: String, width: usize) -> Result<Self, DataError> {
        let path = folder.join(&name);
        let file = File::create(&path).map_err(DataError::io("write", &path))?;
        let stored = StoredSource { file: name, file_bytes: 0, checksum: 0, source_bytes: 0, documents: 0, tokens: 0 };
        let (record, frame, crc) = (Vec::new(), Vec::new(), crc32fast::Hasher::new());
        Ok(Self { path, file, width, next: None, record, frame, crc, stored })
    }

    pub(super) fn push(&mut self, item: &Item) -> Result<(), DataError> {
        if self.next != Some(item.place) {
            put_place(&mut self.record, item.place);
            self.end_record();
        }
        match &item.piece {
            Some(piece) => {
                put_piece(&mut self.record, piece, (item.nulls, item.bad), self.width);
                self.stored.source_bytes += piece.source_bytes;
                self.stored.documents += u64::from(piece.ends_document);
                self.stored.tokens += piece.tokens.len() as u64;
                self.next = Some(PiecePlace { index: item.place.index + 1, ..item.place });
            }
            None => {
                self.record.push(END);
                put_number(&mut self.record, item.nulls);
                put_number(&mut self.record, item.bad);
                self.next = None;
            }
        }
        self.end_record();
        if self.frame.len() >= FRAME { self.write_frame() } else { Ok(()) }
    }

    fn end_record(&mut self) {
        put_number(&mut self.frame, self.record.len() as u64);
        self.frame.append(&mut self.record);
    }

    fn write_frame(&mut self) -> Result<(), DataError> {
        let crc = crc32fast::hash(&self.frame).to_le_bytes();
        self.crc.update(&crc);
        for bytes in [&(self.frame.len() as u32).to_le_bytes()[..], &crc, &self.frame] {
            self.stored.file_bytes += bytes.len() as u64;
            self.file.write_all(bytes).map_err(DataError::io("write", &self.path))?;
        }
        self.frame.clear();
        Ok(())
    }

    /// Syncs the file.
    pub(super) fn finish(mut self) -> Result<StoredSource, DataError> {
        if !self.frame.is_empty() {
            self.write_frame()?;
        }
        self.file.sync_all().map_err(DataError::io("write", &self.path))?;
        Ok(StoredSource { checksum: self.crc.finalize(), ..self.stored })
    }
}

/// Reads the tokens of a source.
pub(super) struct StreamReader {
    path: PathBuf,
    file: File,
    width: usize,
    // Of the next piece.
    place: Option<PiecePlace>,
    frame: Vec<u8>,
    at: usize,
    // Bytes after the frame.
    remaining: u64,
    crc: crc32fast::Hasher,
    checksum: u32,
}

impl StreamReader {
    pub(super) fn open(folder: &Path, stored: &StoredSource, width: usize) -> Result<Self, DataError> {
        let path = folder.join(&stored.file);
        let file = File::open(&path).map_err(DataError::io("read", &path))?;
        let n_bytes = file.metadata().map_err(DataError::io("read", &path))?.len();
        let (remaining, checksum) = (stored.file_bytes, stored.checksum);
        let (frame, crc) = (Vec::new(), crc32fast::Hasher::new());
        let reader = Self { path, file, width, place: None, frame, at: 0, remaining, crc, checksum };
        if n_bytes != remaining {
            return Err(reader.damaged(format!("it has {n_bytes} bytes, not {remaining}")));
        }
        Ok(reader)
    }

    /// The next record.
    pub(super) fn next(&mut self) -> Result<Option<Item>, DataError> {
        loop {
            if self.at == self.frame.len() && !self.read_frame()? {
                return Ok(None);
            }
            let mut rest = &self.frame[self.at..];
            let record = number(&mut rest).and_then(|length| rest.get(..usize::try_from(length).ok()?));
            let Some(record) = record else { return Err(self.broken()) };
            let end = self.frame.len() - rest.len() + record.len();
            if record.first() == Some(&PLACE) {
                self.place = place(&record[1..]);
            } else {
                let item = self.place.and_then(|place| item(record, place, self.width));
                let Some(item) = item else { return Err(self.broken()) };
                let next = |_: &EncodedPiece| PiecePlace { index: item.place.index.saturating_add(1), ..item.place };
                self.place = item.piece.as_ref().map(next);
                self.at = end;
                return Ok(Some(item));
            }
            self.at = end;
        }
    }

    // Whether there is one more.
    fn read_frame(&mut self) -> Result<bool, DataError> {
        if self.remaining == 0 {
            let same = self.crc.clone().finalize() == self.checksum;
            return if same { Ok(false) } else { Err(self.broken()) };
        }
        let mut header = [0; 8];
        if self.remaining < header.len() as u64 {
            return Err(self.broken());
        }
        self.file.read_exact(&mut header).map_err(DataError::io("read", &self.path))?;
        self.remaining -= header.len() as u64;
        let [length, crc] = [&header[..4], &header[4..]].map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")));
        if length == 0 || u64::from(length) > self.remaining {
            return Err(self.broken());
        }
        self.frame.resize(length as usize, 0);
        self.file.read_exact(&mut self.frame).map_err(DataError::io("read", &self.path))?;
        self.remaining -= u64::from(length);
        self.at = 0;
        self.crc.update(&header[4..]);
        if crc32fast::hash(&self.frame) == crc { Ok(true) } else { Err(self.broken()) }
    }

    fn broken(&self) -> DataError {
        self.damaged("its checksum does not match its content".to_string())
    }

    fn damaged(&self, problem: String) -> DataError {
        let file = self.path.file_name().unwrap_or_default().to_string_lossy();
        DataError::damaged_part(self.path.parent().unwrap_or(&self.path), &file, &problem)
    }
}

/// A piece between the temporary files of a shuffle.
impl Spilled for EncodedPiece {
    fn ends_document(&self) -> bool {
        self.ends_document
    }

    fn write_to(&self, writer: &mut dyn Write) -> io::Result<()> {
        let mut bytes = Vec::new();
        let whole = PiecePlace { file: 0, range: FileRange::Whole, index: 0 };
        put_place(&mut bytes, self.place.unwrap_or(whole));
        let n_place = bytes.len() as u32;
        put_piece(&mut bytes, self, (0, 0), 4);
        writer.write_all(&n_place.to_le_bytes())?;
        writer.write_all(&(bytes.len() as u64).to_le_bytes())?;
        writer.write_all(&bytes)
    }

    fn read_from(reader: &mut dyn Read) -> io::Result<Self> {
        let (mut n_place, mut length) = ([0; 4], [0; 8]);
        reader.read_exact(&mut n_place)?;
        reader.read_exact(&mut length)?;
        let mut bytes = vec![0; u64::from_le_bytes(length) as usize];
        reader.read_exact(&mut bytes)?;
        let read = || {
            let (start, record) = bytes.split_at_checked(u32::from_le_bytes(n_place) as usize)?;
            item(record, place(start.get(1..)?)?, 4)?.piece
        };
        read().ok_or_else(|| io::Error::other("a temporary file was changed"))
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put_place(out: &mut Vec<u8>, place: PiecePlace) {
    let (kind, start, end) = match place.range {
        FileRange::Whole => (0, 0, 0),
        FileRange::Lines { start, end } => (1, start, end),
        FileRange::Rows { start, end } => (2, start, end),
    };
    out.push(PLACE);
    for number in [place.file, kind, start, end, place.index] {
        put_number(out, number);
    }
}

fn place(mut bytes: &[u8]) -> Option<PiecePlace> {
    let mut next = || number(&mut bytes);
    let (file, kind, start, end, index) = (next()?, next()?, next()?, next()?, next()?);
    let range = match kind {
        0 => FileRange::Whole,
        1 => FileRange::Lines { start, end },
        2 => FileRange::Rows { start, end },
        _ => return None,
    };
    Some(PiecePlace { file, range, index })
}

fn put_piece(out: &mut Vec<u8>, piece: &EncodedPiece, (nulls, bad): (u64, u64), width: usize) {
    let counts = [piece.unknown, piece.lost, piece.sampled];
    let has_skips = nulls > 0 || bad > 0;
    let has_counts = counts.iter().chain(&piece.markers).any(|&count| count > 0);
    let flags = [
        (ENDS_DOCUMENT, piece.ends_document),
        (DIVISIBLE, piece.divisible),
        (CONTINUES, piece.continues),
        (SKIPS, has_skips),
        (COUNTS, has_counts),
    ];
    out.push(flags.iter().filter(|(_, set)| *set).fold(0, |all, (flag, _)| all | flag));
    put_number(out, piece.source_bytes);
    put_number(out, piece.text_bytes);
    if has_skips {
        put_number(out, nulls);
        put_number(out, bad);
    }
    if has_counts {
        for count in counts.into_iter().chain(piece.markers) {
            put_number(out, count);
        }
    }
    for token in &piece.tokens {
        out.extend_from_slice(&token.to_le_bytes()[..width]);
    }
}

// A piece, or the end of a range.
fn item(record: &[u8], place: PiecePlace, width: usize) -> Option<Item> {
    let (&flags, mut rest) = record.split_first()?;
    let mut next = || number(&mut rest);
    if flags == END {
        return Some(Item { place, piece: None, nulls: next()?, bad: next()? });
    }
    let (source_bytes, text_bytes) = (next()?, next()?);
    let (nulls, bad) = if flags & SKIPS != 0 { (next()?, next()?) } else { (0, 0) };
    let mut counts = [0; 7];
    if flags & COUNTS != 0 {
        for count in &mut counts {
            *count = next()?;
        }
    }
    let [unknown, lost, sampled, markers @ ..] = counts;
    let tokens = match width {
        2 => rest.as_chunks::<2>().0.iter().map(|bytes| u32::from(u16::from_le_bytes(*bytes))).collect(),
        _ => rest.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect(),
    };
    let piece = EncodedPiece {
        tokens,
        ends_document: flags & ENDS_DOCUMENT != 0,
        divisible: flags & DIVISIBLE != 0,
        continues: flags & CONTINUES != 0,
        source_bytes,
        text_bytes,
        unknown,
        markers,
        lost,
        sampled,
        place: Some(place),
    };
    Some(Item { place, piece: Some(piece), nulls, bad })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items() -> Vec<Item> {
        let ranges =
            [FileRange::Whole, FileRange::Lines { start: 9, end: 1 << 40 }, FileRange::Rows { start: 300, end: 301 }];
        let mut items = Vec::new();
        for (file, range) in ranges.into_iter().enumerate() {
            for index in [0, 1, 7, 8, u64::MAX] {
                let place = PiecePlace { file: file as u64, range, index };
                let piece = EncodedPiece {
                    tokens: (0..index.min(8) as u32 * 3000).map(|token| token % 60_000).collect(),
                    ends_document: index % 2 == 1,
                    divisible: file == 0,
                    continues: index == 1,
                    source_bytes: index.min(8) * 1000,
                    text_bytes: index,
                    unknown: index / 7,
                    markers: [0, index % 3, 0, 0],
                    lost: 0,
                    sampled: index / 8,
                    place: Some(place),
                };
                let piece = (index != u64::MAX).then_some(piece);
                items.push(Item { place, piece, nulls: index.min(8) / 4, bad: 0 });
            }
        }
        items
    }

    #[test]
    fn pieces_come_back_with_their_places_at_both_widths() {
        let folder = tempfile::tempdir().unwrap();
        for width in [2, 4] {
            let mut writer = StreamWriter::create(folder.path(), format!("{width}"), width).unwrap();
            items().iter().for_each(|item| writer.push(item).unwrap());
            let stored = writer.finish().unwrap();
            assert_eq!((stored.documents, stored.source_bytes), (6, 48_000));
            let mut reader = StreamReader::open(folder.path(), &stored, width).unwrap();
            let mut found = Vec::new();
            while let Some(item) = reader.next().unwrap() {
                found.push(item);
            }
            assert!(found == items() && found.is_sorted_by_key(Item::key));
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = StreamWriter::create(folder.path(), "a".into(), 2).unwrap();
        items().iter().filter(|item| item.place.index < 2).for_each(|item| writer.push(item).unwrap());
        let stored = writer.finish().unwrap();
        let path = folder.path().join("a");
        let bytes = std::fs::read(&path).unwrap();
        let read = || {
            let mut reader = StreamReader::open(folder.path(), &stored, 2)?;
            while reader.next()?.is_some() {}
            Ok(())
        };
        read().map_err(|error: DataError| error.to_string()).unwrap();
        for at in (0..200).chain((200..bytes.len()).step_by(97)) {
            let mut changed = bytes.clone();
            changed[at] ^= 0x81;
            std::fs::write(&path, changed).unwrap();
            assert!(matches!(read(), Err(DataError::Parts { .. })), "byte {at}");
        }
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(read(), Err(DataError::Parts { .. })));
    }
}
