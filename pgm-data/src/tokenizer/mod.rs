//! Tokenizers: any Hugging Face `tokenizer.json`, the built-in byte tokenizer, and a newly trained one.

mod bytes;
mod load;
mod train;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use crate::error::DataError;
use crate::files;
use crate::manifest::{TOKENIZER_CONFIG_FILE, TOKENIZER_FILE};
use crate::source::TextInputs;
use crate::special_tokens::{SpecialNames, SpecialTokens};
use load::{Loaded, load, parse, token_names, unknown_id};

/// A tokenizer and the ids of its special tokens.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    json: Vec<u8>,
    special: SpecialTokens,
    vocab_size: usize,
    config: Option<Vec<u8>>,
    notes: Vec<String>,
    // Whether the start of a text has other tokens than the same characters within it.
    marks_start: bool,
}

impl TextTokenizer {
    /// The built-in byte tokenizer: ids 0-255 are the bytes, 256 is BOS and EOS, 257 is the mask. Its `tokenizer.json`
    /// is an ordinary byte-level BPE without merges.
    pub fn bytes() -> Self {
        let special = SpecialTokens { bos: 256, eos: 256, pad: None, mask: 257 };
        Self::with_special(bytes::bytes_json(), "bytes", special, 258).expect("the built-in tokenizer parses")
    }

