//! The format of a file, found by its extension and by its first bytes.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::compression::{Compression, decompressed};
use super::format::FileFormat;
use super::options::{ReadOptions, TextEncoding};
use crate::error::DataError;

/// How many bytes of a file are looked at.
const HEAD_BYTES: u64 = 8192;

/// The result of looking at a file.
pub(super) enum Detected {
    /// It can be read.
    Readable(DetectedFormat),
    /// It cannot be read, for this reason. The sentence has the file as its subject.
    Unreadable(String),
}

/// How a file is read.
pub(super) struct DetectedFormat {
    pub(super) format: FileFormat,
    pub(super) compression: Compression,
    /// Its encoding; `None` is UTF-8.
    pub(super) encoding: Option<TextEncoding>,
    /// Whether the content says that there are JSON records, and the name does not.
    pub(super) found_by_content: bool,
    /// The byte at which the start of a plain text is not UTF-8, if it is not. A named file is read up to there, for the error.
    pub(super) not_utf8: Option<usize>,
}

/// Looks at the start of a file. `name` is the name that has its extension.
pub(super) fn detect(path: &Path, name: &str, options: &ReadOptions) -> Result<Detected, DataError> {
    let open = || File::open(path).map_err(DataError::io("read", path));
    let head_of = |reader: &mut dyn Read| {
        let mut head = Vec::new();
        reader.take(HEAD_BYTES).read_to_end(&mut head).map(|_| head)
    };
    let head = head_of(&mut open()?).map_err(DataError::io("read", path))?;
    let name = name.to_lowercase();
    let (compression, name) = match Compression::of_content(&head) {
        Some(compression) => (compression, without_compression(&name).unwrap_or(&name)),
        None if without_compression(&name).is_some() && !head.is_empty() => {
            return Ok(Detected::Unreadable("is not compressed, as its name says".to_string()));
        }
        None => (Compression::None, name.as_str()),
    };
    let head = if compression == Compression::None {
        head
    } else {
        let mut reader = decompressed(BufReader::new(open()?), compression).map_err(DataError::io("read", path))?;
        match head_of(&mut reader) {
            Ok(head) => head,
            Err(error) => return Ok(Detected::Unreadable(format!("is damaged {compression} ({error})"))),
        }
    };
    let format = match (options.format, binary_format(&head)) {
        (Some(format), _) if format.is_text() => format,
        (_, Some(Ok(format))) => format,
        (_, Some(Err(what))) => return Ok(Detected::Unreadable(format!("is {what}"))),
        (Some(format), None) => format,
        (None, None) => FileFormat::of_extension(name).unwrap_or(FileFormat::Text),
    };
    if !format.is_text() {
        let readable = compression == Compression::None;
        let problem = || format!("is {format} within {compression}; decompress it first");
        let detected = DetectedFormat { format, compression, encoding: None, found_by_content: false, not_utf8: None };
        return Ok(if readable { Detected::Readable(detected) } else { Detected::Unreadable(problem()) });
    }
    let encoding = options.encoding.filter(|encoding| !is_utf8(&head, *encoding));
    let head = match encoding {
        Some(TextEncoding(encoding)) => encoding.decode(&head).0.into_owned().into_bytes(),
        None => match other_encoding(&head) {
            Some(what) => return Ok(Detected::Unreadable(what)),
            None => head,
        },
    };
    let invalid = std::str::from_utf8(&head).err().filter(|error| error.error_len().is_some());
    let records = json_format(&head).filter(|_| format == FileFormat::Text && options.format.is_none());
    Ok(Detected::Readable(DetectedFormat {
        format: records.unwrap_or(format),
        compression,
        encoding,
        found_by_content: records.is_some(),
        not_utf8: invalid.filter(|_| records.unwrap_or(format) == FileFormat::Text).map(|error| error.valid_up_to()),
    }))
}

fn without_compression(name: &str) -> Option<&str> {
    [".gz", ".gzip", ".zst", ".zstd"].iter().find_map(|ending| name.strip_suffix(ending))
}

