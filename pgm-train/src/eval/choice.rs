//! Multiple choice by likelihood: the answer is the choice that is most probable after the context.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bound::{MaskedDraw, SetDraw, causal_nll, weighted_nll};
use super::model::EvalModel;
use super::result_log::ResultLog;
use crate::TrainError;
use crate::config::NelboEstimator;
use crate::draws::{DrawnItem, HiddenTokens, NelboDraws};
use crate::json_lines::read_json_lines;
use crate::judge::metrics::Estimate;
use crate::judge::{Observe, report_progress};

/// A question, as a line of a task file: `{"context": "...", "choices": ["...", ...], "label": 0}`.
///
/// The label is the right choice: a number is its index, counted from 0; a string is its text, the first choice with this
/// text. A string that is the text of no choice but a number is an index, too.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Question {
    /// The text before each choice.
    #[serde(alias = "query", alias = "ctx", alias = "prompt", alias = "question")]
    pub context: String,
    /// The choices.
    #[serde(alias = "endings")]
    pub choices: Vec<String>,
    #[serde(alias = "gold", alias = "answer")]
    label: ChoiceLabel,
}

impl Question {
    /// A question whose right choice is `choices[label]`.
    pub fn new(context: String, choices: Vec<String>, label: usize) -> Self {
        Self { context, choices, label: ChoiceLabel::Index(label) }
    }

    // The index of the right choice; absent when the label is none of the choices.
    fn right_index(&self) -> Option<usize> {
        let index = match &self.label {
            ChoiceLabel::Index(index) => Some(*index),
            ChoiceLabel::Text(text) => {
                self.choices.iter().position(|choice| choice == text).or_else(|| text.trim().parse().ok())
            }
        };
        index.filter(|&index| index < self.choices.len())
    }
}

/// Reads a task file.
///
/// # Errors
/// Names the file that cannot be read or is empty, or the line that is not a question, has fewer than two choices, or has
/// a label that is none of them.
pub fn read_questions(path: &Path) -> Result<Vec<Question>, TrainError> {
    let describe = |cause: &str| format!("is not a question with context, choices and label ({cause})");
    let check = |(line, question): (usize, Question)| {
        if question.choices.len() < 2 || question.right_index().is_none() {
            let problem =
                "needs at least two choices, and as its label an index counted from 0 or the text of a choice";
            return Err(TrainError::Samples { path: path.to_path_buf(), line, problem: problem.to_string() });
        }
        Ok(question)
    };
    read_json_lines(path, describe)?.into_iter().map(check).collect()
}

/// A label of a task file: an index, or a string.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum ChoiceLabel {
    Index(usize),
    Text(String),
}

/// How the score of a choice is computed from the NELBO of its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// Minus the NELBO.
    #[default]
    Sum,
    /// Minus the NELBO per token, as in the public code.
    Mean,
}

/// Settings of [`choice()`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChoiceSettings {
    /// Draws of hidden tokens per choice. All choices of a question share them. Unused for an autoregressive model.
    pub draws: usize,
    /// How the NELBO is estimated. Unused for an autoregressive model.
    pub estimator: NelboEstimator,
    /// How a score is computed.
    pub reduction: Reduction,
    /// Text between context and choice.
    pub separator: String,
    /// Seed of the draws and of the bootstrap.
    pub seed: u64,
    /// Draws of a batch.
    #[serde(skip)]
    pub batch: usize,
}

impl Default for ChoiceSettings {
    /// The paper's 1024 draws, [`Reduction::Sum`].
    fn default() -> Self {
        Self {
            draws: 1024,
            estimator: NelboEstimator::AnyOrder,
            reduction: Reduction::Sum,
            separator: " ".to_string(),
            seed: 0,
            batch: 32,
        }
    }
}

/// The result for one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChoiceResult {
    /// The score of each choice, higher is better. Empty when a choice is too long for the model.
    pub scores: Vec<f64>,
    /// Whether the right choice has the highest score. The first of equal scores wins.
    pub right: bool,
}

/// The result of [`choice()`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChoiceReport {
    /// Share of questions answered right.
    pub accuracy: Option<Estimate>,
    /// Expected accuracy of guessing.
    pub chance: f64,
    /// Number of questions answered.
    pub answered: usize,
    /// Questions skipped because a choice is too long for the model.
    pub too_long: usize,
    /// The settings.
    pub settings: ChoiceSettings,
}

/// Identifies the evaluation in a [`ResultLog`]: model, settings and questions.
pub fn identity(model: &EvalModel, questions: &[Question], settings: &ChoiceSettings) -> Value {
    let mut hash = crc32fast::Hasher::new();
    for question in questions {
        hash.update(format!("{question:?}").as_bytes());
    }
    json!({
        "eval": "choice", "subject": model.identity(), "settings": settings,
        "questions": questions.len(), "questions_crc32": format!("{:08x}", hash.finalize()),
    })
}

