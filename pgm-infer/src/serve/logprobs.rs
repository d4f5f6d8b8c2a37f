//! OpenAI's log-probabilities of a completion.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::TaskOutput;
use crate::{InferError, TextModel};

/// Tokens before a position that are decoded to find the text of its token. A character has at most 4 tokens, and a space at
/// the start of a text needs one token before it.
const WINDOW: usize = 32;

/// The tokens of a completion, up to the end of its text.
#[derive(Serialize, ToSchema)]
pub struct Logprobs {
    tokens: Vec<String>,
    /// Log-probability of each token when it was drawn.
    token_logprobs: Vec<f64>,
    /// The most probable tokens at each position, and the drawn one.
    #[schema(required = true)]
    top_logprobs: Option<Vec<BTreeMap<String, f64>>>,
    /// Where each token begins in the text, in characters.
    text_offset: Vec<usize>,
}

/// The log-probabilities of a sample's first blank; none for a sample without a blank. Tokens that hold only given characters
/// are left out. A token that begins with given characters stands at the first that is not given.
pub fn logprobs(model: &TextModel, output: &TaskOutput) -> Option<Logprobs> {
    let (blank, sampled) = (output.blanks.first()?, &output.sampled);
    let drawn: HashMap<usize, usize> = sampled.order.iter().enumerate().map(|(place, &at)| (at, place)).collect();
    let decoded = blank.positions.clone().take_while(|position| drawn.contains_key(position)).count();
    let (start, end) = (blank.positions.start, blank.positions.start + decoded);
    let offsets = text_offsets(|tokens| model.decode(tokens), &sampled.tokens[..end], start);
    let name = |token: u32| model.decode_with_special(&[token]).unwrap_or_default();
    let n_chars = blank.text.chars().count();
    let (mut tokens, mut token_logprobs, mut top, mut text_offset) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    // Without text of its own the last token holds given characters only.
    let last = if n_chars == 0 { blank.n_given_chars } else { usize::MAX };
    let next_offsets = offsets.iter().skip(1).copied().chain([last]);
    for ((position, &offset), next) in (start..end).zip(&offsets).zip(next_offsets) {
        if offset < blank.n_given_chars && next <= blank.n_given_chars {
            continue;
        }
        let offset = offset.saturating_sub(blank.n_given_chars);
        // Tokens behind the end of the text were drawn, and cut off by a stop string or an EOS.
        if !tokens.is_empty() && offset >= n_chars {
            break;
        }
        let (place, token) = (drawn[&position], name(sampled.tokens[position]));
        let logprob = sampled.log_probabilities[place];
        if let Some(best) = sampled.alternatives.get(place) {
            let mut best: BTreeMap<String, f64> = best.iter().map(|&(token, value)| (name(token), value)).collect();
            best.insert(token.clone(), logprob);
            top.push(best);
        }
        tokens.push(token);
        token_logprobs.push(logprob);
        text_offset.push(offset);
    }
    Some(Logprobs { tokens, token_logprobs, top_logprobs: (!top.is_empty()).then_some(top), text_offset })
}

/// For each position from `start` on, the number of characters that the tokens from `start` up to it read as.
///
/// A tokenizer's text of a token depends on the tokens before it. Decoding all of them for each position would take
/// quadratic time, so a window of them is decoded, with and without the token.
fn text_offsets(decode: impl Fn(&[u32]) -> Result<String, InferError>, tokens: &[u32], start: usize) -> Vec<usize> {
    let read = |range: std::ops::Range<usize>| decode(&tokens[range]).unwrap_or_default();
    let unfinished = |text: &str| text.chars().rev().take_while(|&c| c == char::REPLACEMENT_CHARACTER).count();
    // A character that the given tokens have begun is counted where it ends.
    let mut offset = unfinished(&read(start.saturating_sub(WINDOW)..start));
    let mut offsets = Vec::new();
    for position in start..tokens.len() {
        offsets.push(offset);
        let from = position.saturating_sub(WINDOW);
        let (before, with) = (read(from..position), read(from..position + 1));
        offset = match with.strip_prefix(before.trim_end_matches(char::REPLACEMENT_CHARACTER)) {
            Some(rest) => offset.saturating_sub(unfinished(&before)) + rest.chars().count(),
            // The token changes the text before it, so all of it is read.
            None => {
                let (given, whole) = (read(0..start), read(0..position + 1));
                let rest = whole.strip_prefix(given.trim_end_matches(char::REPLACEMENT_CHARACTER));
                rest.map_or_else(|| read(start..position + 1).chars().count(), |rest| rest.chars().count())
            }
        };
    }
    offsets
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    // Each token is a byte.
    fn bytes(tokens: &[u32]) -> Result<String, InferError> {
        let bytes: Vec<u8> = tokens.iter().map(|&token| token as u8).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    // Each token is a word, the first without a space before it.
    fn words(tokens: &[u32]) -> Result<String, InferError> {
        Ok(tokens.iter().map(|token| format!("w{token}")).collect::<Vec<_>>().join(" "))
    }

    // Decodes all tokens for each position.
    fn by_prefixes(decode: fn(&[u32]) -> Result<String, InferError>, tokens: &[u32], start: usize) -> Vec<usize> {
        let given = decode(&tokens[..start]).unwrap();
        let given = given.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let offset = |end: usize| decode(&tokens[..end]).unwrap().strip_prefix(given).unwrap().chars().count();
        (start..tokens.len()).map(offset).collect()
    }

    #[test]
    fn offsets_are_those_of_whole_prefixes() {
        let text = "né 日本語 🦀 e\u{301} — x".repeat(9);
        let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
        for start in 0..tokens.len() {
            assert_eq!(text_offsets(bytes, &tokens, start), by_prefixes(bytes, &tokens, start), "from {start}");
        }
        let tokens: Vec<u32> = (0..97).map(|index| index * index % 131).collect();
        for start in 1..tokens.len() {
            assert_eq!(text_offsets(words, &tokens, start), by_prefixes(words, &tokens, start), "from {start}");
        }
    }

    #[test]
    fn the_work_grows_with_the_number_of_tokens() {
        let tokens = vec![u32::from(b'a'); 1500];
        let n_decoded = Cell::new(0);
        let decode = |tokens: &[u32]| {
            n_decoded.set(n_decoded.get() + tokens.len());
            bytes(tokens)
        };
        assert_eq!(text_offsets(decode, &tokens, 1), (0..1499).collect::<Vec<_>>());
        assert!(n_decoded.get() <= 1500 * 2 * (WINDOW + 1), "{} tokens were decoded", n_decoded.get());
    }

    proptest::proptest! {
        #[test]
        fn offsets_of_broken_text_are_those_of_whole_prefixes(
            tokens in proptest::collection::vec(proptest::sample::select(vec![0x61, 0x80, 0xa9, 0xc3, 0xe6, 0xf0, 0x9f]), 1..80),
            start in 0_usize..80,
        ) {
            let start = start % tokens.len();
            // One broken byte may be read with more than the window before it only in a run that is all broken.
            let broken = |byte: &u32| *byte != 0x61;
            proptest::prop_assume!(tokens.chunk_by(|a, b| broken(a) == broken(b)).all(|run| run.len() < WINDOW || !broken(&run[0])));
            proptest::prop_assert_eq!(text_offsets(bytes, &tokens, start), by_prefixes(bytes, &tokens, start));
        }
    }
}
