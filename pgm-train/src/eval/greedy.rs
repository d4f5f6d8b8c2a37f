//! The last word of a text, all its tokens predicted at once from everything before it (and the EOS behind it).

use std::path::Path;

use burn::tensor::{Int, Tensor, TensorData};
use pgm_infer::denoise::{CleanRow, logits_at};
use pgm_model::Network;
use pgm_model::loss::token_cross_entropy;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bound::read;
use super::{EvalModel, ResultLog, read_lines, tell};
use crate::TrainError;
use crate::judge::Observe;
use crate::judge::metrics::Estimate;

/// A text whose last word is asked for, as a line of a task file: `{"text": "..."}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LastWord {
    /// All of it.
    pub text: String,
}

/// Reads a task file.
///
/// # Errors
/// Names the file or the line: one without a text of at least two words.
pub fn read_last_words(path: &Path) -> Result<Vec<LastWord>, TrainError> {
    let items: Vec<LastWord> = read_lines(path, "an object with text")?;
    if let Some(index) = items.iter().position(|item| item.split().is_none()) {
        let problem = "has no word after a space".to_string();
        return Err(TrainError::Samples { path: path.to_path_buf(), line: index + 1, problem });
    }
    Ok(items)
}

impl LastWord {
    // What comes before the last word, and the word with the space before it.
    fn split(&self) -> Option<(&str, &str)> {
        let text = self.text.trim_end();
        let place = text.rfind(char::is_whitespace)?;
        let (before, word) = text.split_at(place);
        (!before.trim().is_empty() && word.chars().count() > 1).then_some((before, word))
    }
}

/// How words are asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GreedySettings {
    /// Seed of the bootstrap; nothing else is drawn.
    pub seed: u64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// Tokens of the word; 0 when the text is longer than the model's rows.
    pub tokens: usize,
    /// Whether each of them was the most probable one.
    pub right: bool,
    /// Their nats.
    pub nats: f64,
}

/// What [`greedy()`] finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GreedyReport {
    /// Share of words that were right in every token.
    pub accuracy: Option<Estimate>,
    /// Perplexity of the words' tokens, each given only what comes before the word (for an autoregressive model: and the
    /// word's tokens before it).
    pub perplexity: Option<Estimate>,
    /// Texts answered.
    pub answered: usize,
    /// Texts left out because they are longer than the model's rows.
    pub too_long: usize,
    /// How it was measured.
    pub settings: GreedySettings,
}

/// What a progress file of this evaluation begins with.
pub fn identity(subject: &EvalModel, items: &[LastWord], settings: &GreedySettings) -> Value {
    let mut hash = crc32fast::Hasher::new();
    items.iter().for_each(|item| hash.update(item.text.as_bytes()));
    json!({
        "eval": "greedy", "subject": subject.identity(), "settings": settings,
        "texts": items.len(), "texts_crc32": format!("{:08x}", hash.finalize()),
    })
}

/// Asks for the last word of each text.
///
/// # Errors
/// When the device fails; [`TrainError::Stopped`] when `observe` breaks, what was found is then in the ledger.
pub fn greedy(
    subject: &EvalModel,
    items: &[LastWord],
    settings: &GreedySettings,
    mut ledger: ResultLog<Word>,
    observe: &mut Observe,
) -> Result<GreedyReport, TrainError> {
    for index in ledger.done().len()..items.len() {
        tell(observe, index, items.len())?;
        ledger.push(word(subject, &items[index])?)?;
    }
    tell(observe, items.len(), items.len())?;
    let words = ledger.into_done();
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

fn word(subject: &EvalModel, item: &LastWord) -> Result<Word, TrainError> {
    let wrong = || TrainError::judge("eval greedy", format!("the text {:?} has no last word", item.text));
    let (before, word) = item.split().ok_or_else(wrong)?;
    let backbone = subject.model().config().backbone();
    let mut row = vec![backbone.bos_index as u32];
    row.extend(subject.model().encode(before)?);
    let start = row.len();
    row.extend(subject.model().encode(word)?);
    let end = row.len();
    row.push(backbone.eos_index as u32);
    if row.len() > subject.length() {
        return Ok(Word { tokens: 0, right: false, nats: 0.0 });
    }
    let device = &subject.device;
    let ids = |tokens: &[u32]| {
        let values: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
        Tensor::<2, Int>::from_data(TensorData::new(values, [1, tokens.len()]), device)
    };
    let mask = subject.mask_index();
    let logits = match subject.network() {
        Network::Autoregressive(model) => model.forward(ids(&row[..end - 1])).narrow(1, start - 1, end - start),
        network => {
            let positions: Vec<usize> = (0..start).chain([end]).collect();
            let tokens = positions.iter().map(|&position| row[position]).collect();
            let state = CleanRow { length: row.len(), positions, tokens };
            let asked: Vec<usize> = (start..end).collect();
            logits_at(network, mask, &[&state], &[&asked], device)
        }
    };
    let n_classes = logits.dims()[2];
    let nats = read(token_cross_entropy(logits.clone(), ids(&row[start..end]), mask))?;
    let values = read(logits.reshape([end - start, n_classes]))?;
    let right = row[start..end].iter().zip(values.chunks(n_classes)).all(|(&token, logits)| {
        let rivals = logits.iter().enumerate().filter(|(class, _)| *class != mask);
        rivals.max_by(|a, b| a.1.total_cmp(b.1)).is_some_and(|(class, _)| class == token as usize)
    });
    Ok(Word { tokens: end - start, right, nats: nats.iter().map(|&value| f64::from(value)).sum() })
}