/// Answers questions by the likelihood of their choices.
///
/// # Errors
/// [`TrainError::Config`] when a setting is 0. Also when the tokenizer or the device fails. [`TrainError::Stopped`] when
/// `observe` breaks; the results so far are then in the log.
pub fn choice(
    model: &EvalModel,
    questions: &[Question],
    settings: &ChoiceSettings,
    mut log: ResultLog<ChoiceResult>,
    observe: &mut Observe,
) -> Result<ChoiceReport, TrainError> {
    if settings.draws == 0 || settings.batch == 0 {
        let problem = "--draws and --batch must be at least 1".to_string();
        return Err(TrainError::Config { origin: "eval choice".to_string(), problem });
    }
    for index in log.done().len()..questions.len() {
        report_progress(observe, index, questions.len())?;
        log.push(answer(model, &questions[index], index, settings)?)?;
    }
    report_progress(observe, questions.len(), questions.len())?;
    let answers = log.into_done();
    let answered: Vec<f64> = answers
        .iter()
        .filter(|answer| !answer.scores.is_empty())
        .map(|answer| if answer.right { 1.0 } else { 0.0 })
        .collect();
    let chances = questions.iter().zip(&answers).filter(|(_, answer)| !answer.scores.is_empty());
    let chance: f64 = chances.map(|(question, _)| 1.0 / question.choices.len() as f64).sum();
    Ok(ChoiceReport {
        accuracy: Estimate::of_mean(&answered, settings.seed),
        chance: chance / answered.len().max(1) as f64,
        answered: answered.len(),
        too_long: answers.len() - answered.len(),
        settings: settings.clone(),
    })
}

fn answer(
    model: &EvalModel,
    question: &Question,
    index: usize,
    settings: &ChoiceSettings,
) -> Result<ChoiceResult, TrainError> {
    let text = |choice: &String| format!("{}{}{choice}", question.context, settings.separator);
    let rows = question.choices.iter().map(|choice| model.row_of(&text(choice))).collect::<Result<Vec<_>, _>>()?;
    if rows.iter().any(|row| row.len() > model.length()) {
        return Ok(ChoiceResult { scores: Vec::new(), right: false });
    }
    let mut scores = Vec::with_capacity(rows.len());
    for row in &rows {
        let nats = if model.is_autoregressive() {
            causal_nll(model, &[row])?[0].iter().sum()
        } else {
            nelbo(model, row, index, settings)?
        };
        scores.push(match settings.reduction {
            Reduction::Sum => -nats,
            Reduction::Mean => -nats / row.len() as f64,
        });
    }
    let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
    Ok(ChoiceResult { right: best.is_some() && best == question.right_index(), scores })
}

/// The draws for a row of `length` tokens. They depend on the question's index and the settings only: all choices of a
/// question share the counts and the order in which their common positions are hidden.
pub fn draws(question: usize, length: usize, settings: &ChoiceSettings) -> Vec<HiddenTokens> {
    let item = DrawnItem { place: 0, index: question, length, valid: length };
    NelboDraws::of_evaluation(settings.estimator, settings.seed, 1, settings.draws).all(item).collect()
}

fn nelbo(model: &EvalModel, row: &[u32], question: usize, settings: &ChoiceSettings) -> Result<f64, TrainError> {
    let sets = model.text_model().config().sets();
    let mut drawn = draws(question, row.len(), settings)
        .into_iter()
        .zip(0..)
        .map(|(hidden, draw)| MaskedDraw {
            tokens: row,
            valid: row.len(),
            hidden,
            sets: SetDraw { sets, seed: settings.seed, index: draw },
        })
        .peekable();
    let mut sum = 0.0;
    while drawn.peek().is_some() {
        let batch: Vec<MaskedDraw> = drawn.by_ref().take(settings.batch).collect();
        sum += weighted_nll(model, &batch)?.iter().sum::<f64>();
    }
    Ok(sum / settings.draws as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_the_text_of_a_choice_or_an_index() {
        let cases = [
            (r#"{"context": "", "choices": ["a", "b"], "label": 1}"#, Some(1)),
            (r#"{"context": "", "choices": ["a", "b"], "label": "1"}"#, Some(1)),
            (r#"{"context": "", "choices": ["a", "b", "b"], "label": "b"}"#, Some(1)),
            (r#"{"context": "", "choices": ["1", "0"], "label": "1"}"#, Some(0)),
            (r#"{"context": "", "choices": ["1", "0"], "label": 1}"#, Some(1)),
            (r#"{"context": "", "choices": ["3", "2"], "label": "2"}"#, Some(1)),
            (r#"{"context": "", "choices": ["3", "4"], "label": "2"}"#, None),
            (r#"{"context": "", "choices": ["2.5", "-1"], "label": "-1"}"#, Some(1)),
            (r#"{"context": "", "choices": ["3", "4"], "label": " 1"}"#, Some(1)),
            (r#"{"context": "", "choices": ["a", "b"], "label": "c"}"#, None),
        ];
        for (line, expected) in cases {
            assert_eq!(serde_json::from_str::<Question>(line).unwrap().right_index(), expected, "{line}");
        }
    }
}
