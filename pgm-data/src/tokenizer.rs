//! Tokenizers: any Hugging Face `tokenizer.json`, the built-in byte tokenizer, and a newly trained one.

use std::path::Path;
use std::sync::mpsc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer, TokenizerBuilder};

use crate::error::DataError;
use crate::files;
use crate::source::TextInputs;
use crate::special_tokens::{SpecialNames, SpecialTokens};

/// A tokenizer and the ids of its special tokens.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    json: Vec<u8>,
    special: SpecialTokens,
    vocab_size: usize,
}

impl TextTokenizer {
    /// The built-in byte tokenizer: ids 0-255 are the bytes, 256 is BOS and EOS, 257 is the mask. Its `tokenizer.json`
    /// is an ordinary byte-level BPE without merges.
    pub fn bytes() -> Self {
        let json = bytes_json();
        let special = SpecialTokens { bos: 256, eos: 256, pad: None, mask: 257 };
        let tokenizer = parse(&json, "bytes").expect("the built-in tokenizer parses");
        Self { tokenizer, json, special, vocab_size: 258 }
    }

    /// Reads a `tokenizer.json`. Special tokens are found by `names`, then in `tokenizer_config.json` beside the file,
    /// then by their usual names. A vocabulary without a mask token gets one more id for it.
    ///
    /// # Errors
    /// [`DataError::Io`]; [`DataError::Tokenizer`] for a file that does not parse or a name that is not in the
    /// vocabulary; [`DataError::NoSpecialToken`] when BOS or EOS is not found.
    pub fn from_file(path: &Path, names: &SpecialNames) -> Result<Self, DataError> {
        let json = std::fs::read(path).map_err(DataError::io("read", path))?;
        let beside = path.with_file_name("tokenizer_config.json");
        let config = match std::fs::read(&beside) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| DataError::Tokenizer {
                origin: beside.display().to_string(),
                problem: format!("is not JSON ({error})"),
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(DataError::io("read", beside)(error)),
        };
        Self::from_json(json, &path.display().to_string(), names, &config)
    }

    /// Parses a `tokenizer.json` whose special tokens are known from a manifest.
    pub(crate) fn with_special(
        json: Vec<u8>,
        origin: &str,
        special: SpecialTokens,
        vocab_size: usize,
    ) -> Result<Self, DataError> {
        let tokenizer = parse(&json, origin)?;
        Ok(Self { tokenizer, json, special, vocab_size })
    }

