//! Perplexity of a data folder: by the NELBO of a partition or masked model, by the exact NLL of an autoregressive one.

use pgm_data::{DataFolder, Detokenizer, Mode, Row, RowOrder, Split};
use pgm_infer::score::{OrderedRow, one_pass_nll, one_pass_problem, random_order};
use pgm_model::{ModelConfig, Sets};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bound::{MaskedDraw, SetDraw, causal_nll, weighted_nll};
use super::model::EvalModel;
use super::result_log::ResultLog;
use crate::TrainError;
use crate::config::NelboEstimator;
use crate::draws::{DrawnItem, HiddenTokens, NelboDraws};
use crate::judge::metrics::Estimate;
use crate::judge::{Observe, report_progress};

/// Settings of [`ppl`]. Rows and hidden tokens depend on these only, not on the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PplSettings {
    /// The split: "train" or "validation".
    pub split: String,
    /// Number of rows, drawn with the seed; 0 takes all.
    pub rows: usize,
    /// Draws of hidden tokens per row. Unused for an autoregressive model.
    pub times: usize,
    /// How the NELBO is estimated. Unused for an autoregressive model.
    pub estimator: NelboEstimator,
    /// How the tokens that are not hidden are divided into ordered sets; as in training, if nothing is said. Only a partition
    /// model reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sets: Option<Sets>,
    /// Whether a draw is the likelihood of all tokens in one random order, in one pass, instead of one of the estimator's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_pass: bool,
    /// Seed of the rows, the hidden tokens and the bootstrap.
    pub seed: u64,
    /// Rows of a batch.
    #[serde(skip)]
    pub batch: usize,
}

impl Default for PplSettings {
    fn default() -> Self {
        Self {
            split: "validation".to_string(),
            rows: 0,
            times: 8,
            estimator: NelboEstimator::AnyOrder,
            sets: None,
            one_pass: false,
            seed: 0,
            batch: 8,
        }
    }
}

/// The result for one row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowNats {
    /// The row's index in its split.
    pub row: usize,
    /// Its NELBO (the mean over the draws) or its exact NLL, in nats.
    pub nats: f64,
    /// Number of its tokens without padding, BOS included.
    pub tokens: usize,
    /// The standard deviation of one draw, in nats, if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
}

/// The result of [`ppl`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PplReport {
    /// "nelbo" (an upper bound of the NLL) or "nll" (exact).
    pub measure: &'static str,
    /// Nats per predicted token: per token with BOS for a NELBO, per token without BOS for an exact NLL.
    pub nats_per_token: Option<Estimate>,
    /// The exponential of `nats_per_token`.
    pub perplexity: Option<Estimate>,
    /// The perplexity with the nats divided by all tokens, BOS included.
    pub perplexity_all_tokens: Option<Estimate>,
    /// The perplexity with the nats divided by the tokens without BOS.
    pub perplexity_without_bos: Option<Estimate>,
    /// Standard deviation of one draw of a row in nats per token, the root mean square over the rows. The draws of the bound are
    /// stratified, so there it is rather too large; orders in one pass are independent.
    pub draw_deviation: Option<f64>,
    /// Number of tokens without padding, BOS included.
    pub tokens: usize,
    /// How the text was cut into rows: "pack" or "pad".
    pub mode: Mode,
    /// Whether packed rows end with EOS.
    pub row_eos: bool,
    /// The detokenizer applied to the text, if any.
    pub detokenizer: Option<Detokenizer>,
    /// Length of a row.
    pub length: usize,
    /// Number of rows.
    pub rows: usize,
    /// The settings.
    pub settings: PplSettings,
    /// The result of each row, to compare two models row by row.
    #[serde(skip)]
    pub by_row: Vec<RowNats>,
}

