//! Wall times of samples: all curves take turns, so that what else the machine does hits all of them.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::generative::{GenerativeSettings, sample_texts};
use super::super::model::EvalModel;
use super::super::result_log::ResultLog;
use super::progress::{FrontierProgress, ObserveFrontier, Phase, report};
use super::store::{keep, kept};
use crate::TrainError;

/// The wall time of a sample, in seconds: that of a batch divided by its samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WallTime {
    /// The median of the timed batches.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The most.
    pub most: f64,
}

impl WallTime {
    pub(super) fn of(seconds: &[f64]) -> Self {
        let ends = |least: f64, value: &f64| least.min(*value);
        Self {
            median: pgm_infer::bench::median(seconds),
            least: seconds.iter().fold(f64::INFINITY, ends),
            most: seconds.iter().fold(0.0, |most, value| most.max(*value)),
        }
    }
}

/// A curve to time: a name, its model, and how its samples are drawn.
pub(super) struct Timed<'a> {
    pub(super) name: String,
    pub(super) model: &'a EvalModel,
    pub(super) settings: GenerativeSettings,
}

/// Times a batch of each curve in each of `runs` rounds, after a round of this process that does not count. Rounds of an earlier run with the
/// same `identity` are taken from the file.
///
/// # Errors
/// The sampler's; [`TrainError::Stopped`] when `observe` breaks, and the rounds so far are then in the file.
pub(super) fn wall_times(
    curves: &[Timed],
    runs: usize,
    (path, identity): (&Path, &Value),
    observe: &mut ObserveFrontier,
) -> Result<Vec<WallTime>, TrainError> {
    let mut rounds: Vec<Vec<f64>> = kept(path, identity).unwrap_or_default();
    rounds.retain(|round| round.len() == curves.len());
    let all = curves.len() * (runs + 1);
    let mut run_round = |n_done: usize| -> Result<Vec<f64>, TrainError> {
        let mut round = Vec::with_capacity(curves.len());
        for curve in curves {
            let done = n_done * curves.len() + round.len();
            // A stop is checked at every step, as a batch may take minutes.
            let progress = FrontierProgress { phase: Phase::Timing, name: &curve.name, done, all, seconds_left: None };
            let log = ResultLog::open(None, &Value::Null)?;
            let batches = sample_texts(curve.model, &curve.settings, log, &mut |_, _| observe(&progress))?;
            let (seconds, n) =
                batches.iter().fold((0.0, 0), |(seconds, n), batch| (seconds + batch.seconds, n + batch.samples.len()));
            round.push(seconds / n as f64);
        }
        Ok(round)
    };
    // A process that continues has a first round, too.
    if (1..runs + 1).contains(&rounds.len()) {
        run_round(rounds.len())?;
    }
    while rounds.len() < runs + 1 {
        rounds.push(run_round(rounds.len())?);
        keep(path, identity, &rounds)?;
    }
    let name = curves.first().map_or("", |curve| &curve.name);
    report(observe, &FrontierProgress { phase: Phase::Timing, name, done: all, all, seconds_left: Some(0.0) })?;
    let of_curve = |at: usize| {
        let seconds: Vec<f64> = rounds[1..=runs].iter().map(|round| round[at]).collect();
        WallTime::of(&seconds)
    };
    Ok((0..curves.len()).map(of_curve).collect())
}
