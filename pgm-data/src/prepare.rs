//! Text in, a data folder out.
//!
//! Files are read in a stream; stretches of a few megabytes are tokenised in parallel and written as rows in order.
//! Everything is written into a folder beside the target, which is renamed when all of it is there: a stopped run
//! leaves nothing that looks finished.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::rows::{MANIFEST_FILE, Manifest, SplitManifest, TOKENIZER_FILE, hex, token_width};
use crate::shard::{Layout, ShardWriter};
use crate::source::Piece;
use crate::{DataError, Split, TextInputs, TextTokenizer};

/// Tokens of a shard: 128 MiB at two bytes each.
const SHARD_TOKENS: usize = 64 << 20;
/// Text tokenised at a time.
const CHUNK_BYTES: usize = 8 << 20;

/// How documents become rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Documents joined with EOS and cut to length, BOS first in every row.
    #[default]
    Pack,
    /// One document a row between BOS and EOS, cut or filled to length.
    Pad,
}

/// Where the validation rows come from.
#[derive(Clone, Debug)]
pub enum Validation {
    /// The last part of the text, by bytes, cut off before rows are made. JSONL and Parquet documents stay whole.
    Fraction(f64),
    /// So many of the last documents.
    Documents(u64),
    /// Other inputs.
    TextInputs(TextInputs),
}

/// What to prepare.
#[derive(Debug)]
pub struct Prepare<'a> {
    /// The training text (and the validation text, when it is a fraction).
    pub inputs: &'a TextInputs,
    /// Where validation comes from.
    pub validation: &'a Validation,
    /// The tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// Tokens of a row.
    pub length: usize,
    /// How documents become rows.
    pub mode: Mode,
    /// Whether each packed row ends with EOS, as the public code's rows do.
    pub row_eos: bool,
    /// The folder to make; it must not exist.
    pub out: &'a Path,
}

/// Bytes of text done and to do, before any detokenizer.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Bytes tokenised so far.
    pub done: u64,
    /// Bytes in all inputs; 0 while they are being counted.
    pub total: u64,
}