impl PplReport {
    /// Difference in nats per token to the report of another model on the same rows: this one minus the other one.
    pub fn difference(&self, other: &Self) -> Option<Estimate> {
        let pairs: Vec<(f64, f64)> =
            self.by_row.iter().zip(&other.by_row).map(|(a, b)| (a.nats - b.nats, a.tokens as f64)).collect();
        let mean = |pairs: &[(f64, f64)]| {
            pairs.iter().map(|pair| pair.0).sum::<f64>() / pairs.iter().map(|pair| pair.1).sum::<f64>()
        };
        Estimate::of(&pairs, mean, self.settings.seed)
    }
}

/// Identifies the evaluation in a [`ResultLog`]: model, settings and content of the data.
///
/// # Errors
/// When the data cannot be read.
pub fn identity(model: &EvalModel, data: &DataFolder, settings: &PplSettings) -> Result<Value, TrainError> {
    Ok(json!({
        "eval": "ppl", "subject": model.identity(), "settings": settings, "data_identity": data.identity()?,
    }))
}

/// Perplexity of a model on a data folder.
///
/// # Errors
/// [`TrainError::Config`] when the data was prepared for another model or a setting is out of range. Also when the device
/// or the disk fails. [`TrainError::Stopped`] when `observe` breaks; the results so far are then in the log.
pub fn ppl(
    model: &EvalModel,
    data: &DataFolder,
    settings: &PplSettings,
    mut log: ResultLog<RowNats>,
    observe: &mut Observe,
) -> Result<PplReport, TrainError> {
    model.check_data(data)?;
    let invalid = |problem: String| TrainError::Config { origin: "eval ppl".to_string(), problem };
    let split = match settings.split.as_str() {
        "train" => Split::Train,
        "validation" => Split::Validation,
        other => return Err(invalid(format!("--split {other} is neither train nor validation"))),
    };
    if settings.times == 0 || settings.batch == 0 {
        return Err(invalid("-n and --batch must be at least 1".to_string()));
    }
    let config = model.text_model().config();
    if settings.sets.is_some() && !matches!(config, ModelConfig::Partition(_)) {
        return Err(invalid("--sets is for partition models, whose clean tokens can be in ordered sets".to_string()));
    }
    if settings.sets.is_some() && settings.one_pass {
        return Err(invalid("--sets does not apply to --one-pass, where each token is a set of its own".to_string()));
    }
    if let Some(problem) = one_pass_problem(config).filter(|_| settings.one_pass) {
        return Err(invalid(format!("--one-pass does not apply to this model: {problem}")));
    }
    let sets = settings.sets.unwrap_or(config.sets());
    let rows = data.rows(split)?;
    if rows.len() == 0 {
        return Err(invalid(format!("the {} split of the data holds no rows", settings.split)));
    }
    let mut chosen: Vec<usize> = match settings.rows {
        0 => (0..rows.len()).collect(),
        n => RowOrder::new(settings.seed, rows.len()).step(0, n.min(rows.len())),
    };
    chosen.sort_unstable();
    let draws = NelboDraws::of_evaluation(settings.estimator, settings.seed, chosen.len(), settings.times);
    while log.done().len() < chosen.len() {
        let done = log.done().len();
        report_progress(observe, done, chosen.len())?;
        let indices = &chosen[done..(done + settings.batch).min(chosen.len())];
        let batch = indices.iter().map(|&row| rows.row(row)).collect::<Result<Vec<Row>, _>>()?;
        let items: Vec<DrawnItem> = (done..).zip(indices.iter().zip(&batch)).map(item).collect();
        let nats: Vec<Vec<f64>> = if model.is_autoregressive() {
            exact(model, &batch)?.into_iter().map(|nats| vec![nats]).collect()
        } else if settings.one_pass {
            one_pass(model, &batch, &items, settings)?
        } else {
            bounds(model, &batch, &items, &draws, (settings.times, sets, settings.seed))?
        };
        for ((&index, row), nats) in indices.iter().zip(&batch).zip(nats) {
            let (n, mean) = (nats.len() as f64, nats.iter().sum::<f64>() / nats.len() as f64);
            let variance = nats.iter().map(|nats| (nats - mean).powi(2)).sum::<f64>() / (n - 1.0);
            let deviation = (nats.len() > 1).then_some(variance.sqrt());
            log.push(RowNats { row: index, nats: mean, tokens: row.valid, deviation })?;
        }
    }
    report_progress(observe, chosen.len(), chosen.len())?;
    let by_row = log.into_done();
    let exact = model.is_autoregressive();
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
        draw_deviation: draw_deviation(&by_row),
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

/// The draws of the row at `place` of the `n_rows` rows that are evaluated; `index` is its index in the split.
pub fn draws(place: usize, index: usize, row: &Row, n_rows: usize, settings: &PplSettings) -> Vec<HiddenTokens> {
    let draws = NelboDraws::of_evaluation(settings.estimator, settings.seed, n_rows, settings.times);
    draws.all(item((place, (&index, row)))).collect()
}

fn item((place, (&index, row)): (usize, (&usize, &Row))) -> DrawnItem {
    DrawnItem { place, index, length: row.tokens.len(), valid: row.valid }
}

// A batch holds the first draw of all rows, the next batch the second: draws of one batch hide similar numbers of
// tokens.
fn bounds(
    model: &EvalModel,
    batch: &[Row],
    items: &[DrawnItem],
    draws: &NelboDraws,
    (n_draws, sets, seed): (usize, Sets, u64),
) -> Result<Vec<Vec<f64>>, TrainError> {
    let mut drawn_nats = vec![Vec::with_capacity(n_draws); batch.len()];
    for draw in 0..n_draws {
        let drawn = batch.iter().zip(items).map(|(row, &item)| MaskedDraw {
            tokens: &row.tokens,
            valid: row.valid,
            hidden: draws.draw(item, draw),
            sets: SetDraw { sets, seed, index: (item.index * n_draws + draw) as u64 },
        });
        for (all, nats) in drawn_nats.iter_mut().zip(weighted_nll(model, &drawn.collect::<Vec<_>>())?) {
            all.push(nats);
        }
    }
    Ok(drawn_nats)
}

// The likelihood of each row in several random orders.
fn one_pass(
    model: &EvalModel,
    batch: &[Row],
    items: &[DrawnItem],
    settings: &PplSettings,
) -> Result<Vec<Vec<f64>>, TrainError> {
    let mut drawn_nats = vec![Vec::with_capacity(settings.times); batch.len()];
    for draw in 0..settings.times {
        let rows = batch.iter().zip(items).map(|(row, item)| OrderedRow {
            tokens: &row.tokens,
            valid: row.valid,
            order: random_order(settings.seed, (item.index * settings.times + draw) as u64, row.tokens.len()),
        });
        let nats = one_pass_nll(model.text_model().handle(), &rows.collect::<Vec<_>>())?;
        drawn_nats.iter_mut().zip(nats).for_each(|(all, nats)| all.push(nats));
    }
    Ok(drawn_nats)
}

// The root mean square over rows of the standard deviation of a draw, in nats per token.
fn draw_deviation(rows: &[RowNats]) -> Option<f64> {
    let per_token = |row: &RowNats| row.deviation.map(|deviation| (deviation / row.tokens.max(1) as f64).powi(2));
    let squares = rows.iter().map(per_token).collect::<Option<Vec<f64>>>().filter(|squares| !squares.is_empty())?;
    Some((squares.iter().sum::<f64>() / squares.len() as f64).sqrt())
}

fn exact(model: &EvalModel, batch: &[Row]) -> Result<Vec<f64>, TrainError> {
    let rows: Vec<&[u32]> = batch.iter().map(|row| row.tokens.as_slice()).collect();
    let nll = causal_nll(model, &rows)?;
    Ok(nll.iter().zip(batch).map(|(nll, row)| nll[..row.valid.saturating_sub(1)].iter().sum()).collect())
}
