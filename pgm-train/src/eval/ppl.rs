//! Perplexity of a prepared folder: the NELBO of a partition or masked model, the exact NLL of an autoregressive one.

use pgm_data::{DataFolder, Detokenizer, Mode, Row, RowOrder, Split};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bound::{self, Masked, causal_nats, nats};
use super::{EvalModel, ResultLog, tell};
use crate::TrainError;
use crate::judge::Observe;
use crate::judge::metrics::Estimate;

/// What is measured. The rows, times and groups follow from it, whatever the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PplSettings {
    /// "train" or "validation".
    pub split: String,
    /// Rows, drawn by the seed; 0 takes all.
    pub rows: usize,
    /// Times of each row, antithetic; an autoregressive model has none.
    pub times: usize,
    /// Seed of rows, times, groups and of the bootstrap.
    pub seed: u64,
    /// Rows computed together.
    #[serde(skip)]
    pub batch: usize,
}

impl Default for PplSettings {
    fn default() -> Self {
        Self { split: "validation".to_string(), rows: 0, times: 8, seed: 0, batch: 8 }
    }
}

/// What a row costs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowNats {
    /// The row's index in its split.
    pub row: usize,
    /// Its bound (mean over the times) or its exact NLL, in nats.
    pub nats: f64,
    /// Tokens that are not padding, BOS included.
    pub tokens: usize,
}

/// What [`ppl`] finds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PplReport {
    /// "nelbo" (an upper bound) or "nll" (exact).
    pub measure: &'static str,
    /// Nats per token, by the convention of the kind: all tokens for a bound, BOS not counted for an exact NLL.
    pub nats_per_token: Option<Estimate>,
    /// Its exponential.
    pub perplexity: Option<Estimate>,
    /// The perplexity when the nats are divided by all tokens, BOS among them.
    pub perplexity_all_tokens: Option<Estimate>,
    /// The perplexity when they are divided by the tokens without BOS.
    pub perplexity_without_bos: Option<Estimate>,
    /// Tokens, BOS and no padding included.
    pub tokens: usize,
    /// How the text was made into rows: "pack" (wrapped) or "pad".
    pub mode: Mode,
    /// Whether packed rows end with EOS.
    pub row_eos: bool,
    /// What undid the spacing of the text.
    pub detokenizer: Option<Detokenizer>,
    /// Tokens of a row.
    pub length: usize,
    /// Rows measured.
    pub rows: usize,
    /// How it was measured.
    pub settings: PplSettings,
    /// Each row's share, for comparing two models row by row.
    #[serde(skip)]
    pub by_row: Vec<RowNats>,
}

impl PplReport {
    /// How many nats a token this model costs more than another one, measured on the same rows, row by row.
    pub fn difference(&self, other: &Self) -> Option<Estimate> {
        let pairs: Vec<(f64, f64)> =
            self.by_row.iter().zip(&other.by_row).map(|(a, b)| (a.nats - b.nats, a.tokens as f64)).collect();
        let mean = |pairs: &[(f64, f64)]| {
            pairs.iter().map(|pair| pair.0).sum::<f64>() / pairs.iter().map(|pair| pair.1).sum::<f64>()
        };
        Estimate::of(&pairs, mean, self.settings.seed)
    }
}

/// What a progress file of this evaluation begins with.
pub fn identity(subject: &EvalModel, data: &DataFolder, settings: &PplSettings) -> Value {
    json!({
        "eval": "ppl", "subject": subject.identity(), "settings": settings,
        "tokenizer_sha256": data.manifest().tokenizer_sha256, "data_rows": [data.manifest().train.rows, data.manifest().validation.rows],
        "length": data.manifest().length,
    })
}