    /// Reads a `tokenizer.json`, or the one of a folder. Special tokens are found by `names`, then in
    /// `tokenizer_config.json` beside the file, then by their usual names.
    ///
    /// A vocabulary without a mask token gets one more id for it, one without BOS or EOS gets one more token for each.
    /// BPE dropout is turned off. [`notes`](Self::notes) has what was changed.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::Tokenizer`] for a folder without `tokenizer.json`, a file that does not parse,
    /// or a name that is not in the vocabulary.
    pub fn from_file(path: &Path, names: &SpecialNames) -> Result<Self, DataError> {
        let path = if path.is_dir() { tokenizer_of_folder(path)? } else { path.to_path_buf() };
        let json = std::fs::read(&path).map_err(DataError::io("read", &path))?;
        let beside = path.with_file_name(TOKENIZER_CONFIG_FILE);
        let config = match std::fs::read(&beside) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(DataError::io("read", beside)(error)),
        };
        Self::from_json(json, &path.display().to_string(), names, config)
    }

    /// Parses a `tokenizer.json` whose special tokens are known from a manifest.
    pub(crate) fn with_special(
        json: Vec<u8>,
        origin: &str,
        special: SpecialTokens,
        vocab_size: usize,
    ) -> Result<Self, DataError> {
        let tokenizer = parse(&json, origin)?;
        Ok(Self { tokenizer, json, special, vocab_size, config: None, notes: Vec::new(), marks_start: false })
    }

    /// The same tokenizer with its `tokenizer_config.json`.
    pub(crate) fn with_config(self, config: Option<Vec<u8>>) -> Self {
        Self { config, ..self }
    }

    fn from_json(
        json: Vec<u8>,
        origin: &str,
        names: &SpecialNames,
        config: Option<Vec<u8>>,
    ) -> Result<Self, DataError> {
        let Loaded { tokenizer, json, special, vocab_size, config, notes } = load(json, origin, names, config)?;
        Ok(Self { tokenizer, json, special, vocab_size, config, notes, marks_start: false }.for_pieces())
    }

    /// The same tokenizer, ready for [`encode_continued`](Self::encode_continued).
    pub(crate) fn for_pieces(self) -> Self {
        let marks_start = [" a", "\na"].into_iter().any(|text| {
            let alone = self.encode(text).ok();
            alone.is_some() && self.encode_after_context(text, "x") != alone
        });
        Self { marks_start, ..self }
    }

    /// Trains a byte-level BPE on all the text, with `<|endoftext|>` and `<|mask|>` as its last two tokens. `observe`
    /// receives the number of bytes read so far. Words of more than 512 bytes are cut before they are counted.
    ///
    /// # Errors
    /// As for [`TextInputs::for_each_piece`]; [`DataError::Option`] for inputs without text, and for a vocabulary too
    /// small for all bytes or larger than 2^20; [`DataError::Tokenizer`] when the training fails.
    pub fn train(inputs: &TextInputs, vocab_size: usize, observe: &(dyn Fn(u64) + Sync)) -> Result<Self, DataError> {
        let json = train::train_json(inputs, vocab_size, observe)?;
        Self::from_json(json, "training", &SpecialNames::default(), None)
    }

    /// Token ids of a text. The name of a special token within the text is ordinary text.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] when the tokenizer cannot encode the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|error| DataError::Tokenizer { origin: "encode".to_string(), problem: error.to_string() })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Token ids of a text that follows other text of the same document, which ended before white space. A tokenizer
    /// that marks the start of a text, as Llama's does with `▁`, does not mark this one.
    pub(crate) fn encode_continued(&self, text: &str) -> Result<Vec<u32>, DataError> {
        if self.marks_start {
            let context = if text.starts_with(char::is_whitespace) { "x" } else { "\n" };
            if let Some(ids) = self.encode_after_context(text, context) {
                return Ok(ids);
            }
        }
        self.encode(text)
    }

    // The ids of `text` within `context` and `text`, if no token has parts of both.
    fn encode_after_context(&self, text: &str, context: &str) -> Option<Vec<u32>> {
        let encoding = self.tokenizer.encode(format!("{context}{text}"), false).ok()?;
        let mut ids = Vec::with_capacity(encoding.len());
        for (&id, &(start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            match (start < context.len(), end > context.len()) {
                (true, true) => return None,
                (true, false) if ids.is_empty() => {}
                _ => ids.push(id),
            }
        }
        Some(ids)
    }

    /// Estimates how many characters of a text no token covers; then the number of characters counted (neither white space
    /// nor control). It is an estimate, because dropped characters shift the offsets of the tokens after them.
    pub(crate) fn lost_characters(&self, text: &str) -> (u64, u64) {
        let Ok(encoding) = self.tokenizer.encode(text, false) else { return (0, 0) };
        let mut covered = vec![false; text.len()];
        for &(start, end) in encoding.get_offsets() {
            covered[start.min(end)..end.min(text.len())].fill(true);
        }
        let visible =
            text.char_indices().filter(|(_, character)| !character.is_whitespace() && !character.is_control());
        visible.fold((0, 0), |(lost, all), (at, _)| (lost + u64::from(!covered[at]), all + 1))
    }

    /// The text of token ids, without special tokens.
    ///
    /// # Errors
    /// [`DataError::Tokenizer`] when the tokenizer cannot decode an id.
    pub fn decode(&self, ids: &[u32]) -> Result<String, DataError> {
        self.tokenizer
            .decode(ids, true)
            .map_err(|error| DataError::Tokenizer { origin: "decode".to_string(), problem: error.to_string() })
    }

    /// Writes the `tokenizer.json`: beside `path`, then renamed.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), DataError> {
        files::write_file(path, &self.json)
    }

    /// The content of `tokenizer.json`.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// SHA-256 of `tokenizer.json`.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.json).into()
    }

    /// Ids of the special tokens.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// Size of the model's vocabulary, mask token included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Names of the special tokens. A token that only has an id has none.
    pub fn special_names(&self) -> SpecialNames {
        token_names(&self.tokenizer, &self.special)
    }

    /// Whether a name is that of a special token, which is not found in text.
    pub(crate) fn is_special(&self, name: &str) -> bool {
        self.tokenizer.get_added_vocabulary().is_special_token(name)
    }

    /// The id of the token for unknown text, if there is one.
    pub fn unknown_id(&self) -> Option<u32> {
        unknown_id(&self.tokenizer)
    }

    /// The content of the `tokenizer_config.json` that names the special tokens. There is none when the tokenizer had
    /// none and its special tokens are the usual ones.
    pub fn config_json(&self) -> Option<&[u8]> {
        self.config.as_deref()
    }

    /// What was changed while loading, as sentences for the user.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

fn tokenizer_of_folder(folder: &Path) -> Result<PathBuf, DataError> {
    let path = folder.join(TOKENIZER_FILE);
    if path.is_file() {
        return Ok(path);
    }
    let has = |name: &str| folder.join(name).exists();
    let hint = if has("tokenizer.model") || has("spiece.model") || has("vocab.json") || has("vocab.txt") {
        "; it has the files of a slow tokenizer: load it with AutoTokenizer of transformers and save it again"
    } else {
        ""
    };
    Err(DataError::Tokenizer {
        origin: folder.display().to_string(),
        problem: format!("is a folder without {TOKENIZER_FILE}{hint}"),
    })
}

#[cfg(test)]
mod tests;
