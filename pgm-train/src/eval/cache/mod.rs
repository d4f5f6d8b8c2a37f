//! What a model loses and gains when it keeps what it has encoded ([`Refresh`]): a table over refresh intervals.
//!
//! Held-out rows are written again in random orders, a share of the tokens in each step, with their true tokens. At the
//! positions of each step kept encodings and those of everything encoded anew give two distributions. Their divergence, and the
//! likelihood of the true tokens under the kept ones, are what keeping costs. (A model that was trained with ordered sets is
//! exact where nothing is encoded anew.)

mod measure;
mod plot;

use pgm_data::{DataFolder, Row, RowOrder, Split};
use pgm_infer::denoise::{CleanRow, logits_at};
use pgm_infer::sample::Refresh;
use pgm_infer::score::random_order;
use pgm_model::ModelConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::model::EvalModel;
use super::result_log::ResultLog;
use crate::TrainError;
use crate::judge::metrics::Estimate;
use crate::judge::{Observe, report_progress};
pub use measure::{CacheInputs, CacheReport, ObserveCache, measure};
pub use plot::plot;

/// Settings of [`cache`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheSettings {
    /// Refresh intervals to compare.
    pub refresh: Vec<Refresh>,
    /// Rows of the validation split, drawn with the seed; 0 takes all.
    pub rows: usize,
    /// Steps in which a row is written.
    pub steps: usize,
    /// Seed of the rows, their orders and the bootstrap.
    pub seed: u64,
}

/// The figures of one row: nats over its predicted tokens, for each refresh interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CacheRow {
    /// The row's index in its split.
    pub row: usize,
    /// Predicted tokens: all but BOS.
    pub tokens: usize,
    /// Negative log-likelihood of the true tokens.
    pub nats: Vec<f64>,
    /// Kullback-Leibler divergence of the distributions from those with everything encoded anew.
    pub kl: Vec<f64>,
}

/// The figures of one refresh interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CacheFigures {
    /// The interval.
    pub refresh: Refresh,
    /// Nats per token of the bound: the mean over orders of the likelihood of a row that is written in so many steps. BOS is given
    /// and not counted, unlike in [`ppl`](super::ppl()).
    pub nats_per_token: Option<Estimate>,
    /// How much that is above the bound with everything encoded anew in each step, row by row.
    pub nats_over_anew: Option<Estimate>,
    /// Divergence from the distributions with everything encoded anew, in nats per token.
    pub kl_per_token: Option<Estimate>,
}

/// How fast an interval is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CacheSpeed {
    /// Seconds of a run, the median.
    pub seconds: f64,
    /// Tokens of all rows in a second.
    pub tokens_per_second: f64,
}

impl CacheSpeed {
    /// Rows of so many tokens in all, sampled in so many seconds.
    pub fn new(n_tokens: usize, seconds: f64) -> Self {
        Self { seconds, tokens_per_second: n_tokens as f64 / seconds }
    }
}

/// Identifies the evaluation in a [`ResultLog`].
///
/// # Errors
/// When the data cannot be read.
pub fn identity(model: &EvalModel, data: &DataFolder, settings: &CacheSettings) -> Result<Value, TrainError> {
    Ok(json!({
        "eval": "cache", "subject": model.identity(), "settings": settings, "data_identity": data.identity()?,
    }))
}

/// Whether intervals can be compared with these settings.
///
/// # Errors
/// [`TrainError::Config`] for a model that encodes nothing, for data of another model or without held-out rows, and for a
/// setting that is out of range.
pub fn check(model: &EvalModel, data: &DataFolder, settings: &CacheSettings) -> Result<(), TrainError> {
    model.check_data(data)?;
    let invalid =
        |problem: &str| Err(TrainError::Config { origin: "eval cache".to_string(), problem: problem.to_string() });
    if !matches!(model.text_model().config(), ModelConfig::Partition(_)) {
        return invalid("only a partition model keeps what it has encoded of clean tokens");
    }
    if settings.steps == 0 || settings.refresh.is_empty() {
        return invalid("--steps must be at least 1 and --refresh name at least one interval");
    }
    if data.rows(Split::Validation)?.len() == 0 {
        return invalid("the validation split of the data holds no rows");
    }
    Ok(())
}

/// Compares refresh intervals on held-out rows.
///
/// # Errors
/// As [`check`]; also when the device or the disk fails. [`TrainError::Stopped`] when `observe` breaks; the results so far are then in the
/// log.
pub fn cache(
    model: &EvalModel,
    data: &DataFolder,
    settings: &CacheSettings,
    mut log: ResultLog<CacheRow>,
    observe: &mut Observe,
) -> Result<Vec<CacheFigures>, TrainError> {
    check(model, data, settings)?;
    let rows = data.rows(Split::Validation)?;
    let mut chosen = match settings.rows {
        0 => (0..rows.len()).collect::<Vec<_>>(),
        n => RowOrder::new(settings.seed, rows.len()).step(0, n.min(rows.len())),
    };
    chosen.sort_unstable();
    while log.done().len() < chosen.len() {
        report_progress(observe, log.done().len(), chosen.len())?;
        let index = chosen[log.done().len()];
        let row = rows.row(index)?;
        log.push(compare(model, &row, index, settings))?;
    }
    report_progress(observe, chosen.len(), chosen.len())?;
    Ok(figures(&log.into_done(), settings))
}

