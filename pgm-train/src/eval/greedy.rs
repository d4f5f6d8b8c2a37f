//! The last word of a text. All its tokens are predicted at once, from the tokens before it and the EOS after it.
//!
//! Shapes: K tokens of the word, L length, H hidden, V vocabulary.

use std::ops::Range;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_infer::denoise::{CleanRow, hidden_at};
use pgm_model::Network;
use pgm_model::loss::token_cross_entropy;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::model::EvalModel;
use super::result_log::ResultLog;
use crate::TrainError;
use crate::json_lines::read_json_lines;
use crate::judge::metrics::Estimate;
use crate::judge::{Observe, report_progress};
use crate::token_nll::{POSITIONS_AT_ONCE, read};

/// A text whose last word is to be predicted, as a line of a task file: `{"text": "..."}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LastWord {
    /// The text, last word included.
    pub text: String,
}

/// Reads a task file.
///
/// # Errors
/// Names the file that cannot be read or is empty, or the line without a text of at least two words.
pub fn read_last_words(path: &Path) -> Result<Vec<LastWord>, TrainError> {
    let check = |(line, item): (usize, LastWord)| match item.split() {
        Some(_) => Ok(item),
        None => {
            let problem = "has no word after a space".to_string();
            Err(TrainError::Samples { path: path.to_path_buf(), line, problem })
        }
    };
    let lines = read_json_lines(path, |cause| format!("is not an object with text ({cause})"))?;
    lines.into_iter().map(check).collect()
}

impl LastWord {
    // The text before the last word, and the last word with the space before it.
    fn split(&self) -> Option<(&str, &str)> {
        let text = self.text.trim_end();
        let place = text.rfind(char::is_whitespace)?;
        let (before, word) = text.split_at(place);
        (!before.trim().is_empty() && word.chars().count() > 1).then_some((before, word))
    }
}

/// Settings of [`greedy()`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GreedySettings {
    /// Seed of the bootstrap. Nothing else is random.
    pub seed: u64,
}

/// The result for one text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WordResult {
    /// Number of the word's tokens; 0 when nothing was predicted: the text is too long for the model, or the tokenizer makes
    /// no token of the word.
    pub tokens: usize,
    /// Whether every token of the word was the most probable one.
    pub right: bool,
    /// NLL of the word in nats.
    pub nats: f64,
}

/// The result of [`greedy()`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GreedyReport {
    /// Share of words with every token right.
    pub accuracy: Option<Estimate>,
    /// Perplexity per token of the words. A token is predicted without the word's other tokens; an autoregressive model
    /// also sees the word's earlier tokens.
    pub perplexity: Option<Estimate>,
    /// Number of texts whose word was predicted.
    pub answered: usize,
    /// Texts skipped because they are too long for the model, or because the tokenizer makes no token of their last word.
    pub too_long: usize,
    /// The settings.
    pub settings: GreedySettings,
}

/// Identifies the evaluation in a [`ResultLog`]: model, settings and texts.
pub fn identity(model: &EvalModel, items: &[LastWord], settings: &GreedySettings) -> Value {
    let mut hash = crc32fast::Hasher::new();
    items.iter().for_each(|item| hash.update(format!("{item:?}").as_bytes()));
    json!({
        "eval": "greedy", "subject": model.identity(), "settings": settings,
        "texts": items.len(), "texts_crc32": format!("{:08x}", hash.finalize()),
    })
}

