//! Features of samples: a judge's last hidden states.

use super::batches::batches;
use super::language_model::{Judge, Pooling};
use super::progress::{Observe, report_progress};
use super::report::JudgeSettings;
use super::samples::Sample;
use crate::TrainError;

/// The features of samples for [`mauve`](crate::judge::mauve()), in their order. The rows are the samples' own tokens where the
/// settings say that they are the judge's, otherwise the judge's tokens of their texts; they are cut to
/// [`JudgeSettings::length`]. Empty rows are left out.
///
/// # Errors
/// [`TrainError::Judge`] for a length or batch of 0, for samples without tokens, and for a judge without hidden states;
/// [`TrainError::Stopped`] when `observe` breaks; the judge's errors.
pub fn features(
    judge: &dyn Judge,
    samples: &[Sample],
    settings: &JudgeSettings,
    pooling: Pooling,
    observe: &mut Observe,
) -> Result<Vec<Vec<f32>>, TrainError> {
    if settings.length == 0 || settings.batch == 0 {
        return Err(TrainError::judge("MAUVE", "length and batch must be at least 1"));
    }
    let length = settings.length.min(judge.max_length());
    let row = |(index, sample): (usize, &Sample)| -> Result<Vec<u32>, TrainError> {
        let tokens = match (&sample.tokens, settings.same_tokens) {
            (Some(tokens), true) => tokens.clone(),
            (None, true) => return Err(TrainError::judge(format!("sample {}", index + 1), "has no tokens")),
            (_, false) => judge.encode(&sample.text)?,
        };
        Ok(tokens.into_iter().take(length).collect())
    };
    let rows = samples.iter().enumerate().map(row).collect::<Result<Vec<_>, _>>()?;
    let mut all = vec![Vec::new(); rows.len()];
    let n_rows = rows.iter().filter(|row| !row.is_empty()).count();
    let mut n_done = 0;
    for members in batches(&rows, settings.batch) {
        let rows_now: Vec<&[u32]> = members.iter().map(|&row| rows[row].as_slice()).collect();
        for (&row, feature) in members.iter().zip(judge.features(&rows_now, pooling)?) {
            all[row] = feature;
        }
        n_done += members.len();
        report_progress(observe, n_done, n_rows)?;
    }
    all.retain(|feature| !feature.is_empty());
    Ok(all)
}

/// What [`features`] are, for reports: scores by different features must not be compared.
pub fn feature_name(judge: &dyn Judge, pooling: Pooling) -> String {
    format!("{} ({})", pooling.describe(), judge.network())
}
