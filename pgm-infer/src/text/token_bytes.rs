//! The bytes that each token of a vocabulary stands for, and the tokens that begin or end with given bytes.
//!
//! | decoder of the tokenizer | bytes of a token |
//! |---|---|
//! | `ByteLevel` | one byte for each letter |
//! | `Metaspace`, or a `Replace` by a space | its letters, `▁` as a space; `<0xNN>` is one byte |
//! | `WordPiece` | `##ing` is `ing`; any other word has a space before it |
//!
//! Tokenizers with another decoder have no table: their tokens are whole words, and no token can hold a border of a blank.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;
use tokenizers::Tokenizer;

/// The bytes of all tokens; special tokens have none.
#[derive(Debug)]
pub(super) struct TokenBytes {
    bytes: Vec<Option<Box<[u8]>>>,
    // Token ids, sorted by their bytes, and by their bytes read backwards.
    by_start: Vec<u32>,
    by_end: Vec<u32>,
    // The lists that rows hold now, so that equal ones are held once.
    lists: Mutex<HashMap<(Side, Box<[u8]>), Weak<[u32]>>>,
}

/// Where in a token the bytes stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Side {
    Start,
    End,
}

/// With so many lists those that nobody holds any more are taken out.
const MANY_LISTS: usize = 1024;

enum Kind {
    ByteLevel,
    Metaspace(String),
    WordPiece(String),
}

impl TokenBytes {
    /// The table of a tokenizer, if its tokens are stretches of text. The tokens `special` have no bytes.
    pub(super) fn new(tokenizer: &Tokenizer, special: &[usize]) -> Option<Self> {
        let decoder = serde_json::to_value(tokenizer.get_decoder()?).ok()?;
        let kind = kind(&decoder)?;
        let added = tokenizer.get_added_tokens_decoder();
        let vocab = tokenizer.get_vocab(true);
        let unknown = unknown_token(tokenizer);
        let byte_of = byte_level_alphabet();
        let n = vocab.values().max().map_or(0, |&id| id as usize + 1);
        let mut bytes: Vec<Option<Box<[u8]>>> = vec![None; n];
        for (token, id) in vocab {
            if special.contains(&(id as usize)) || unknown.as_deref() == Some(token.as_str()) {
                continue;
            }
            let of_token = match added.get(&id) {
                Some(added) => (!added.special).then(|| added.content.clone().into_bytes()),
                None => kind.bytes(&token, &byte_of),
            };
            bytes[id as usize] = of_token.filter(|bytes| !bytes.is_empty()).map(Vec::into_boxed_slice);
        }
        let known = || (0..n as u32).filter(|&id| bytes[id as usize].is_some());
        let start = |id: &u32| bytes[*id as usize].as_deref().unwrap_or_default();
        let (mut by_start, mut by_end): (Vec<u32>, Vec<u32>) = (known().collect(), known().collect());
        by_start.sort_by(|a, b| start(a).cmp(start(b)));
        by_end.sort_by(|a, b| start(a).iter().rev().cmp(start(b).iter().rev()));
        Some(Self { bytes, by_start, by_end, lists: Mutex::default() })
    }

    /// The bytes of a token; none for special tokens.
    pub(super) fn get(&self, token: u32) -> Option<&[u8]> {
        self.bytes.get(token as usize)?.as_deref()
    }

    /// The tokens that begin with `start`, ascending.
    pub(super) fn starting_with(&self, start: &[u8]) -> Arc<[u32]> {
        let bytes = |id: &u32| self.get(*id).unwrap_or_default();
        self.list(Side::Start, start, || {
            let from = self.by_start.partition_point(|id| bytes(id) < start);
            sorted(self.by_start[from..].iter().copied().take_while(|id| bytes(id).starts_with(start)))
        })
    }

    /// The tokens that end with `end`, ascending.
    pub(super) fn ending_with(&self, end: &[u8]) -> Arc<[u32]> {
        let bytes = |id: &u32| self.get(*id).unwrap_or_default();
        self.list(Side::End, end, || {
            let from = self.by_end.partition_point(|id| bytes(id).iter().rev().lt(end.iter().rev()));
            sorted(self.by_end[from..].iter().copied().take_while(|id| bytes(id).ends_with(end)))
        })
    }

    fn list(&self, side: Side, bytes: &[u8], find: impl FnOnce() -> Vec<u32>) -> Arc<[u32]> {
        let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = lists.get(&(side, bytes.into())).and_then(Weak::upgrade) {
            return list;
        }
        if lists.len() >= MANY_LISTS {
            lists.retain(|_, list| list.strong_count() > 0);
        }
        let list: Arc<[u32]> = find().into();
        lists.insert((side, bytes.into()), Arc::downgrade(&list));
        list
    }
}

fn sorted(tokens: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut tokens: Vec<u32> = tokens.collect();
    tokens.sort_unstable();
    tokens
}

fn kind(decoder: &Value) -> Option<Kind> {
    let text = |key: &str| decoder[key].as_str().map(str::to_string);
    match decoder["type"].as_str()? {
        "ByteLevel" => Some(Kind::ByteLevel),
        "Metaspace" => Some(Kind::Metaspace(text("replacement")?)),
        "WordPiece" => Some(Kind::WordPiece(text("prefix")?)),
        "Replace" if decoder["content"] == " " => Some(Kind::Metaspace(decoder["pattern"]["String"].as_str()?.into())),
        "Sequence" => decoder["decoders"].as_array()?.iter().find_map(kind),
        _ => None,
    }
}

impl Kind {
    fn bytes(&self, token: &str, byte_of: &HashMap<char, u8>) -> Option<Vec<u8>> {
        match self {
            Self::ByteLevel => token.chars().map(|letter| byte_of.get(&letter).copied()).collect(),
            Self::Metaspace(space) => {
                Some(byte_token(token).map_or_else(|| token.replace(space, " ").into_bytes(), |byte| vec![byte]))
            }
            Self::WordPiece(prefix) => Some(match token.strip_prefix(prefix.as_str()) {
                Some(rest) if !prefix.is_empty() => rest.as_bytes().to_vec(),
                _ => format!(" {token}").into_bytes(),
            }),
        }
    }
}

// The byte of a token such as `<0x0A>`.
pub(super) fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

// The token that stands for text outside of the vocabulary.
fn unknown_token(tokenizer: &Tokenizer) -> Option<String> {
    match tokenizer.get_model() {
        tokenizers::ModelWrapper::BPE(model) => model.get_unk_token().clone(),
        tokenizers::ModelWrapper::WordPiece(model) => Some(model.unk_token.clone()),
        tokenizers::ModelWrapper::WordLevel(model) => Some(model.unk_token.clone()),
        tokenizers::ModelWrapper::Unigram(model) => {
            let json = serde_json::to_value(model).ok()?;
            let id = usize::try_from(json["unk_id"].as_u64()?).ok()?;
            json["vocab"][id][0].as_str().map(str::to_string)
        }
    }
}

// The letters of byte-level BPE: printable bytes are themselves, the others follow from U+0100 on.
fn byte_level_alphabet() -> HashMap<char, u8> {
    let is_printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let printable = (0..=255_u8).filter(is_printable).map(|byte| (char::from(byte), byte));
    let others = (0..=255_u8).filter(|byte| !is_printable(byte)).zip('\u{100}'..).map(|(byte, letter)| (letter, byte));
    printable.chain(others).collect()
}
