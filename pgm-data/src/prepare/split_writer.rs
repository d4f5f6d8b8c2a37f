//! The rows of one split: pieces of text are collected, tokenized in parallel and written in order.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::options::Prepare;
use super::piece::{EncodedPiece, Piece, marker_names, sample};
use crate::error::DataError;
use crate::manifest::{Mode, Split, SplitManifest};
use crate::shard::{Content, Layout, ShardWriter, token_width};

/// Tokens per shard: 128 MiB at two bytes each.
const SHARD_TOKENS: usize = 64 << 20;
/// Bytes of text that are tokenized together.
const CHUNK_BYTES: usize = 8 << 20;

/// Writes the shards of one split.
pub(super) struct SplitWriter<'a> {
    options: &'a Prepare<'a>,
    split: Split,
    folder: PathBuf,
    layout: Layout,
    // Each with whether it continues the document of the piece before.
    pieces: Vec<(Piece, bool)>,
    bytes: usize,
    in_document: bool,
    names: Option<Vec<String>>,
    text: SplitText,
    row: Vec<u32>,
    // Whether EOS comes before the next token. It is written late so that none follows the last document.
    eos_pending: bool,
    document_tokens: usize,
    shard: Option<ShardWriter>,
    counts: SplitManifest,
}

impl<'a> SplitWriter<'a> {
    pub(super) fn new(options: &'a Prepare<'a>, split: Split, folder: &Path) -> Self {
        let layout = Layout {
            width: token_width(options.tokenizer.vocab_size()),
            length: options.length,
            padded: options.mode == Mode::Pad,
            content: Content::Text,
            meaning: options.tokenizer.hash(),
        };
        Self {
            options,
            split,
            folder: folder.to_path_buf(),
            layout,
            pieces: Vec::new(),
            bytes: 0,
            in_document: false,
            names: None,
            text: SplitText::default(),
            row: vec![options.tokenizer.special().bos],
            eos_pending: false,
            document_tokens: 0,
            shard: None,
            counts: SplitManifest::default(),
        }
    }

    /// Whether the next piece continues a document.
    pub(super) fn continues(&self) -> bool {
        self.in_document
    }

    /// Adds text, token ids, or tokens of text.
    pub(super) fn push(&mut self, piece: Piece) -> Result<(), DataError> {
        self.bytes += piece.memory();
        let ends_document = piece.ends_document();
        self.pieces.push((piece, self.in_document));
        self.in_document = !ends_document;
        if self.bytes >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DataError> {
        let pieces = std::mem::take(&mut self.pieces);
        self.bytes = 0;
        let tokenizer = self.options.tokenizer;
        let names = self.names.get_or_insert_with(|| marker_names(tokenizer));
        let sampled = pieces.iter().find_map(|(piece, _)| piece.text()).map(|text| sample(tokenizer, text));
        let encoded: Result<Vec<EncodedPiece>, DataError> =
            pieces.into_par_iter().map(|(piece, continues)| piece.encode(tokenizer, continues, names)).collect();
        let encoded = encoded?;
        if let Some((lost, sampled)) = sampled {
            self.text.lost += lost;
            self.text.sampled += sampled;
        }
        for piece in encoded {
            self.counts.text_bytes += piece.text_bytes;
            self.counts.tokens += piece.tokens.len() as u64;
            self.counts.unknown_tokens += piece.unknown;
            self.text.lost += piece.lost;
            self.text.sampled += piece.sampled;
            for (all, count) in self.text.markers.iter_mut().zip(piece.markers) {
                *all += count;
            }
            match self.options.mode {
                Mode::Pack => self.pack(&piece.tokens, piece.ends_document)?,
                Mode::Pad => self.pad(&piece.tokens, piece.ends_document)?,
            }
            self.counts.documents += u64::from(piece.ends_document);
        }
        Ok(())
    }

    fn pack(&mut self, tokens: &[u32], ends_document: bool) -> Result<(), DataError> {
        let eos = self.options.tokenizer.special().eos;
        for &token in tokens {
            if std::mem::take(&mut self.eos_pending) {
                self.pack_one(eos)?;
            }
            self.pack_one(token)?;
        }
        self.document_tokens += tokens.len();
        if ends_document {
            self.eos_pending |= self.document_tokens > 0;
            self.document_tokens = 0;
        }
        Ok(())
    }

    fn pack_one(&mut self, token: u32) -> Result<(), DataError> {
        self.row.push(token);
        let full = self.options.length - usize::from(self.options.row_eos);
        if self.row.len() == full {
            if self.options.row_eos {
                self.row.push(self.options.tokenizer.special().eos);
            }
            self.write_row(self.options.length)?;
        }
        Ok(())
    }

    fn pad(&mut self, tokens: &[u32], ends_document: bool) -> Result<(), DataError> {
        let special = self.options.tokenizer.special();
        let room = self.options.length - 1 - self.row.len();
        let kept = tokens.len().min(room);
        self.row.extend_from_slice(&tokens[..kept]);
        self.counts.dropped_tokens += (tokens.len() - kept) as u64;
        if ends_document && self.row.len() > 1 {
            self.row.push(special.eos);
            let valid = self.row.len();
            self.row.resize(self.options.length, special.pad.unwrap_or(special.eos));
            self.write_row(valid)?;
        }
        Ok(())
    }

    fn write_row(&mut self, valid: usize) -> Result<(), DataError> {
        let shard = match &mut self.shard {
            Some(shard) => shard,
            None => {
                let name = format!("{}-{:05}.rows", self.split.name(), self.counts.shards.len());
                let shard = ShardWriter::create(self.folder.join(&name), self.layout)?;
                self.counts.shards.push(name);
                self.shard.insert(shard)
            }
        };
        shard.push(&self.row, valid)?;
        self.row.truncate(1);
        if shard.n_rows() as usize * self.options.length >= SHARD_TOKENS {
            self.close_shard()?;
        }
        Ok(())
    }

    fn close_shard(&mut self) -> Result<(), DataError> {
        if let Some(shard) = self.shard.take() {
            self.counts.rows += shard.finish()?;
        }
        Ok(())
    }

    /// Writes the remaining rows. `name` is the split's name in the error for a split without rows.
    pub(super) fn finish(mut self, name: &'static str) -> Result<(SplitManifest, SplitText), DataError> {
        self.flush()?;
        if self.options.mode == Mode::Pad && self.row.len() > 1 {
            // The last piece of a split plain text does not end a document.
            self.pad(&[], true)?;
        }
        self.close_shard()?;
        if self.options.mode == Mode::Pack {
            self.counts.dropped_tokens += self.row.len() as u64 - 1;
        }
        if self.counts.rows == 0 {
            return Err(DataError::TooShort { split: name, tokens: self.counts.tokens, length: self.options.length });
        }
        Ok((self.counts, self.text))
    }
}

/// What was seen in the text of a split.
#[derive(Clone, Debug, Default)]
pub(super) struct SplitText {
    /// How often the names of special tokens are in the text, in the order of [`marker_names`].
    pub(super) markers: [u64; 4],
    /// Characters of a sample that are in no token.
    pub(super) lost: u64,
    /// Characters of the sample.
    pub(super) sampled: u64,
}