// What the first bytes say: a format that can be read, or a description of one that cannot.
fn binary_format(head: &[u8]) -> Option<Result<FileFormat, &'static str>> {
    let known: [(&[u8], Result<FileFormat, &'static str>); 18] = [
        (b"PAR1", Ok(FileFormat::Parquet)),
        (b"ARROW1", Ok(FileFormat::Arrow)),
        (b"\xff\xff\xff\xff", Ok(FileFormat::Arrow)),
        (b"PARE", Err("encrypted Parquet; decrypt it first")),
        (b"FEA1", Err("Feather of version 1; write it again as version 2 or Parquet")),
        (b"ORC", Err("ORC; convert it to Parquet")),
        (b"Obj\x01", Err("Avro; convert it to Parquet")),
        (b"BZh", Err("compressed with bzip2; decompress it, or use gzip or zstd")),
        (b"\xfd7zXZ\0", Err("compressed with xz; decompress it, or use gzip or zstd")),
        (b"\x04\x22\x4d\x18", Err("compressed with lz4; decompress it, or use gzip or zstd")),
        (b"PK\x03\x04", Err("a zip archive (or an office document or a PyTorch file); unpack it first")),
        (b"7z\xbc\xaf", Err("a 7z archive; unpack it first")),
        (b"{\\rtf", Err("RTF; convert it to text first")),
        (b"%PDF-", Err("a PDF; convert it to text first")),
        (b"SQLite format 3\0", Err("a SQLite database; export its text first")),
        (b"\x89HDF\r\n", Err("HDF5; export its text first")),
        (b"\x93NUMPY", Err("a NumPy array; write token ids as a Parquet column of lists")),
        (
            b"version https://git-lfs.github.com/spec/",
            Err("a Git LFS pointer, not the file itself; fetch it with git lfs pull"),
        ),
    ];
    if head.get(257..262) == Some(b"ustar") {
        return Some(Err("a tar archive; unpack it first"));
    }
    known.into_iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, format)| format)
}

// Whether a file is UTF-8 although other files have another encoding. ASCII says nothing, except against UTF-16.
fn is_utf8(head: &[u8], TextEncoding(encoding): TextEncoding) -> bool {
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    let is_utf16 = encoding == encoding_rs::UTF_16LE || encoding == encoding_rs::UTF_16BE;
    valid && !head.contains(&0) && (is_utf16 || !head.is_ascii())
}

// Why the start of a file is not UTF-8 text, as far as it can be told by byte order marks and NUL bytes.
fn other_encoding(head: &[u8]) -> Option<String> {
    let said = |what: &str, label: &str| Some(format!("is {what}; read it with --encoding {label}, or convert it"));
    let utf32 = "is UTF-32; convert it to UTF-8".to_string();
    match head {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => return Some(utf32),
        [0xff, 0xfe, ..] => return said("UTF-16 (little endian)", "utf-16le"),
        [0xfe, 0xff, ..] => return said("UTF-16 (big endian)", "utf-16be"),
        _ => {}
    }
    let first = head.iter().position(|&byte| byte == 0)?;
    let binary = format!("is binary: it has a NUL byte at byte {first}");
    let is_text = |byte: &u8| *byte == 0 || *byte >= b' ' || byte.is_ascii_whitespace();
    if head.len() < 8 || head.iter().filter(|byte| !is_text(byte)).count() * 10 > head.len() {
        return Some(binary);
    }
    // Most characters of European text have one zero byte in UTF-16, always on the same side.
    let zeros = |offset: usize| head.iter().skip(offset).step_by(2).filter(|&&byte| byte == 0).count();
    let (even, odd, n_pairs) = (zeros(0), zeros(1), head.len() / 2);
    if odd * 4 > n_pairs && even * 20 < n_pairs {
        said("UTF-16 (little endian) without a byte order mark", "utf-16le")
    } else if even * 4 > n_pairs && odd * 20 < n_pairs {
        said("UTF-16 (big endian) without a byte order mark", "utf-16be")
    } else if even + odd > n_pairs && head.len().is_multiple_of(4) {
        Some(utf32)
    } else {
        Some(binary)
    }
}

// JSON records under another extension: an object, or an array of objects.
fn json_format(head: &[u8]) -> Option<FileFormat> {
    let space = |byte: &u8| byte.is_ascii_whitespace();
    let mut rest = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let mut format = FileFormat::JsonLines;
    if let Some(inner) = rest.strip_prefix(b"[") {
        (rest, format) = (inner.trim_ascii_start(), FileFormat::Json);
    }
    rest = rest.strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"")?;
    let end = rest.iter().position(|&byte| byte == b'"' || byte == b'\n')?;
    let after = rest[end..].strip_prefix(b"\"")?;
    let colon = after.iter().find(|byte| !space(byte))?;
    // An object over several lines is read as a value.
    let one_line = rest.iter().position(|&byte| byte == b'\n').map(|at| &rest[..at]);
    let complete = one_line.is_none_or(|line| line.trim_ascii_end().ends_with(b"}"));
    let format = if format == FileFormat::JsonLines && !complete { FileFormat::Json } else { format };
    (*colon == b':').then_some(format)
}
