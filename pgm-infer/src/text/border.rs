//! Given text beside a blank, tokenised as running text is.
//!
//! A tokenizer that sees `that ` alone makes a token of the space, which running text never has before a word: there the
//! space begins the next token. So the token at the border is not given. It is drawn among the tokens that agree with the
//! given characters: those that begin with what stands before the blank, or end with what stands behind it.
//!
//! | given text | what is not given |
//! |---|---|
//! | ends in white space | the white space, if running text has it in one token with the next word; it is a part of the blank's first token |
//! | ends otherwise | its last token, if longer tokens begin with it |
//! | begins without white space | its first token, if other tokens end with it |
//!
//! Where no token agrees, the text keeps its plain tokens.

use std::sync::Arc;

use super::token_bytes::TokenBytes;
use crate::InferError;

// Letters that words begin with.
const PROBES: [&str; 3] = ["a", "t", "s"];

/// The token at a border of a blank: drawn among those that agree with the given characters.
#[derive(Clone, Debug)]
pub(super) struct Border {
    /// The tokens that agree, ascending.
    pub allowed: Arc<[u32]>,
    /// The characters that they all begin or end with.
    pub required: String,
    /// Whether it takes the position of a given token; otherwise it is the first token of the blank.
    pub replaces_given: bool,
}

/// A given text between blanks.
#[derive(Clone, Debug, Default)]
pub(super) struct GivenText {
    /// The border with the blank before it.
    pub head: Option<Border>,
    /// The tokens that are given.
    pub tokens: Vec<u32>,
    /// The border with the blank behind it.
    pub tail: Option<Border>,
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
        // The text without the characters of the first token.
        let mut rest = text;
        let plain = encode(text)?;
        let (mut tokens, mut ends) = plain.clone();
        if is_behind && text.starts_with(|letter: char| !letter.is_whitespace())
            && let Some((head, n_bytes, following)) = head(text, &plain, table, encode)?
            // Text of one token between two blanks has its border with the second.
            && (n_bytes < text.len() || !is_before)
        {
            given.head = Some(head);
            rest = &text[n_bytes..];
            (tokens, ends) = following;
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
                    let border = table.get(probe[last]).and_then(|bytes| bytes.strip_suffix(letter.as_bytes()));
                    let border = border.and_then(|bytes| prefix(bytes, false, table));
                    // With a border at either end both must agree on the tokens between them.
                    let is_aligned = given.head.is_none() || start(first) == n_head;
                    if is_aligned && start(last) == text.len() {
                        // The border is a border between tokens, too.
                        tokens = probe[first..last].to_vec();
                    } else if is_aligned && border.is_some() {
                        given.tail = border;
                        tokens = probe[first..last].to_vec();
                    }
                }
            } else if let Some(&last) = tokens.last() {
                let start = ends.len().checked_sub(2).map_or(0, |index| ends[index]);
                let is_whole = start < ends[ends.len() - 1];
                let border = table.get(last).filter(|_| is_whole).and_then(|bytes| prefix(bytes, true, table));
                if let Some(border) = border.filter(|border| *border.allowed != [last]) {
                    given.tail = Some(border);
                    tokens.pop();
                }
            }
        }
        given.tokens = tokens;
        Ok(given)
    }
}

// Tokens and the ends of their text.
type Encoded = (Vec<u32>, Vec<usize>);

// The border before a text, the bytes of the text that it holds, and the tokens behind it.
fn head(
    text: &str,
    plain: &Encoded,
    table: &TokenBytes,
    encode: Encode<'_>,
) -> Result<Option<(Border, usize, Encoded)>, InferError> {
    let (probe, ends) = encode(&format!(" {text}"))?;
    let ends: Vec<usize> = ends.into_iter().map(|end| end.saturating_sub(1)).collect();
    let after =
        |tokens: &[u32], ends: &[usize], first: usize| (tokens[first + 1..].to_vec(), ends[first + 1..].to_vec());
    // In running text the first word often has a space in its token.
    if let Some(first) = ends.iter().position(|&end| end > 0)
        && let Some([b' ', required @ ..]) = table.get(probe[first])
        && let Some(border) = suffix(required, table)
    {
        return Ok(Some((border, ends[first], after(&probe, &ends, first))));
    }
    let (tokens, ends) = plain;
    let Some((&first, &end)) = tokens.first().zip(ends.first()) else { return Ok(None) };
    // Some tokenizers put a space before every text.
    let required = table.get(first).map(|bytes| bytes.strip_prefix(b" ").unwrap_or(bytes));
    let is_whole = end > 0 && ends.get(1).is_none_or(|&next| next > end);
    let border = required.filter(|required| is_whole && !required.is_empty()).and_then(|bytes| suffix(bytes, table));
    let border = border.filter(|border| *border.allowed != [first]);
    Ok(border.map(|border| (border, end, after(tokens, ends, 0))))
}

// The token that begins with `bytes`; none if there is none or `bytes` are not whole characters.
fn prefix(bytes: &[u8], replaces_given: bool, table: &TokenBytes) -> Option<Border> {
    let required = std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())?.to_string();
    let allowed = table.starting_with(bytes);
    (!allowed.is_empty()).then(|| Border { allowed: allowed.into(), required, replaces_given })
}

// As `prefix` for a token that ends with `bytes`.
fn suffix(bytes: &[u8], table: &TokenBytes) -> Option<Border> {
    let required = std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())?.to_string();
    let allowed = table.ending_with(bytes);
    (!allowed.is_empty()).then(|| Border { allowed: allowed.into(), required, replaces_given: true })
}