/// Measures a model on a prepared folder.
///
/// # Errors
/// When the data is another model's, the settings ask for nothing, the device or the disk fails;
/// [`TrainError::Stopped`] when `observe` breaks, what was found is then in the ledger.
pub fn ppl(
    subject: &EvalModel,
    data: &DataFolder,
    settings: &PplSettings,
    mut ledger: ResultLog<RowNats>,
    observe: &mut Observe,
) -> Result<PplReport, TrainError> {
    subject.check_data(data)?;
    let wrong = |problem: String| TrainError::Config { origin: "eval ppl".to_string(), problem };
    let split = match settings.split.as_str() {
        "train" => Split::Train,
        "validation" => Split::Validation,
        other => return Err(wrong(format!("--split {other} is neither train nor validation"))),
    };
    if settings.times == 0 || settings.batch == 0 {
        return Err(wrong("--times and --batch must be at least 1".to_string()));
    }
    let rows = data.rows(split)?;
    if rows.len() == 0 {
        return Err(wrong(format!("the {} split of the data holds no rows", settings.split)));
    }
    let mut chosen: Vec<usize> = match settings.rows {
        0 => (0..rows.len()).collect(),
        n => RowOrder::new(settings.seed, rows.len()).step(0, n.min(rows.len())),
    };
    chosen.sort_unstable();
    while ledger.done().len() < chosen.len() {
        let done = ledger.done().len();
        tell(observe, done, chosen.len())?;
        let indices = &chosen[done..(done + settings.batch).min(chosen.len())];
        let batch = indices.iter().map(|&row| rows.row(row)).collect::<Result<Vec<Row>, _>>()?;
        let found = if subject.is_autoregressive() {
            exact(subject, &batch)?
        } else {
            bounds(subject, &batch, indices, settings)?
        };
        for ((&row, read), nats) in indices.iter().zip(&batch).zip(found) {
            ledger.push(RowNats { row, nats, tokens: read.valid })?;
        }
    }
    tell(observe, chosen.len(), chosen.len())?;
    let by_row = ledger.into_done();
    let exact = subject.is_autoregressive();
    let per_token = |without_bos: usize| {
        move |rows: &[RowNats]| {
            let tokens: usize = rows.iter().map(|row| row.tokens - without_bos).sum();
            rows.iter().map(|row| row.nats).sum::<f64>() / tokens as f64
        }
    };
    let perplexity = |without_bos| {
        let rate = per_token(without_bos);
        Estimate::of(&by_row, move |rows| rate(rows).exp(), settings.seed)
    };
    let manifest = data.manifest();
    Ok(PplReport {
        measure: if exact { "nll" } else { "nelbo" },
        nats_per_token: Estimate::of(&by_row, per_token(usize::from(exact)), settings.seed),
        perplexity: perplexity(usize::from(exact)),
        perplexity_all_tokens: perplexity(0),
        perplexity_without_bos: perplexity(1),
        tokens: by_row.iter().map(|row| row.tokens).sum(),
        mode: manifest.mode,
        row_eos: manifest.row_eos,
        detokenizer: manifest.detokenizer,
        length: manifest.length,
        rows: by_row.len(),
        settings: settings.clone(),
        by_row,
    })
}

/// The draws of a row: for each time, which of its `length` positions are masked. A function of the seed, the row's
/// index and the number of times alone.
pub fn draws(row: usize, length: usize, settings: &PplSettings) -> Vec<(f64, Vec<bool>)> {
    bound::draws(settings.seed, row, length, settings.times)
}

// All rows at their first time, then at their second: the rows of a batch have about as many masks.
fn bounds(
    subject: &EvalModel,
    batch: &[Row],
    indices: &[usize],
    settings: &PplSettings,
) -> Result<Vec<f64>, TrainError> {
    let mut drawn: Vec<_> =
        indices.iter().zip(batch).map(|(&row, read)| draws(row, read.tokens.len(), settings).into_iter()).collect();
    let mut sums = vec![0.0; batch.len()];
    for _ in 0..settings.times {
        let now = batch.iter().zip(&mut drawn).filter_map(|(row, drawn)| {
            let (time, is_masked) = drawn.next()?;
            Some(Masked { tokens: &row.tokens, valid: row.valid, time, is_masked })
        });
        for (sum, nats) in sums.iter_mut().zip(nats(subject, &now.collect::<Vec<_>>())?) {
            *sum += nats / settings.times as f64;
        }
    }
    Ok(sums)
}

fn exact(subject: &EvalModel, batch: &[Row]) -> Result<Vec<f64>, TrainError> {
    let rows: Vec<&[u32]> = batch.iter().map(|row| row.tokens.as_slice()).collect();
    let nats = causal_nats(subject, &rows)?;
    Ok(nats.iter().zip(batch).map(|(nats, row)| nats[..row.valid.saturating_sub(1)].iter().sum()).collect())
}
