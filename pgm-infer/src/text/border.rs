//! Given text beside a blank, tokenised as running text is (token healing).
//!
//! A tokenizer that sees `that ` alone makes a token of the space, which running text never has before a word: there the
//! space begins the next token. And it makes three tokens of `Jeru`, where running text has `Jerusalem` in one. So the tokens
//! at a border are not given. They are drawn among those that agree with the given characters, see [`Border`].
//!
//! | given text | what is not given |
//! |---|---|
//! | ends in white space | the white space, if running text has it in one token with the next word; it is a part of the blank's first token |
//! | ends otherwise | its last tokens, if longer tokens begin with their text |
//! | begins without white space | its first tokens, if other tokens end with their text |
//!
//! Where no token agrees, the text keeps its plain tokens. The blank's token next to a word is drawn early, too: it decides
//! whether the word goes on.

use std::sync::Arc;

use super::token_bytes::TokenBytes;
use crate::InferError;
use crate::sample::{Border, BorderPart};

// Letters that words begin with.
const PROBES: [&str; 3] = ["a", "t", "s"];
// The most given tokens that a border replaces.
const MAX_PARTS: usize = 4;

/// The tokens at a border of a blank: drawn among those that agree with the given characters.
#[derive(Clone, Debug)]
pub(super) struct TextBorder {
    // From the token that may hold all of the characters: before a blank the first, behind it the last.
    parts: Vec<TextPart>,
    /// The characters that they begin or end with.
    pub required: String,
    /// Whether its tokens take the positions of given tokens; otherwise it is the first token of the blank.
    pub replaces_given: bool,
}

#[derive(Clone, Debug)]
struct TextPart {
    // The tokens that complete the characters here, ascending.
    allowed: Arc<[u32]>,
    // The token of the plain text.
    plain: u32,
}

impl TextBorder {
    /// Number of its tokens.
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// The border with its parts at these positions; `next` stands beside them.
    pub(super) fn at(&self, positions: impl Iterator<Item = usize>, next: Option<usize>) -> Border {
        let last = self.parts.len() - 1;
        let part = |((index, part), position): ((usize, &TextPart), usize)| BorderPart {
            position,
            allowed: Arc::clone(&part.allowed),
            plain: (index < last).then_some(part.plain),
        };
        Border { parts: self.parts.iter().enumerate().zip(positions).map(part).collect(), next }
    }
}

/// A given text between blanks.
#[derive(Clone, Debug, Default)]
pub(super) struct GivenText {
    /// The border with the blank before it.
    pub head: Option<TextBorder>,
    /// The tokens that are given.
    pub tokens: Vec<u32>,
    /// The border with the blank behind it.
    pub tail: Option<TextBorder>,
    /// Whether a blank follows a word, so that its first token may continue it.
    pub ends_in_word: bool,
}

/// Tokenises text: token ids, and where the text of each ends, in bytes.
pub(super) type Encode<'a> = &'a dyn Fn(&str) -> Result<(Vec<u32>, Vec<usize>), InferError>;

impl GivenText {
    /// The tokens of `text`, which stands behind a blank, before one, or both.
    pub(super) fn new(
        text: &str,
        (is_behind, is_before): (bool, bool),
        table: &TokenBytes,
        encode: Encode<'_>,
    ) -> Result<Self, InferError> {
        let mut given = Self::default();
        // The text without the characters of the border at its head.
        let mut rest = text;
        let plain = encode(text)?;
        let (mut tokens, mut ends) = plain.clone();
        if is_behind && text.starts_with(|letter: char| !letter.is_whitespace()) {
            // Text of few tokens between two blanks has its border with the second.
            let most = text.len() - usize::from(is_before);
            if let Some((head, n_bytes, following)) = head(text, most, &plain, table, encode)? {
                given.head = Some(head);
                rest = &text[n_bytes..];
                (tokens, ends) = following;
            }
        }
        if is_before && !rest.is_empty() {
            if rest.ends_with(char::is_whitespace) {
                // What running text has instead: a letter follows, one that a token joins to white space if there is one.
                let mut probes = Vec::new();
                for letter in PROBES {
                    let (tokens, ends) = encode(&format!("{text}{letter}"))?;
                    let is_border = ends.contains(&text.len());
                    probes.push((letter, tokens, ends));
                    if !is_border {
                        break;
                    }
                }
                let Some((letter, probe, probe_ends)) = probes.pop() else { return Ok(given) };
                let found = probe_ends.iter().position(|&end| end > text.len());
                let start = |index: usize| index.checked_sub(1).map_or(0, |last| probe_ends[last]);
                if let Some(last) = found.filter(|&last| last + 1 == probe.len()) {
                    let n_head = text.len() - rest.len();
                    let first = probe_ends.iter().position(|&end| end > n_head).unwrap_or(last);
                    let bytes = table.get(probe[last]).and_then(|bytes| bytes.strip_suffix(letter.as_bytes()));
                    let allowed = bytes.map(|bytes| table.starting_with(bytes));
                    let part = allowed.map(|allowed| TextPart { allowed, plain: probe[last] });
                    let border = bytes.zip(part).and_then(|(bytes, part)| border(bytes, vec![part]));
                    // With a border at either end both must agree on the tokens between them.
                    let is_aligned = given.head.is_none() || start(first) == n_head;
                    if is_aligned && start(last) == text.len() {
                        // The border is a border between tokens, too.
                        tokens = probe[first..last].to_vec();
                    } else if is_aligned && border.is_some() {
                        given.tail = border.map(|border| TextBorder { replaces_given: false, ..border });
                        tokens = probe[first..last].to_vec();
                    }
                }
            } else {
                given.ends_in_word = true;
                given.tail = tail(rest, &tokens, &ends, table);
                tokens.truncate(tokens.len() - given.tail.as_ref().map_or(0, TextBorder::len));
            }
        }
        given.tokens = tokens;
        Ok(given)
    }
}