fn figures(rows: &[CacheRow], settings: &CacheSettings) -> Vec<CacheFigures> {
    let seed = settings.seed;
    // The first sum of a row is that of everything encoded anew.
    let per_token = |of: &dyn Fn(&CacheRow) -> f64| {
        let pairs: Vec<(f64, f64)> = rows.iter().map(|row| (of(row), row.tokens as f64)).collect();
        let ratio = |pairs: &[(f64, f64)]| {
            pairs.iter().map(|pair| pair.0).sum::<f64>() / pairs.iter().map(|pair| pair.1).sum::<f64>()
        };
        Estimate::of(&pairs, ratio, seed)
    };
    let of_interval = |(index, &refresh): (usize, &Refresh)| CacheFigures {
        refresh,
        nats_per_token: per_token(&|row| row.nats[index + 1]),
        nats_over_anew: per_token(&|row| row.nats[index + 1] - row.nats[0]),
        kl_per_token: per_token(&|row| row.kl[index]),
    };
    settings.refresh.iter().enumerate().map(of_interval).collect()
}

// The first of the row's nats are those of everything encoded anew.
fn compare(model: &EvalModel, row: &Row, index: usize, settings: &CacheSettings) -> CacheRow {
    let length = row.valid;
    // BOS is given.
    let order: Vec<usize> = random_order(settings.seed, index as u64, length.saturating_sub(1));
    let order: Vec<usize> = order.into_iter().map(|position| position + 1).collect();
    let n_intervals = settings.refresh.len();
    let (mut nats, mut kl) = (vec![0.0; n_intervals + 1], vec![0.0; n_intervals]);
    let mut clean = CleanRow::new(length, vec![0], vec![row.tokens[0]]);
    let mut sets: Vec<Vec<usize>> = vec![Vec::new(); n_intervals];
    let (mut n_done, mut evaluation) = (0, 0);
    for step in 0..settings.steps {
        let until = order.len() * (step + 1) / settings.steps;
        let positions = &order[n_done..until];
        if positions.is_empty() {
            continue;
        }
        let anew = distributions(model, &clean, positions);
        nats[0] += anew.nats(row, positions);
        for (interval, (sets, &refresh)) in sets.iter_mut().zip(&settings.refresh).enumerate() {
            refresh.mark(sets, clean.tokens.len(), evaluation);
            let kept = (refresh != Refresh::Always)
                .then(|| distributions(model, &clean.clone().with_sets(Some(sets.clone())), positions));
            let kept = kept.as_ref().unwrap_or(&anew);
            nats[interval + 1] += kept.nats(row, positions);
            kl[interval] += anew.divergence(kept);
        }
        for &position in positions {
            clean.positions.push(position);
            clean.tokens.push(row.tokens[position]);
        }
        (n_done, evaluation) = (until, evaluation + 1);
    }
    CacheRow { row: index, tokens: order.len(), nats, kl }
}

// Log-probabilities of all classes but the mask at some positions.
struct Distributions {
    log_probabilities: Vec<f64>,
    n_classes: usize,
}

impl Distributions {
    fn nats(&self, row: &Row, positions: &[usize]) -> f64 {
        let at = positions.iter().enumerate();
        at.map(|(index, &position)| -self.log_probabilities[index * self.n_classes + row.tokens[position] as usize])
            .sum()
    }

    // The sum over positions of KL(self || other).
    fn divergence(&self, other: &Self) -> f64 {
        let pairs = self.log_probabilities.iter().zip(&other.log_probabilities);
        pairs.filter(|(p, _)| p.is_finite()).map(|(p, q)| p.exp() * (p - q)).sum()
    }
}

fn distributions(model: &EvalModel, clean: &CleanRow, positions: &[usize]) -> Distributions {
    let handle = model.text_model().handle();
    let mask_index = model.mask_index();
    let logits = logits_at(handle.network, mask_index, &[clean], &[positions], handle.device);
    let n_classes = logits.dims()[2];
    let logits = logits.try_into_vec_as::<f32>().expect("logits are read");
    let mut log_probabilities: Vec<f64> = logits.into_iter().map(f64::from).collect();
    for row in log_probabilities.chunks_mut(n_classes) {
        row[mask_index] = f64::NEG_INFINITY;
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = row.iter().map(|logit| (logit - max).exp()).sum();
        row.iter_mut().for_each(|logit| *logit -= max + sum.ln());
    }
    Distributions { log_probabilities, n_classes }
}
