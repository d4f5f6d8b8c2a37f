//! Training a byte-level BPE.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder};

use super::bytes::SPECIAL;
use crate::error::DataError;
use crate::source::TextInputs;

/// The largest vocabulary that is trained. The largest published ones have a million entries.
const MAX_VOCAB_SIZE: usize = 1 << 20;
/// Longer words are cut here before they are counted: the time of training grows with the square of a word's length.
const MAX_WORD_BYTES: usize = 512;

/// Trains a `tokenizer.json`. `observe` receives the number of bytes read so far.
pub(super) fn train_json(
    inputs: &TextInputs,
    vocab_size: usize,
    observe: &(dyn Fn(u64) + Sync),
) -> Result<Vec<u8>, DataError> {
    let n_special = SPECIAL.len();
    let least = 256 + n_special;
    if vocab_size < least {
        return Err(DataError::Option(format!(
            "--vocab-size {vocab_size} is too small: all bytes and the special tokens need {least}"
        )));
    }
    if vocab_size > MAX_VOCAB_SIZE {
        return Err(DataError::Option(format!(
            "--vocab-size {vocab_size} is too large: the largest vocabulary that can be trained has {MAX_VOCAB_SIZE} tokens"
        )));
    }
    let failed =
        |error: tokenizers::Error| DataError::Tokenizer { origin: "training".to_string(), problem: error.to_string() };
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
    let has_text = AtomicBool::new(false);
    let read = std::thread::scope(|scope| {
        let has_text = &has_text;
        let reader = scope.spawn(move || {
            let mut n_bytes = 0;
            inputs.for_each_piece(&mut |piece| {
                if piece.tokens.is_some() {
                    let problem = "the inputs are token ids already; a tokenizer learns from text".to_string();
                    return Err(DataError::Option(problem));
                }
                n_bytes += piece.text.len() as u64;
                observe(n_bytes);
                has_text.fetch_or(!piece.text.trim().is_empty(), Ordering::Relaxed);
                // The receiver is gone only after the training failed; its error is the one to return.
                send_bounded(piece.text, &sender);
                Ok(())
            })
        });
        let trained = model.train(&mut trainer, receiver.into_iter()).map(drop).map_err(failed);
        let read = reader.join().unwrap_or(Err(DataError::Stopped));
        read.and(trained)
    });
    read?;
    if !has_text.load(Ordering::Relaxed) {
        return Err(DataError::Option("the inputs have no text for a tokenizer to learn from".to_string()));
    }
    model.add_special_tokens(SPECIAL.map(|name| AddedToken::from(name, true))).map_err(failed)?;
    Ok(model.to_string(true).map_err(failed)?.into_bytes())
}

fn send_bounded(text: String, sender: &mpsc::SyncSender<String>) {
    let cuts = word_cuts(&text);
    if cuts.is_empty() {
        let _ = sender.send(text);
        return;
    }
    let mut start = 0;
    for cut in cuts.into_iter().chain([text.len()]) {
        let _ = sender.send(text[start..cut].to_string());
        start = cut;
    }
}

// Where words are longer than the bound. A word is a run of letters, of digits, of white space or of anything else.
fn word_cuts(text: &str) -> Vec<usize> {
    let kind = |character: char| match character {
        _ if character.is_alphabetic() => 0,
        _ if character.is_numeric() => 1,
        _ if character.is_whitespace() => 2,
        _ => 3,
    };
    let (mut cuts, mut start, mut current) = (Vec::new(), 0, 0);
    for (index, character) in text.char_indices() {
        if kind(character) != current {
            (start, current) = (index, kind(character));
        } else if index - start >= MAX_WORD_BYTES {
            cuts.push(index);
            start = index;
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_words_are_cut() {
        let text = format!("a short text, {} 日本 {}", "x".repeat(MAX_WORD_BYTES), "é".repeat(MAX_WORD_BYTES));
        let cuts = word_cuts(&text);
        // The é have two bytes each.
        assert_eq!(cuts.len(), 1);
        assert!(text.is_char_boundary(cuts[0]) && text[cuts[0]..].chars().all(|character| character == 'é'));
        assert!(word_cuts(&"The river bends by the old mill. ".repeat(1000)).is_empty());
    }
}
