//! Multiple choice by likelihood: the candidate whose text, put behind the context, the model finds most probable.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bound::{self, Masked, causal_nats, nats};
use super::{EvalModel, Label, ResultLog, read_lines, tell};
use crate::TrainError;
use crate::judge::Observe;
use crate::judge::metrics::Estimate;

/// A question, as a line of a task file: `{"context": "...", "choices": ["...", ...], "label": 0}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Question {
    /// What comes before every candidate.
    #[serde(alias = "query", alias = "ctx", alias = "prompt", alias = "question")]
    pub context: String,
    /// The candidates.
    #[serde(alias = "endings")]
    pub choices: Vec<String>,
    #[serde(alias = "gold", alias = "answer")]
    label: Label,
}

impl Question {
    /// A question whose right answer is `choices[label]`.
    pub fn new(context: String, choices: Vec<String>, label: usize) -> Self {
        Self { context, choices, label: Label::Index(label) }
    }

    /// The index of the right answer.
    fn right(&self) -> Option<usize> {
        let index = match &self.label {
            Label::Index(index) => Some(*index),
            Label::Text(text) => text.parse().ok().or_else(|| self.choices.iter().position(|choice| choice == text)),
        };
        index.filter(|&index| index < self.choices.len())
    }
}

/// Reads a task file.
///
/// # Errors
/// Names the file or the line: one that is no question, has fewer than two candidates or a label that is none of them.
pub fn read_questions(path: &Path) -> Result<Vec<Question>, TrainError> {
    let questions: Vec<Question> = read_lines(path, "a question with context, choices and label")?;
    for (index, question) in questions.iter().enumerate() {
        if question.choices.len() < 2 || question.right().is_none() {
            let problem = "needs at least two choices and a label that is one of them, counted from 0".to_string();
            return Err(TrainError::Samples { path: path.to_path_buf(), line: index + 1, problem });
        }
    }
    Ok(questions)
}

/// How a candidate's score is made of its tokens'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// The bound of the whole text.
    #[default]
    Sum,
    /// The bound per token, as the public code takes it.
    Mean,
}

/// How questions are answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChoiceSettings {
    /// Draws of time and groups for each candidate, antithetic, the same for all candidates of a question; an
    /// autoregressive model needs none.
    pub draws: usize,
    /// How a score is made.
    pub reduction: Reduction,
    /// What is put between context and candidate.
    pub separator: String,
    /// Seed.
    pub seed: u64,
    /// Draws computed together.
    #[serde(skip)]
    pub batch: usize,
}

impl Default for ChoiceSettings {
    /// The paper's 1024 draws, summed.
    fn default() -> Self {
        Self { draws: 1024, reduction: Reduction::Sum, separator: " ".to_string(), seed: 0, batch: 32 }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChoiceResult {
    /// Score of each candidate, `-nats`; empty when one is longer than the model's rows.
    pub scores: Vec<f64>,
    /// Whether the right one has the highest.
    pub right: bool,
}

/// What [`choice()`] finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChoiceReport {
    /// Share of right answers.
    pub accuracy: Option<Estimate>,
    /// What guessing would give.
    pub chance: f64,
    /// Questions answered.
    pub answered: usize,
    /// Questions left out because a candidate is longer than the model's rows.
    pub too_long: usize,
    /// How they were answered.
    pub settings: ChoiceSettings,
}

/// What a progress file of this evaluation begins with.
pub fn identity(subject: &EvalModel, questions: &[Question], settings: &ChoiceSettings) -> Value {
    let mut hash = crc32fast::Hasher::new();
    for question in questions {
        hash.update(format!("{question:?}").as_bytes());
    }
    json!({
        "eval": "choice", "subject": subject.identity(), "settings": settings,
        "questions": questions.len(), "questions_crc32": format!("{:08x}", hash.finalize()),
    })
}

/// Answers questions.
///
/// # Errors
/// When a question is none, the settings ask for nothing or the device fails; [`TrainError::Stopped`] when `observe`
/// breaks, what was found is then in the ledger.
pub fn choice(
    subject: &EvalModel,
    questions: &[Question],
    settings: &ChoiceSettings,
    mut ledger: ResultLog<ChoiceResult>,
    observe: &mut Observe,
) -> Result<ChoiceReport, TrainError> {
    if settings.draws == 0 || settings.batch == 0 {
        let problem = "--draws and --batch must be at least 1".to_string();
        return Err(TrainError::Config { origin: "eval choice".to_string(), problem });
    }
    for index in ledger.done().len()..questions.len() {
        tell(observe, index, questions.len())?;
        ledger.push(answer(subject, &questions[index], index, settings)?)?;
    }
    tell(observe, questions.len(), questions.len())?;
    let answers = ledger.into_done();
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
    subject: &EvalModel,
    question: &Question,
    index: usize,
    settings: &ChoiceSettings,
) -> Result<ChoiceResult, TrainError> {
    let text = |choice: &String| format!("{}{}{choice}", question.context, settings.separator);
    let rows = question.choices.iter().map(|choice| subject.row_of(&text(choice))).collect::<Result<Vec<_>, _>>()?;
    if rows.iter().any(|row| row.len() > subject.length()) {
        return Ok(ChoiceResult { scores: Vec::new(), right: false });
    }
    let mut scores = Vec::with_capacity(rows.len());
    for row in &rows {
        let nats = if subject.is_autoregressive() {
            causal_nats(subject, &[row])?[0].iter().sum()
        } else {
            bound(subject, row, index, settings)?
        };
        scores.push(match settings.reduction {
            Reduction::Sum => -nats,
            Reduction::Mean => -nats / row.len() as f64,
        });
    }
    let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
    Ok(ChoiceResult { right: best.is_some() && best == question.right(), scores })
}

/// The draws for a candidate of `length` tokens. They depend on the question and the draw only: candidates share times,
/// and the groups of common positions.
pub fn draws(question: usize, length: usize, settings: &ChoiceSettings) -> Vec<(f64, Vec<bool>)> {
    bound::draws(settings.seed, question, length, settings.draws)
}

fn bound(subject: &EvalModel, row: &[u32], question: usize, settings: &ChoiceSettings) -> Result<f64, TrainError> {
    let mut drawn = draws(question, row.len(), settings)
        .into_iter()
        .map(|(time, is_masked)| Masked { tokens: row, valid: row.len(), time, is_masked })
        .peekable();
    let mut sum = 0.0;
    while drawn.peek().is_some() {
        let some: Vec<Masked> = drawn.by_ref().take(settings.batch).collect();
        sum += nats(subject, &some)?.iter().sum::<f64>();
    }
    Ok(sum / settings.draws as f64)
}
