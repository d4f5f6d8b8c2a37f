//! Finds the entries of a zip container in memory: the part of the format that torch uses.
//!
//! torch stores its entries uncompressed, so each one is a slice of the file. This needs only the directory at the end of
//! the file, with its 64-bit form, and the headers before the entries. A general zip library reads through streams,
//! decompresses, and is ten thousand lines.

use std::collections::HashMap;

const END: &[u8] = b"PK\x05\x06";
const END_LENGTH: usize = 22;
const LOCATOR: &[u8] = b"PK\x06\x07";
const LOCATOR_LENGTH: usize = 20;
const END_64: &[u8] = b"PK\x06\x06";
const DIRECTORY: &[u8] = b"PK\x01\x02";
const DIRECTORY_LENGTH: usize = 46;
const LOCAL: &[u8] = b"PK\x03\x04";
const LOCAL_LENGTH: usize = 30;
/// The extra field that holds what does not fit 32 bits.
const EXTRA_64: u16 = 1;

/// Why the entries cannot be read.
pub(super) enum ZipError {
    /// The container is damaged.
    Broken(&'static str),
    /// This entry is compressed or encrypted.
    Packed(String),
}

/// The entries by name. If a name occurs twice, its last entry counts.
pub(super) fn entries(bytes: &[u8]) -> Result<HashMap<String, &[u8]>, ZipError> {
    let (count, start) = directory(bytes)?;
    let mut rest = bytes.get(start..).ok_or(ZipError::Broken("its directory is missing"))?;
    let mut entries = HashMap::new();
    for _ in 0..count {
        // Each entry consumes a part of the file, so a hostile count ends with the file.
        let entry = Entry::read(&mut rest).ok_or(ZipError::Broken("its directory is damaged"))?;
        if entry.packed {
            return Err(ZipError::Packed(entry.name));
        }
        let data = entry.data(bytes).ok_or(ZipError::Broken("an entry lies outside it"))?;
        entries.insert(entry.name, data);
    }
    Ok(entries)
}

/// How many entries the directory has, and where it starts.
fn directory(bytes: &[u8]) -> Result<(u64, usize), ZipError> {
    const MISSING: ZipError = ZipError::Broken("its end is missing");
    // Only a comment of at most 64 KiB follows the end record, which has the comment's length.
    let last = bytes.len().checked_sub(END_LENGTH).ok_or(MISSING)?;
    let is_end = |&at: &usize| {
        bytes[at..].starts_with(END)
            && u16_at(bytes, at + 20).is_some_and(|comment| at + END_LENGTH + usize::from(comment) == bytes.len())
    };
    let end = (last.saturating_sub(usize::from(u16::MAX))..=last).rev().find(is_end).ok_or(MISSING)?;
    let (count, start) = (u16_at(bytes, end + 10), u32_at(bytes, end + 16));
    let (count, start) = count.zip(start).ok_or(MISSING)?;
    let locator = end.checked_sub(LOCATOR_LENGTH).filter(|&at| bytes[at..].starts_with(LOCATOR));
    let (count, start) = match locator {
        Some(locator) if count == u16::MAX || start == u32::MAX => {
            let end_64 = index_at(bytes, locator + 8).filter(|&at| has(bytes, at, END_64)).ok_or(MISSING)?;
            u64_at(bytes, end_64.saturating_add(32)).zip(u64_at(bytes, end_64.saturating_add(48))).ok_or(MISSING)?
        }
        _ => (count.into(), start.into()),
    };
    Ok((count, usize::try_from(start).map_err(|_| MISSING)?))
}

struct Entry {
    name: String,
    packed: bool,
    length: u64,
    header: u64,
}

impl Entry {
    /// Reads the next entry of the directory.
    fn read(rest: &mut &[u8]) -> Option<Self> {
        let fixed = rest.get(..DIRECTORY_LENGTH).filter(|fixed| fixed.starts_with(DIRECTORY))?;
        let lengths = [u16_at(fixed, 28)?, u16_at(fixed, 30)?, u16_at(fixed, 32)?].map(usize::from);
        let [name, extra, comment] = lengths;
        let tail = rest.get(DIRECTORY_LENGTH..DIRECTORY_LENGTH + name + extra + comment)?;
        let mut entry = Self {
            name: String::from_utf8_lossy(&tail[..name]).into_owned(),
            packed: u16_at(fixed, 8)? & 1 == 1 || u16_at(fixed, 10)? != 0,
            length: u32_at(fixed, 20)?.into(),
            header: u32_at(fixed, 42)?.into(),
        };
        let is_large = |value: u64| value == u64::from(u32::MAX);
        let (unpacked, large_header) = (u64::from(u32_at(fixed, 24)?), is_large(entry.header));
        if is_large(unpacked) || is_large(entry.length) || large_header {
            // The 64-bit values come in this order; each is present only if its 32-bit field is full.
            let mut values = extra_64(&tail[name..name + extra])?;
            let mut take = || {
                let value = u64_at(values, 0)?;
                values = &values[8..];
                Some(value)
            };
            if is_large(unpacked) {
                take()?;
            }
            if is_large(entry.length) {
                entry.length = take()?;
            }
            if large_header {
                entry.header = take()?;
            }
        }
        *rest = &rest[DIRECTORY_LENGTH + tail.len()..];
        Some(entry)
    }

    /// Its bytes. They follow its own header, whose name and extra field may differ in length from the directory's.
    fn data<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let header = usize::try_from(self.header).ok().filter(|&at| has(bytes, at, LOCAL))?;
        let header = &bytes[header..];
        let skipped = LOCAL_LENGTH + usize::from(u16_at(header, 26)?) + usize::from(u16_at(header, 28)?);
        header.get(skipped..)?.get(..usize::try_from(self.length).ok()?)
    }
}

fn extra_64(mut extra: &[u8]) -> Option<&[u8]> {
    loop {
        let (kind, length) = (u16_at(extra, 0)?, usize::from(u16_at(extra, 2)?));
        let field = extra.get(4..4 + length)?;
        if kind == EXTRA_64 {
            return Some(field);
        }
        extra = &extra[4 + length..];
    }
}

fn has(bytes: &[u8], at: usize, signature: &[u8]) -> bool {
    bytes.get(at..).is_some_and(|bytes| bytes.starts_with(signature))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_le_bytes)
}

fn index_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64_at(bytes, at)?).ok()
}