    fn from_json(json: Vec<u8>, origin: &str, names: &SpecialNames, config: &Value) -> Result<Self, DataError> {
        let tokenizer = parse(&json, origin)?;
        let find = |role: &'static str, given: &Option<String>, usual: &[&str]| -> Result<Option<u32>, DataError> {
            if let Some(name) = given {
                let unknown = || DataError::Tokenizer {
                    origin: origin.to_string(),
                    problem: format!("has no token {name:?} for the {role} token; check --special-tokens"),
                };
                return tokenizer.token_to_id(name).ok_or_else(unknown).map(Some);
            }
            let entry = &config[format!("{role}_token")];
            let configured = entry.as_str().or_else(|| entry["content"].as_str());
            let candidates = configured.into_iter().chain(usual.iter().copied());
            Ok(candidates.into_iter().find_map(|name| tokenizer.token_to_id(name)))
        };
        let missing = |role| DataError::NoSpecialToken { origin: origin.to_string(), role };
        let bos_names = ["<|endoftext|>", "<s>", "[CLS]", "<bos>", "<|begin_of_text|>", "<|startoftext|>"];
        let eos_names = ["<|endoftext|>", "</s>", "[SEP]", "<eos>", "<|end_of_text|>"];
        let bos = find("bos", &names.bos, &bos_names)?.ok_or_else(|| missing("bos"))?;
        let eos = find("eos", &names.eos, &eos_names)?.ok_or_else(|| missing("eos"))?;
        let pad = find("pad", &names.pad, &["[PAD]", "<pad>", "<|pad|>"])?;
        let mask = find("mask", &names.mask, &["[MASK]", "<mask>", "<|mask|>"])?;
        let n_known = tokenizer.get_vocab(true).values().max().map_or(0, |last| *last as usize + 1);
        let vocab_size = if mask.is_some() { n_known } else { n_known + 1 };
        let special = SpecialTokens { bos, eos, pad, mask: mask.unwrap_or(n_known as u32) };
        Ok(Self { tokenizer, json, special, vocab_size })
    }

    /// Trains a byte-level BPE on all the text, with `<|endoftext|>` and `<|mask|>` as its last two tokens. `observe`
    /// receives the number of bytes read so far.
    ///
    /// # Errors
    /// As for [`TextInputs::for_each_piece`]; [`DataError::Option`] for a vocabulary too small for all bytes;
    /// [`DataError::Tokenizer`] when the training fails.
    pub fn train(inputs: &TextInputs, vocab_size: usize, observe: &(dyn Fn(u64) + Sync)) -> Result<Self, DataError> {
        let n_special = SPECIAL.len();
        if vocab_size < 256 + n_special {
            let least = 256 + n_special;
            return Err(DataError::Option(format!(
                "--vocab-size {vocab_size} is too small: all bytes and the special tokens need {least}"
            )));
        }
        let failed = |error: tokenizers::Error| DataError::Tokenizer {
            origin: "training".to_string(),
            problem: error.to_string(),
        };
        let mut trainer = BpeTrainerBuilder::new()
            .vocab_size(vocab_size - n_special)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .show_progress(false)
            .build();
        let byte_level = ByteLevel::new(false, true, true);
        let mut model = TokenizerBuilder::new()
            .with_model(BPE::default())
            .with_normalizer(None::<tokenizers::NormalizerWrapper>)
            .with_pre_tokenizer(Some(byte_level))
            .with_post_processor(None::<tokenizers::PostProcessorWrapper>)
            .with_decoder(Some(byte_level))
            .build()
            .map_err(failed)?;
        let (sender, receiver) = mpsc::sync_channel::<String>(16);
        let read = std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let mut n_bytes = 0;
                inputs.for_each_piece(&mut |piece| {
                    n_bytes += piece.text.len() as u64;
                    observe(n_bytes);
                    // The receiver is gone only after the training failed; its error is the one to return.
                    let _ = sender.send(piece.text);
                    Ok(())
                })
            });
            let trained = model.train(&mut trainer, receiver.into_iter()).map(drop).map_err(failed);
            let read = reader.join().unwrap_or(Err(DataError::Stopped));
            read.and(trained)
        });
        read?;
        model.add_special_tokens(SPECIAL.map(|name| AddedToken::from(name, true))).map_err(failed)?;
        let json = model.to_string(true).map_err(failed)?.into_bytes();
        Self::from_json(json, "training", &SpecialNames::default(), &Value::Null)
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
}

const SPECIAL: [&str; 2] = ["<|endoftext|>", "<|mask|>"];

fn parse(json: &[u8], origin: &str) -> Result<Tokenizer, DataError> {
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| DataError::Tokenizer {
        origin: origin.to_string(),
        problem: format!("is not a Hugging Face tokenizer.json ({error})"),
    })?;
    tokenizer.set_encode_special_tokens(true);
    // A tokenizer made for another model may truncate or pad its output. Here rows are cut by `prepare`.
    let _ = tokenizer.with_truncation(None);
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

fn bytes_json() -> Vec<u8> {
    let vocab: serde_json::Map<String, Value> =
        (0..=255_u8).map(|byte| (byte_level_char(byte).to_string(), json!(byte))).collect();
    let special = |id: usize, name: &str| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(256, SPECIAL[0]), special(257, SPECIAL[1])],
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": []},
    });
    serde_json::to_vec_pretty(&tokenizer).expect("JSON values always serialise")
}

