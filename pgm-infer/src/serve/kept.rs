//! The tokens that the text of a blank is made of: which of the drawn ones they are, and where each begins in the text.

use std::collections::HashSet;
use std::ops::Range;

use crate::engine::{Task, TaskInput, TaskOutput};
use crate::text::layout::BlankLayout;
use crate::{InferError, TextModel};

/// Tokens before a position that are decoded to find the text of its token. A character has at most 4 tokens, and a space at
/// the start of a text needs one token before it.
const WINDOW: usize = 32;

/// What is known of a task's blanks before they are filled.
#[derive(Clone, Debug, Default)]
pub struct TaskBlanks {
    blanks: Vec<BlankLayout>,
    n_replaced: usize,
    ends_at_eos: bool,
}

/// The tokens of a blank up to the end of its text.
#[derive(Debug, Default)]
pub struct KeptTokens {
    /// Their positions in the row.
    pub positions: Range<usize>,
    /// Where each begins in the text of the blank, in characters. A token within a character begins where that does, and one
    /// that begins with given characters at 0.
    pub offsets: Vec<usize>,
    // Tokens before them, which hold given characters only.
    n_before: usize,
    // Whether tokens of the blank come behind the end of its text.
    is_cut: bool,
}

impl TaskBlanks {
    /// The blanks of a task.
    pub fn of(task: &Task) -> Self {
        let TaskInput::Row(row) = &task.text else { return Self::default() };
        let (blanks, n_replaced) = (row.layout.blanks.clone(), row.n_replaced());
        Self { blanks, n_replaced, ends_at_eos: task.ends_at_eos }
    }

    /// Drawn tokens of a sample. Those that stand for a given token are left out.
    pub fn n_drawn(&self, output: &TaskOutput) -> usize {
        output.sampled.order.len().saturating_sub(self.n_replaced)
    }

    /// Tokens of all blanks up to the ends of their texts. Those that stand for a given token are left out.
    pub fn n_kept(&self, model: &TextModel, output: &TaskOutput) -> usize {
        let of_blank = |(index, blank): (usize, &BlankLayout)| {
            let (kept, [n_heads, n_tails]) = (self.kept(model, output, index), blank.n_replaced);
            let (n, n_replaced) = match kept.is_cut {
                true => (kept.n_before + kept.offsets.len(), n_heads),
                false => (blank.positions.len(), n_heads + n_tails),
            };
            n.saturating_sub(n_replaced)
        };
        self.blanks.iter().enumerate().map(of_blank).sum()
    }

    /// The tokens that the text of blank `index` is made of. Tokens that hold only given characters are left out.
    pub fn kept(&self, model: &TextModel, output: &TaskOutput, index: usize) -> KeptTokens {
        let (Some(blank), Some(layout)) = (output.blanks.get(index), self.blanks.get(index)) else {
            return KeptTokens::default();
        };
        let (tokens, positions) = (&output.sampled.tokens, blank.positions.clone());
        let drawn: HashSet<usize> = output.sampled.order.iter().copied().collect();
        let eos = self.ends_at_eos.then_some(model.config().backbone().eos_index as u32);
        let is_written = |position: &usize| drawn.contains(position) && Some(tokens[*position]) != eos;
        let start = positions.start;
        let end = start + positions.clone().take_while(is_written).count();
        let (offsets, _) = text_offsets(|tokens| model.decode(tokens), &tokens[..end], start);
        // The text ends at a stop string, or with the token before the first that is not written.
        let text = model.decode_after(&tokens[..end], start).unwrap_or_default();
        let (n_given, n_text) = (blank.n_given_chars, blank.text.chars().count());
        let is_cut = end < positions.end || n_text < layout.own_text(&text, true).chars().count();
        // Without text of its own the last token holds given characters only.
        let last = if n_text == 0 { n_given } else { usize::MAX };
        let nexts = offsets.iter().skip(1).copied().chain([last]);
        let is_given = |(offset, next): &(&usize, usize)| **offset < n_given && *next <= n_given;
        let n_before = offsets.iter().zip(nexts).take_while(is_given).count();
        let offsets = offsets[n_before..].iter().map(|offset| offset.saturating_sub(n_given));
        // Tokens behind the text hold the given characters behind the blank, or were cut off.
        let has_end = is_cut || !layout.ends_with.is_empty();
        let offsets: Vec<usize> = offsets.take_while(|&offset| !has_end || offset < n_text).collect();
        let first = start + n_before;
        KeptTokens { positions: first..first + offsets.len(), offsets, n_before, is_cut }
    }
}

/// For each position from `start` on, where its token begins in the text of the tokens from `start` on, in characters, and
/// the characters of that text.
pub fn text_offsets(
    decode: impl Fn(&[u32]) -> Result<String, InferError>,
    tokens: &[u32],
    start: usize,
) -> (Vec<usize>, usize) {
    let (read, n_chars) = prefix_lengths(decode, tokens, start);
    let mut offsets: Vec<usize> = read.into_iter().map(|(offset, changed)| offset.saturating_sub(changed)).collect();
    // The first bytes of a character show as characters of their own until it ends.
    for index in (1..offsets.len()).rev() {
        offsets[index - 1] = offsets[index - 1].min(offsets[index]);
    }
    (offsets, n_chars)
}

