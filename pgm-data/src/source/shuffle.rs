//! Documents in a random order, without holding them in memory: they are sorted by random keys on disk.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};

use super::piece::TextPiece;
use crate::error::DataError;
use crate::mix::mix;

/// Bytes of text per bucket, which is sorted in memory.
const BUCKET_BYTES: u64 = 256 << 20;
const MAX_BUCKETS: u64 = 512;

/// What is written to a bucket.
pub(crate) trait Spilled: Sized {
    /// Whether it is the last piece of its document.
    fn ends_document(&self) -> bool;

    /// Writes it.
    fn write_to(&self, writer: &mut dyn Write) -> io::Result<()>;

    /// Reads it.
    fn read_from(reader: &mut dyn Read) -> io::Result<Self>;
}

/// Takes documents in their order and gives them in an order that depends only on the seed and their number.
pub(crate) struct DocumentShuffle {
    seed: u64,
    buckets: Vec<BufWriter<File>>,
    n_documents: u64,
}

impl DocumentShuffle {
    /// A shuffle of about `n_bytes` bytes of text. The documents go to temporary files.
    pub(crate) fn new(seed: u64, n_bytes: u64) -> Result<Self, DataError> {
        let n_buckets = n_bytes.div_ceil(BUCKET_BYTES).clamp(1, MAX_BUCKETS);
        let buckets: io::Result<Vec<_>> = (0..n_buckets).map(|_| tempfile::tempfile().map(BufWriter::new)).collect();
        Ok(Self { seed, buckets: buckets.map_err(failed)?, n_documents: 0 })
    }

    /// Adds the next piece.
    pub(crate) fn push<P: Spilled>(&mut self, piece: &P) -> Result<(), DataError> {
        let key = mix(self.seed ^ mix(self.n_documents));
        let bucket = ((u128::from(key) * self.buckets.len() as u128) >> 64) as usize;
        self.n_documents += u64::from(piece.ends_document());
        let bucket = &mut self.buckets[bucket];
        bucket.write_all(&key.to_le_bytes()).and_then(|()| piece.write_to(bucket)).map_err(failed)
    }

    /// Gives all pieces in the new order.
    pub(crate) fn finish<P: Spilled>(self, f: &mut dyn FnMut(P) -> Result<(), DataError>) -> Result<(), DataError> {
        for bucket in self.buckets {
            let read = || {
                let mut file = bucket.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.rewind()?;
                let mut reader = BufReader::new(file);
                let mut pieces = Vec::new();
                while !reader.fill_buf()?.is_empty() {
                    let mut key = [0; 8];
                    reader.read_exact(&mut key)?;
                    pieces.push((u64::from_le_bytes(key), P::read_from(&mut reader)?));
                }
                Ok(pieces)
            };
            let mut pieces: Vec<(u64, P)> = read().map_err(failed)?;
            // Stable, so that the pieces of a document keep their order.
            pieces.sort_by_key(|(key, _)| *key);
            pieces.into_iter().try_for_each(|(_, piece)| f(piece))?;
        }
        Ok(())
    }
}

fn failed(cause: io::Error) -> DataError {
    DataError::Io { action: "shuffle documents in", path: std::env::temp_dir(), cause }
}

impl Spilled for TextPiece {
    fn ends_document(&self) -> bool {
        self.ends_document
    }

    fn write_to(&self, writer: &mut dyn Write) -> io::Result<()> {
        let flags = u8::from(self.ends_document) | u8::from(self.divisible) << 1 | u8::from(self.tokens.is_some()) << 2;
        writer.write_all(&[flags])?;
        writer.write_all(&self.source_bytes.to_le_bytes())?;
        match &self.tokens {
            None => {
                writer.write_all(&(self.text.len() as u64).to_le_bytes())?;
                writer.write_all(self.text.as_bytes())
            }
            Some(tokens) => {
                writer.write_all(&(4 * tokens.len() as u64).to_le_bytes())?;
                tokens.iter().try_for_each(|token| writer.write_all(&token.to_le_bytes()))
            }
        }
    }

    fn read_from(reader: &mut dyn Read) -> io::Result<Self> {
        let mut header = [0; 17];
        reader.read_exact(&mut header)?;
        let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
        let mut bytes = vec![0; u64_at(9) as usize];
        reader.read_exact(&mut bytes)?;
        let flags = header[0];
        let (text, tokens) = if flags & 4 == 0 {
            (String::from_utf8(bytes).map_err(io::Error::other)?, None)
        } else {
            let tokens = bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
            (String::new(), Some(tokens))
        };
        let (ends_document, divisible) = (flags & 1 != 0, flags & 2 != 0);
        Ok(Self { text, tokens, ends_document, divisible, source_bytes: u64_at(1) })
    }
}