/// Prepares a data folder. `observe` sees progress and can stop the work.
///
/// # Errors
/// What is wrong with the inputs or options; [`DataError::Stopped`] when `observe` says so. Nothing is left at
/// `out` then.
pub fn prepare(what: &Prepare, observe: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Manifest, DataError> {
    let least = if what.row_eos || what.mode == Mode::Pad { 3 } else { 2 };
    if what.length < least {
        return Err(DataError::Option(format!("--length {} is too short, a row needs {least} tokens", what.length)));
    }
    if let Validation::Fraction(fraction) = what.validation
        && !(*fraction > 0.0 && *fraction < 1.0)
    {
        return Err(DataError::Option(format!("--val-fraction {fraction} must lie between 0 and 1")));
    }
    if let Validation::TextInputs(inputs) = what.validation
        && inputs.detokenizer() != what.inputs.detokenizer()
    {
        return Err(DataError::Option("training and validation inputs must have the same detokenizer".to_string()));
    }
    if what.out.exists() {
        return Err(DataError::Exists { path: what.out.to_path_buf() });
    }
    let parent = what.out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(DataError::io("write", parent))?;
    let folder =
        tempfile::Builder::new().prefix(".preparing-").tempdir_in(parent).map_err(DataError::io("write", parent))?;

    let mut poll = || match observe(Progress { done: 0, total: 0 }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(DataError::Stopped),
    };
    let size = what.inputs.size(&mut poll)?;
    let validation_bytes = match what.validation {
        Validation::Fraction(_) => 0,
        Validation::Documents(n_documents) => {
            if *n_documents == 0 || *n_documents >= size.documents {
                return Err(DataError::Option(format!(
                    "--val-documents {n_documents} must be at least 1 and less than the {} documents of the input",
                    size.documents
                )));
            }
            0
        }
        Validation::TextInputs(inputs) => inputs.size(&mut poll)?.bytes,
    };
    let mut done = 0;
    let mut advance = |bytes: u64| {
        done += bytes;
        match observe(Progress { done, total: size.bytes + validation_bytes }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(DataError::Stopped),
        }
    };
    let mut train = SplitWriter::new(what, Split::Train, folder.path());
    let mut validation = SplitWriter::new(what, Split::Validation, folder.path());
    match what.validation {
        Validation::Fraction(fraction) => {
            let cut = (size.bytes as f64 * (1.0 - fraction)) as u64;
            let mut seen = 0;
            what.inputs.for_each_piece(&mut |piece| {
                let start = seen;
                let bytes = piece.source_bytes;
                seen += bytes;
                advance(bytes)?;
                if start >= cut {
                    validation.push(piece)
                } else if seen <= cut || !piece.divisible {
                    train.push(piece)
                } else {
                    let source_bytes = cut - start;
                    let at = u128::from(source_bytes) * piece.text.len() as u128 / u128::from(bytes);
                    let (before, after) = split_at_byte(&piece.text, at as usize);
                    train.push(Piece { text: before.to_string(), ends_document: true, source_bytes, ..piece })?;
                    validation.push(Piece { text: after.to_string(), source_bytes: bytes - source_bytes, ..piece })
                }
            })?;
        }
        Validation::Documents(n_documents) => {
            let mut before_cut = size.documents - n_documents;
            what.inputs.for_each_piece(&mut |piece| {
                advance(piece.source_bytes)?;
                if before_cut == 0 {
                    return validation.push(piece);
                }
                before_cut -= u64::from(piece.ends_document);
                train.push(piece)
            })?;
        }
        Validation::TextInputs(inputs) => {
            let mut each = |writer: &mut SplitWriter, inputs: &TextInputs| {
                inputs.for_each_piece(&mut |piece| {
                    advance(piece.source_bytes)?;
                    writer.push(piece)
                })
            };
            each(&mut train, what.inputs)?;
            each(&mut validation, inputs)?;
        }
    }
    let manifest = Manifest {
        version: 1,
        length: what.length,
        mode: what.mode,
        row_eos: what.row_eos,
        detokenizer: what.inputs.detokenizer(),
        val_documents: match what.validation {
            Validation::Documents(n_documents) => Some(*n_documents),
            Validation::Fraction(_) | Validation::TextInputs(_) => None,
        },
        vocab_size: what.tokenizer.vocab_size(),
        special: what.tokenizer.special().clone(),
        tokenizer_sha256: hex(&what.tokenizer.hash()),
        train: train.finish("training")?,
        validation: validation.finish("validation")?,
    };
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).map_err(DataError::io("write", path))
    };
    write(TOKENIZER_FILE, what.tokenizer.json())?;
    write(MANIFEST_FILE, &serde_json::to_vec_pretty(&manifest).expect("a manifest always serialises"))?;
    std::fs::rename(folder.path(), what.out).map_err(DataError::io("write", what.out))?;
    // Renamed away, so there is nothing to remove; keep() only forgets it.
    let _ = folder.keep();
    open_to_all(what.out);
    Ok(manifest)
}

// A temporary folder is private; the finished one is an ordinary folder. Failing to say so costs nothing.
fn open_to_all(folder: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let _ = std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755));
    }
    #[cfg(not(unix))]
    let _ = folder;
}

fn split_at_byte(text: &str, at: usize) -> (&str, &str) {
    let at = (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
    text.split_at(at)
}

/// Gathers pieces, tokenises them in parallel, makes rows of them in order.
struct SplitWriter<'a> {
    what: &'a Prepare<'a>,
    split: Split,
    folder: PathBuf,
    layout: Layout,
    pieces: Vec<Piece>,
    bytes: usize,
    row: Vec<u32>,
    // Whether an EOS is due before the next token, so that none follows the last document.
    eos_due: bool,
    document_tokens: usize,
    shard: Option<ShardWriter>,
    counts: SplitManifest,
}