// For each position from `start` on, the number of characters that the tokens from `start` up to it read as, and how many of
// them its token changes; and that number for all tokens.
//
// A tokenizer's text of a token depends on the tokens before it. Decoding all of them for each position would take
// quadratic time, so a window of them is decoded, with and without the token.
fn prefix_lengths(
    decode: impl Fn(&[u32]) -> Result<String, InferError>,
    tokens: &[u32],
    start: usize,
) -> (Vec<(usize, usize)>, usize) {
    let read = |range: Range<usize>| decode(&tokens[range]).unwrap_or_default();
    let broken = |c: &char| *c == char::REPLACEMENT_CHARACTER;
    let unfinished = |text: &str| text.chars().rev().take_while(broken).count();
    // A character that the given tokens have begun is counted where it ends.
    let mut offset = unfinished(&read(start.saturating_sub(WINDOW)..start));
    let mut lengths = Vec::new();
    for position in start..tokens.len() {
        let from = position.saturating_sub(WINDOW);
        let (before, with) = (read(from..position), read(from..position + 1));
        let pending = unfinished(&before);
        match with.strip_prefix(before.trim_end_matches(char::REPLACEMENT_CHARACTER)) {
            Some(rest) => {
                // A token that adds nothing lengthens the last character.
                let is_same = pending > 0 && with == before;
                let n_same = rest.chars().take_while(broken).count().min(pending) - usize::from(is_same);
                lengths.push((offset, pending - n_same));
                offset = offset.saturating_sub(pending) + rest.chars().count();
            }
            // The token changes the text before it, so all of it is read.
            None => {
                lengths.push((offset, 0));
                let (given, whole) = (read(0..start), read(0..position + 1));
                let rest = whole.strip_prefix(given.trim_end_matches(char::REPLACEMENT_CHARACTER));
                offset = rest.map_or_else(|| read(start..position + 1).chars().count(), |rest| rest.chars().count());
            }
        }
    }
    (lengths, offset)
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
        (start..=tokens.len()).map(offset).collect()
    }

    fn lengths(decode: fn(&[u32]) -> Result<String, InferError>, tokens: &[u32], start: usize) -> Vec<usize> {
        let (lengths, n_chars) = prefix_lengths(decode, tokens, start);
        lengths.into_iter().map(|(offset, _)| offset).chain([n_chars]).collect()
    }

    #[test]
    fn lengths_are_those_of_whole_prefixes() {
        let text = "né 日本語 🦀 e\u{301} — x".repeat(9);
        let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
        for start in 0..tokens.len() {
            assert_eq!(lengths(bytes, &tokens, start), by_prefixes(bytes, &tokens, start), "from {start}");
        }
        let tokens: Vec<u32> = (0..97).map(|index| index * index % 131).collect();
        for start in 1..tokens.len() {
            assert_eq!(lengths(words, &tokens, start), by_prefixes(words, &tokens, start), "from {start}");
        }
    }

    #[test]
    fn each_byte_of_a_character_begins_where_the_character_does() {
        let text = "né 日本語 🦀 e\u{301} — x".repeat(4);
        let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
        let whole = text.char_indices().enumerate().flat_map(|(index, (_, c))| vec![index; c.len_utf8()]);
        let whole: Vec<usize> = whole.collect();
        for start in text.char_indices().map(|(at, _)| at) {
            let expected: Vec<usize> = whole[start..].iter().map(|index| index - whole[start]).collect();
            assert_eq!(text_offsets(bytes, &tokens, start).0, expected, "from {start}");
        }
        // Bytes that are no text, an unfinished character at the end, and a character that the given text begins.
        assert_eq!(text_offsets(bytes, &[0x61, 0x80, 0xc3, 0xa9, 0xe6, 0x97], 0), (vec![0, 1, 2, 2, 3, 3], 4));
        assert_eq!(text_offsets(bytes, &[0x61, 0xe6, 0x97, 0xa5, 0x62], 2), (vec![0, 0, 1], 2));
        assert_eq!(text_offsets(bytes, &[], 0), (vec![], 0));
    }

    #[test]
    fn the_work_grows_with_the_number_of_tokens() {
        let tokens = vec![u32::from(b'a'); 1500];
        let n_decoded = Cell::new(0);
        let decode = |tokens: &[u32]| {
            n_decoded.set(n_decoded.get() + tokens.len());
            bytes(tokens)
        };
        assert_eq!(text_offsets(decode, &tokens, 1).0, (0..1499).collect::<Vec<_>>());
        assert!(n_decoded.get() <= 1500 * 2 * (WINDOW + 1), "{} tokens were decoded", n_decoded.get());
    }

    proptest::proptest! {
        #[test]
        fn lengths_of_broken_text_are_those_of_whole_prefixes(
            tokens in proptest::collection::vec(proptest::sample::select(vec![0x61, 0x80, 0xa9, 0xc3, 0xe6, 0xf0, 0x9f]), 1..80),
            start in 0_usize..80,
        ) {
            let start = start % tokens.len();
            // One broken byte may be read with more than the window before it only in a run that is all broken.
            let broken = |byte: &u32| *byte != 0x61;
            proptest::prop_assume!(tokens.chunk_by(|a, b| broken(a) == broken(b)).all(|run| run.len() < WINDOW || !broken(&run[0])));
            proptest::prop_assert_eq!(lengths(bytes, &tokens, start), by_prefixes(bytes, &tokens, start));
            let (offsets, n_chars) = text_offsets(bytes, &tokens, start);
            proptest::prop_assert!(offsets.is_sorted() && offsets.iter().all(|&offset| offset < n_chars), "{:?}", offsets);
        }
    }
}
