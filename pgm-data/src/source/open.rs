//! Opening a file: decompression, decoding, and the byte order mark.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};

use encoding_rs::{Decoder, DecoderResult};

use super::compression::{Compression, decompressed};
use super::input_file::InputFile;
use super::line_border::line_border;
use super::options::TextEncoding;
use crate::error::DataError;

const BUFFER: usize = 256 * 1024;
/// A file of characters as UTF-8, if its bytes are what its encoding says.
pub(super) struct OpenedText {
    /// The text, without a byte order mark.
    pub(super) reader: Box<dyn BufRead>,
    /// Bytes of the byte order mark, which offsets in messages count.
    pub(super) mark_bytes: u64,
    /// Bytes of the file before the text, where it is a range of lines.
    pub(super) before: u64,
}

impl OpenedText {
    pub(super) fn new(file: &InputFile) -> Result<Self, DataError> {
        let open = || {
            let reader = decompressed(BufReader::with_capacity(BUFFER, File::open(file.content())?), file.compression)?;
            let mut reader: Box<dyn Read> = match file.encoding {
                Some(TextEncoding(encoding)) => Box::new(DecodingReader::new(reader, encoding.new_decoder())),
                None => reader,
            };
            let mut start = Vec::new();
            (&mut reader).take(3).read_to_end(&mut start)?;
            let mark_bytes = if start == b"\xef\xbb\xbf" { 3 } else { 0 };
            let start = Cursor::new(start.split_off(mark_bytes as usize));
            let reader = Box::new(start.chain(BufReader::with_capacity(BUFFER, reader)));
            Ok(Self { reader, mark_bytes, before: 0 })
        };
        open().map_err(|error| read_error(file, error))
    }

    /// The lines between two bytes of a file that is neither compressed nor in another encoding. They are whole lines, and
    /// each line is in one of several ranges that meet.
    pub(super) fn of_lines(file: &InputFile, start: u64, end: u64) -> Result<Self, DataError> {
        let (start, end) = (line_border(file, start)?, line_border(file, end)?);
        if start == 0 {
            let Self { reader, mark_bytes, before } = Self::new(file)?;
            return Ok(Self { reader: Box::new(reader.take(end.saturating_sub(mark_bytes))), mark_bytes, before });
        }
        let open = || {
            let mut opened = File::open(file.content())?;
            opened.seek(SeekFrom::Start(start))?;
            let reader = BufReader::with_capacity(BUFFER, opened).take(end.saturating_sub(start));
            Ok(Self { reader: Box::new(reader), mark_bytes: 0, before: start })
        };
        open().map_err(|error| read_error(file, error))
    }
}

/// The error of a read that failed, with the compression if there is one.
pub(super) fn read_error(file: &InputFile, cause: io::Error) -> DataError {
    let problem = match file.compression {
        _ if cause.kind() == io::ErrorKind::InvalidData => cause.to_string(),
        Compression::None => return DataError::Io { action: "read", path: file.path().to_path_buf(), cause },
        _ if cause.kind() == io::ErrorKind::UnexpectedEof => {
            format!("ends within its {} data; fetch it again", file.compression)
        }
        compression if cause.raw_os_error().is_none() => {
            format!("is damaged {compression} data ({cause}); fetch it again")
        }
        _ => return DataError::Io { action: "read", path: file.path().to_path_buf(), cause },
    };
    DataError::Malformed { path: file.path().to_path_buf(), problem }
}

/// Decodes what an inner reader gives to UTF-8. Bytes that the encoding does not have are an error.
struct DecodingReader<R> {
    inner: R,
    decoder: Decoder,
    undecoded: Vec<u8>,
    decoded: String,
    n_given: usize,
    offset: u64,
    at_end: bool,
    finished: bool,
}

impl<R: Read> DecodingReader<R> {
    fn new(inner: R, decoder: Decoder) -> Self {
        let decoded = String::with_capacity(4 * BUFFER);
        Self { inner, decoder, undecoded: Vec::new(), decoded, n_given: 0, offset: 0, at_end: false, finished: false }
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.undecoded.is_empty() {
            let read = (&mut self.inner).take(BUFFER as u64).read_to_end(&mut self.undecoded)?;
            self.at_end = read < BUFFER;
        }
        self.decoded.clear();
        self.n_given = 0;
        let (result, n_read) =
            self.decoder.decode_to_string_without_replacement(&self.undecoded, &mut self.decoded, self.at_end);
        self.undecoded.drain(..n_read);
        self.offset += n_read as u64;
        if let DecoderResult::Malformed(length, after) = result {
            let at = self.offset - u64::from(length) - u64::from(after);
            let name = self.decoder.encoding().name();
            let problem = format!("is not {name} text at byte {at}; give another --encoding, or convert it");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        self.finished = self.at_end && result == DecoderResult::InputEmpty;
        Ok(())
    }
}

impl<R: Read> Read for DecodingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.n_given == self.decoded.len() && !self.finished {
            self.fill()?;
        }
        let n = buffer.len().min(self.decoded.len() - self.n_given);
        buffer[..n].copy_from_slice(&self.decoded.as_bytes()[self.n_given..self.n_given + n]);
        self.n_given += n;
        Ok(n)
    }
}