impl<'a> SplitWriter<'a> {
    fn new(what: &'a Prepare<'a>, split: Split, folder: &Path) -> Self {
        let layout = Layout {
            width: token_width(what.tokenizer.vocab_size()),
            length: what.length,
            padded: what.mode == Mode::Pad,
            tokenizer_hash: what.tokenizer.hash(),
        };
        Self {
            what,
            split,
            folder: folder.to_path_buf(),
            layout,
            pieces: Vec::new(),
            bytes: 0,
            row: vec![what.tokenizer.special().bos],
            eos_due: false,
            document_tokens: 0,
            shard: None,
            counts: SplitManifest::default(),
        }
    }

    fn push(&mut self, piece: Piece) -> Result<(), DataError> {
        self.bytes += piece.text.len();
        self.pieces.push(piece);
        if self.bytes >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DataError> {
        let pieces = std::mem::take(&mut self.pieces);
        self.counts.text_bytes += self.bytes as u64;
        self.bytes = 0;
        let tokenizer = self.what.tokenizer;
        let encoded: Result<Vec<Vec<u32>>, DataError> =
            pieces.par_iter().map(|piece| tokenizer.encode(&piece.text)).collect();
        for (tokens, piece) in encoded?.into_iter().zip(&pieces) {
            self.counts.tokens += tokens.len() as u64;
            match self.what.mode {
                Mode::Pack => self.pack(&tokens, piece.ends_document)?,
                Mode::Pad => self.pad(&tokens, piece.ends_document)?,
            }
            self.counts.documents += u64::from(piece.ends_document);
        }
        Ok(())
    }

    fn pack(&mut self, tokens: &[u32], ends_document: bool) -> Result<(), DataError> {
        let eos = self.what.tokenizer.special().eos;
        for &token in tokens {
            if std::mem::take(&mut self.eos_due) {
                self.pack_one(eos)?;
            }
            self.pack_one(token)?;
        }
        self.document_tokens += tokens.len();
        if ends_document {
            self.eos_due |= self.document_tokens > 0;
            self.document_tokens = 0;
        }
        Ok(())
    }

    fn pack_one(&mut self, token: u32) -> Result<(), DataError> {
        self.row.push(token);
        let full = self.what.length - usize::from(self.what.row_eos);
        if self.row.len() == full {
            if self.what.row_eos {
                self.row.push(self.what.tokenizer.special().eos);
            }
            self.write_row(self.what.length)?;
        }
        Ok(())
    }

    fn pad(&mut self, tokens: &[u32], ends_document: bool) -> Result<(), DataError> {
        let special = self.what.tokenizer.special();
        let room = self.what.length - 1 - self.row.len();
        let kept = tokens.len().min(room);
        self.row.extend_from_slice(&tokens[..kept]);
        self.counts.dropped_tokens += (tokens.len() - kept) as u64;
        if ends_document && self.row.len() > 1 {
            self.row.push(special.eos);
            let valid = self.row.len();
            self.row.resize(self.what.length, special.pad.unwrap_or(special.eos));
            self.write_row(valid)?;
        }
        Ok(())
    }

    fn write_row(&mut self, valid: usize) -> Result<(), DataError> {
        let shard = match &mut self.shard {
            Some(shard) => shard,
            None => {
                let name = format!("{}-{:05}.rows", self.split.prefix(), self.counts.shards.len());
                let shard = ShardWriter::create(self.folder.join(&name), self.layout)?;
                self.counts.shards.push(name);
                self.shard.insert(shard)
            }
        };
        shard.push(&self.row, valid)?;
        self.row.truncate(1);
        if shard.n_rows() as usize * self.what.length >= SHARD_TOKENS {
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

    fn finish(mut self, name: &'static str) -> Result<SplitManifest, DataError> {
        self.flush()?;
        if self.what.mode == Mode::Pad && self.row.len() > 1 {
            // A plain text cut by the validation split ends without saying so.
            self.pad(&[], true)?;
        }
        self.close_shard()?;
        if self.what.mode == Mode::Pack {
            self.counts.dropped_tokens += self.row.len() as u64 - 1;
        }
        if self.counts.rows == 0 {
            return Err(DataError::TooShort { split: name, tokens: self.counts.tokens, length: self.what.length });
        }
        Ok(self.counts)
    }
}