// Tokens and the ends of their text.
type Encoded = (Vec<u32>, Vec<usize>);

// The border behind a text that ends within a word.
fn tail(text: &str, tokens: &[u32], ends: &[usize], table: &TokenBytes) -> Option<TextBorder> {
    for n_parts in (2..=MAX_PARTS.min(tokens.len())).rev() {
        let first = tokens.len() - n_parts;
        let Some(bytes) = joined(&tokens[first..], table) else { continue };
        let parts = (first..tokens.len()).map(|index| {
            let allowed = joined(&tokens[index..], table).map(|bytes| table.starting_with(&bytes)).unwrap_or_default();
            TextPart { allowed, plain: tokens[index] }
        });
        let is_text = text.as_bytes().ends_with(&bytes) || bytes.strip_prefix(b" ") == Some(text.as_bytes());
        if let Some(border) = border(&bytes, parts.collect()).filter(|_| is_text) {
            return Some(border);
        }
    }
    let (&last, &end) = tokens.last().zip(ends.last())?;
    let start = ends.len().checked_sub(2).map_or(0, |index| ends[index]);
    let bytes = table.get(last).filter(|_| start < end)?;
    border(bytes, vec![TextPart { allowed: table.starting_with(bytes), plain: last }])
        .filter(|border| *border.parts[0].allowed != [last])
}

// The border before a text, at most `most` bytes of it, how many bytes it holds, and the tokens behind it.
fn head(
    text: &str,
    most: usize,
    plain: &Encoded,
    table: &TokenBytes,
    encode: Encode<'_>,
) -> Result<Option<(TextBorder, usize, Encoded)>, InferError> {
    // In running text the first word often has a space in its token.
    let (probe, ends) = encode(&format!(" {text}"))?;
    let ends: Vec<usize> = ends.into_iter().map(|end| end.saturating_sub(1)).collect();
    let first = ends.iter().position(|&end| end > 0);
    let with_space = first.filter(|&first| table.get(probe[first]).is_some_and(|bytes| bytes.starts_with(b" ")));
    let with_space = with_space.map(|first| (probe[first..].to_vec(), ends[first..].to_vec()));
    for (tokens, ends) in with_space.iter().chain([plain]) {
        for n_parts in (2..=MAX_PARTS.min(tokens.len())).rev() {
            let Some((bytes, parts)) = head_parts(&tokens[..n_parts], table) else { continue };
            if bytes.len() <= most
                && text.as_bytes().starts_with(&bytes)
                && let Some(border) = border(&bytes, parts)
            {
                let following = (tokens[n_parts..].to_vec(), ends[n_parts..].to_vec());
                return Ok(Some((border, bytes.len(), following)));
            }
        }
        let is_whole = |end: usize| end > 0 && end <= most && ends.get(1).is_none_or(|&next| next > end);
        let Some(&end) = ends.first().filter(|end| is_whole(**end)) else { continue };
        let Some((bytes, parts)) = head_parts(&tokens[..1], table) else { continue };
        // A token with a space is not that of the text, so even a single one is worth drawing.
        let is_other = |border: &TextBorder| {
            with_space.as_ref().is_some_and(|(with_space, _)| with_space == tokens)
                || *border.parts[0].allowed != tokens[..1]
        };
        if let Some(border) = border(&bytes, parts).filter(is_other) {
            return Ok(Some((border, end, (tokens[1..].to_vec(), ends[1..].to_vec()))));
        }
    }
    Ok(None)
}

// The bytes of the first tokens of a text, and the parts of their border from the last to the first.
fn head_parts(tokens: &[u32], table: &TokenBytes) -> Option<(Vec<u8>, Vec<TextPart>)> {
    let up_to = |end: usize| -> Option<Vec<u8>> {
        let mut bytes = joined(&tokens[..end], table)?;
        // Some tokenizers put a space before every text.
        if bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
        Some(bytes)
    };
    let part = |index: usize| {
        let allowed = up_to(index + 1).filter(|bytes| !bytes.is_empty()).map(|bytes| table.ending_with(&bytes));
        TextPart { allowed: allowed.unwrap_or_default(), plain: tokens[index] }
    };
    Some((up_to(tokens.len())?, (0..tokens.len()).rev().map(part).collect()))
}

// The bytes of some tokens; none if one of them is a special token.
fn joined(tokens: &[u32], table: &TokenBytes) -> Option<Vec<u8>> {
    Some(tokens.iter().map(|&token| table.get(token)).collect::<Option<Vec<_>>>()?.concat())
}

// A border of these parts; none if no token holds all the characters, or if they are not whole characters.
fn border(bytes: &[u8], parts: Vec<TextPart>) -> Option<TextBorder> {
    let required = std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())?.to_string();
    let is_possible = parts.first().is_some_and(|part| !part.allowed.is_empty())
        && parts.last().is_some_and(|part| !part.allowed.is_empty());
    is_possible.then_some(TextBorder { parts, required, replaces_given: true })
}