/// Predicts the last word of each text.
///
/// # Errors
/// When the tokenizer or the device fails. [`TrainError::Stopped`] when `observe` breaks; the results so far are then in
/// the log.
pub fn greedy(
    model: &EvalModel,
    items: &[LastWord],
    settings: &GreedySettings,
    mut log: ResultLog<WordResult>,
    observe: &mut Observe,
) -> Result<GreedyReport, TrainError> {
    for index in log.done().len()..items.len() {
        report_progress(observe, index, items.len())?;
        log.push(last_word(model, &items[index])?)?;
    }
    report_progress(observe, items.len(), items.len())?;
    let words = log.into_done();
    let answered: Vec<(f64, f64, f64)> = words
        .iter()
        .filter(|word| word.tokens > 0)
        .map(|word| (if word.right { 1.0 } else { 0.0 }, word.nats, word.tokens as f64))
        .collect();
    let mean = |words: &[(f64, f64, f64)]| words.iter().map(|word| word.0).sum::<f64>() / words.len() as f64;
    let perplexity = |words: &[(f64, f64, f64)]| {
        (words.iter().map(|word| word.1).sum::<f64>() / words.iter().map(|word| word.2).sum::<f64>()).exp()
    };
    Ok(GreedyReport {
        accuracy: Estimate::of(&answered, mean, settings.seed),
        perplexity: Estimate::of(&answered, perplexity, settings.seed),
        answered: answered.len(),
        too_long: words.len() - answered.len(),
        settings: settings.clone(),
    })
}

fn last_word(model: &EvalModel, item: &LastWord) -> Result<WordResult, TrainError> {
    let invalid = || TrainError::judge("eval greedy", format!("the text {:?} has no last word", item.text));
    let (before, word) = item.split().ok_or_else(invalid)?;
    let text_model = model.text_model();
    let backbone = text_model.config().backbone();
    let mut row = vec![backbone.bos_index as u32];
    row.extend(text_model.encode(before)?);
    let start = row.len();
    row.extend(text_model.encode(word)?);
    let end = row.len();
    row.push(backbone.eos_index as u32);
    if row.len() > model.length() || start == end {
        return Ok(WordResult { tokens: 0, right: false, nats: 0.0 });
    }
    let (mut nats, mut right) = (0.0, true);
    let hidden = word_hidden(model, &row, start..end);
    for (index, tokens) in row[start..end].chunks(POSITIONS_AT_ONCE).enumerate() {
        let hidden = hidden.clone().narrow(1, index * POSITIONS_AT_ONCE, tokens.len());
        let logits = model.network().logits(hidden); // [1, K, V]
        let nll = token_cross_entropy(logits.clone(), ids(tokens, model.device()), model.mask_index());
        nats += read(nll)?.iter().map(|&nll| f64::from(nll)).sum::<f64>();
        let n_classes = logits.dims()[2];
        let logits = read(logits)?;
        let best = logits.chunks(n_classes).map(|logits| most_probable(logits, model.mask_index()));
        right &= best.eq(tokens.iter().map(|&token| token as usize));
    }
    Ok(WordResult { tokens: end - start, right, nats })
}

// Hidden states that predict the tokens at `word` of a row. [1, K, H]
fn word_hidden(model: &EvalModel, row: &[u32], word: Range<usize>) -> Tensor<3> {
    match model.network() {
        Network::Autoregressive(network) => {
            let hidden = network.hidden(ids(&row[..word.end - 1], model.device()));
            hidden.narrow(1, word.start - 1, word.len())
        }
        network => {
            let positions: Vec<usize> = (0..word.start).chain(word.end..row.len()).collect();
            let tokens = positions.iter().map(|&position| row[position]).collect();
            let clean = CleanRow::new(row.len(), positions, tokens);
            let word: Vec<usize> = word.collect();
            hidden_at(network, model.mask_index(), &[&clean], &[&word], model.device())
        }
    }
}

// [1, L]
fn ids(tokens: &[u32], device: &Device) -> Tensor<2, Int> {
    let values: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    Tensor::from_data(TensorData::new(values, [1, tokens.len()]), device)
}

// The class with the largest logit, the mask excluded. The first of equal classes, as in top-k with k = 1.
fn most_probable(logits: &[f32], mask_index: usize) -> usize {
    let classes = logits.iter().enumerate().filter(|(class, _)| *class != mask_index);
    classes.max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0))).map_or(mask_index, |(class, _)| class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equally_probable_classes_is_taken_and_never_the_mask() {
        assert_eq!(most_probable(&[1.0, 3.0, 2.0, 3.0, 9.0], 4), 1);
        assert_eq!(most_probable(&[9.0, 2.0, 2.0, 1.0], 0), 1);
    }
}