// GPT-2's printable character for a byte: the byte itself if it prints, else the next free code point from 256 on.
fn byte_level_char(byte: u8) -> char {
    let prints = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if prints(byte) {
        char::from(byte)
    } else {
        let index = (0..byte).filter(|&earlier| !prints(earlier)).count() as u32;
        char::from_u32(256 + index).expect("a small code point")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_tokenizer_maps_every_byte_to_itself_and_back() {
        let tokenizer = TextTokenizer::bytes();
        let text: String = (0..=0x24f_u32).filter_map(char::from_u32).chain("日本 <|endoftext|> 🦀".chars()).collect();
        let ids = tokenizer.encode(&text).unwrap();
        let bytes: Vec<u32> = text.bytes().map(u32::from).collect();
        assert_eq!(ids, bytes);
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        assert_eq!(tokenizer.decode(&[256, 104, 105, 257]).unwrap(), "hi");
        let again = TextTokenizer::from_json(tokenizer.json, "x", &SpecialNames::default(), &Value::Null).unwrap();
        assert_eq!((again.special, again.vocab_size), (tokenizer.special, 258));
    }

    #[test]
    fn a_trained_tokenizer_gives_the_same_tokens_for_the_pieces_as_for_the_whole_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text.txt");
        let words = ["the", "cat's", "  hat", "\n\n", "sat,", "don't", "42", "\n\tcode"];
        let text: String = (0..150_000_usize).map(|i| format!("{} ", words[(i * i + i / 7) % words.len()])).collect();
        std::fs::write(&path, &text).unwrap();
        let inputs = TextInputs::resolve(&[path.display().to_string()], "text", "text").unwrap();
        let tokenizer = TextTokenizer::train(&inputs, 300, &|_| ()).unwrap();
        assert!(tokenizer.vocab_size() <= 300 && tokenizer.vocab_size() > 258);
        assert_eq!(tokenizer.special().mask as usize, tokenizer.vocab_size() - 1);
        assert_eq!(tokenizer.special().bos, tokenizer.special().eos);
        let (mut ids, mut n_pieces) = (Vec::new(), 0);
        inputs
            .for_each_piece(&mut |piece| {
                ids.extend(tokenizer.encode(&piece.text)?);
                n_pieces += 1;
                Ok(())
            })
            .unwrap();
        assert!(n_pieces > 1);
        assert!(ids == tokenizer.encode(&text).unwrap(), "the pieces give other tokens than the whole");
        assert!(tokenizer.decode(&ids).unwrap() == text);
    }

    #[test]
    fn special_tokens_come_from_names_then_the_config_then_the_usual_names() {
        let json = TextTokenizer::bytes().json;
        let resolve = |names: &SpecialNames, config: Value| TextTokenizer::from_json(json.clone(), "t", names, &config);
        let config = json!({"bos_token": "A", "eos_token": {"content": "B"}});
        let special = resolve(&SpecialNames::default(), config).unwrap().special;
        assert_eq!(special, SpecialTokens { bos: 65, eos: 66, pad: None, mask: 257 });
        let names = SpecialNames { bos: Some("C".into()), pad: Some("D".into()), ..SpecialNames::default() };
        let special = resolve(&names, Value::Null).unwrap().special;
        assert_eq!(special, SpecialTokens { bos: 67, eos: 256, pad: Some(68), mask: 257 });
        let names = SpecialNames { mask: Some("nothing".into()), ..SpecialNames::default() };
        let message = resolve(&names, Value::Null).unwrap_err().to_string();
        assert!(message.contains("\"nothing\"") && message.contains("mask token"), "{message}");
    }

    #[test]
    fn a_vocabulary_without_a_mask_gets_one_more_id() {
        let mut json: Value = serde_json::from_slice(&TextTokenizer::bytes().json).unwrap();
        json["added_tokens"].as_array_mut().unwrap().pop();
        let json = serde_json::to_vec(&json).unwrap();
        let tokenizer = TextTokenizer::from_json(json, "t", &SpecialNames::default(), &Value::Null).unwrap();
        assert_eq!((tokenizer.special.mask, tokenizer.vocab_size), (257, 258));
    }
}
