//! Judging the samples of all points, and MAUVE of each against the held-out rows.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::progress::{FrontierProgress, ObserveFrontier, Phase};
use super::settings::{FrontierJudge, FrontierSettings};
use super::store::{keep, kept};
use crate::TrainError;
use crate::judge::{self, JudgeReport, JudgeSettings, JudgedSample, Mauve, Sample, judge_each, mauve};

/// What a judge says about a set of samples.
#[derive(Serialize, Deserialize)]
pub(super) struct JudgedSet {
    pub(super) report: JudgeReport,
    pub(super) each: Vec<JudgedSample>,
    /// Absent for the held-out rows themselves, and where fewer than two samples have a token.
    pub(super) mauve: Option<Mauve>,
}

/// A judge at work on one set after another.
pub(super) struct Judging<'a> {
    judge: &'a FrontierJudge,
    settings: &'a FrontierSettings,
    held_out: &'a [Sample],
    // Features of the held-out rows, once they are needed.
    real_features: Option<Vec<Vec<f32>>>,
    counter: Counter,
}

#[derive(Clone, Copy)]
struct Counter {
    // Sets judged, those among them that were kept from before, and sets in all.
    done: usize,
    kept: usize,
    all: usize,
    samples: usize,
    start: Instant,
}

impl<'a> Judging<'a> {
    pub(super) fn new(
        judge: &'a FrontierJudge,
        settings: &'a FrontierSettings,
        held_out: &'a [Sample],
        sets: usize,
    ) -> Self {
        let counter = Counter { done: 0, kept: 0, all: sets, samples: settings.samples, start: Instant::now() };
        Self { judge, settings, held_out, real_features: None, counter }
    }

    fn judge_settings(&self) -> JudgeSettings {
        JudgeSettings {
            batch: self.settings.batch,
            seed: self.settings.seed,
            same_tokens: self.judge.same_tokens,
            ..JudgeSettings::default()
        }
    }

    /// Judges the held-out rows, or takes the judgement from the file.
    pub(super) fn held_out(
        &mut self,
        (path, identity): (&Path, &Value),
        observe: &mut ObserveFrontier,
    ) -> Result<JudgedSet, TrainError> {
        if let Some(set) = self.kept(path, identity) {
            return Ok(set);
        }
        let (judge, judging) = (self.judge.judge.as_ref(), self.judge_settings());
        let mut watch = self.counter.watch("held-out text", [0.0, 1.0], observe);
        let (report, each) = judge_each(judge, self.held_out, &judging, &mut watch)?;
        self.finished(path, identity, JudgedSet { report, each, mauve: None })
    }

    /// Judges the samples of a point, or takes the judgement from the file.
    pub(super) fn point(
        &mut self,
        name: &str,
        (path, identity): (&Path, &Value),
        samples: impl FnOnce() -> Result<Vec<Sample>, TrainError>,
        observe: &mut ObserveFrontier,
    ) -> Result<JudgedSet, TrainError> {
        if let Some(set) = self.kept(path, identity) {
            return Ok(set);
        }
        let (judge, judging, samples) = (self.judge.judge.as_ref(), self.judge_settings(), samples()?);
        let counter = self.counter;
        let (report, each) = judge_each(judge, &samples, &judging, &mut counter.watch(name, [0.0, 0.5], observe))?;
        let pooling = self.settings.pooling;
        if self.real_features.is_none() {
            let mut watch = counter.watch(name, [0.5, 0.5], observe);
            self.real_features = Some(judge::features(judge, self.held_out, &judging, pooling, &mut watch)?);
        }
        let mut watch = counter.watch(name, [0.5, 0.9], observe);
        let ours = judge::features(judge, &samples, &judging, pooling, &mut watch)?;
        let real = self.real_features.as_deref().unwrap_or_default();
        let enough = ours.len() >= 2 && real.len() >= 2;
        let mauve = enough.then(|| mauve(&ours, real, self.settings.seed, self.settings.clusterings)).transpose()?;
        self.finished(path, identity, JudgedSet { report, each, mauve })
    }

    fn kept(&mut self, path: &Path, identity: &Value) -> Option<JudgedSet> {
        let set = kept(path, identity)?;
        self.counter.done += 1;
        self.counter.kept += 1;
        Some(set)
    }

    fn finished(&mut self, path: &Path, identity: &Value, set: JudgedSet) -> Result<JudgedSet, TrainError> {
        keep(path, identity, &set)?;
        self.counter.done += 1;
        Ok(set)
    }
}

impl Counter {
    // Reports progress within a set, from one share of its work to another.
    fn watch<'o>(
        self,
        name: &'o str,
        [from, to]: [f64; 2],
        observe: &'o mut ObserveFrontier<'_>,
    ) -> impl FnMut(usize, usize) -> ControlFlow<()> {
        move |done, all| {
            let share = from + (to - from) * done as f64 / all.max(1) as f64;
            let new = (self.done - self.kept) as f64 + share;
            let left = (self.all - self.done) as f64 - share;
            let seconds_left = (new > 0.0).then(|| left * self.start.elapsed().as_secs_f64() / new);
            let done = self.done * self.samples + (share * self.samples as f64) as usize;
            let all = self.all * self.samples;
            observe(&FrontierProgress { phase: Phase::Judging, name, done, all, seconds_left })
        }
    }
}
