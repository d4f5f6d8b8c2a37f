//! The frontier of samplers: curves of perplexity under a judge against entropy, for several models at several numbers of
//! steps, with the wall time of a sample and MAUVE beside them.
//!
//! A single perplexity of samples says little: a lower temperature lowers it, and the entropy with it. So every model is
//! sampled at several temperatures, and curves are compared at the entropy of held-out text (Generative Frontiers,
//! arXiv 2604.02718), each at the number of steps that a wall time allows ([`EqualTime`]).
//!
//! [`frontier()`] keeps all that it measures in a folder, and continues from it. Sample `i` of every point has the seed
//! `seed + i`.

mod curve;
mod equal_time;
mod judging;
mod matched;
mod plots;
mod progress;
mod report;
mod rows;
mod settings;
mod store;
mod timing;

use std::path::Path;
use std::time::Instant;

use pgm_data::DataFolder;
use pgm_model::model_folder::write_file;
use serde_json::{Value, json};

use super::generative::{GenerativeSettings, SampleBatch, sample_texts};
use super::result_log::ResultLog;
use crate::TrainError;
use crate::judge::Sample;
use crate::run::RunLock;
use judging::{JudgedSet, Judging};
use matched::{ResampledPoint, at_entropy, resamples};
use progress::report as observed;
use timing::{Timed, wall_times};

pub use curve::{FrontierCurve, FrontierPoint};
pub use equal_time::{Choice, EqualTime, Reached};
pub use progress::{FrontierProgress, ObserveFrontier, Phase};
pub use report::{Frontier, HeldOut};
pub use settings::{Draw, FrontierJudge, FrontierModel, FrontierSettings, Variant};
pub use timing::WallTime;

/// What a frontier is measured with.
pub struct FrontierInputs<'a> {
    /// The models; the others are compared with the first.
    pub models: &'a [FrontierModel],
    /// The judge.
    pub judge: &'a FrontierJudge,
    /// The data folder: it gives the length of a sample and the held-out rows.
    pub data: &'a DataFolder,
    /// The device of the models, for the report.
    pub device_name: &'a str,
}

// A curve that is measured.
struct Planned<'a> {
    model: &'a FrontierModel,
    variant: Variant,
    draws: Vec<Draw>,
    name: String,
}

/// Measures a frontier and writes it into the folder `out`: `frontier.json`, `frontier.csv`, `frontier.md`, `frontier.svg`
/// and `wall-time.svg`. What an earlier call has kept there is taken from it: samples (also those of fewer of them), judgements
/// and wall times.
///
/// # Errors
/// [`TrainError::Config`] for settings, names or data that cannot be used; [`TrainError::Changed`] when kept samples are
/// another model's; [`TrainError::Busy`] while another call measures in the folder; [`TrainError::Stopped`] when `observe`
/// breaks; the sampler's and the judge's errors.
pub fn frontier(
    inputs: &FrontierInputs,
    settings: &FrontierSettings,
    out: &Path,
    observe: &mut ObserveFrontier,
) -> Result<Frontier, TrainError> {
    let settings = settings.checked()?;
    settings::check_models(inputs.models, inputs.data)?;
    let decoder = inputs.models[0].model.text_model();
    let held_out = rows::held_out(inputs.data, decoder, &settings)?;
    let _lock = RunLock::acquire(out, &|_| ())?;
    for folder in ["samples", "judged"] {
        let path = out.join(folder);
        std::fs::create_dir_all(&path).map_err(|error| TrainError::file("write", path, error))?;
    }
    let work = Work { inputs, settings: &settings, out, curves: planned(inputs.models, &settings) };
    // Before anything takes time: kept samples may be another model's.
    let before = work.kept_samples()?;
    let times = work.times(observe)?;
    work.draw(&before, &times, observe)?;
    let (real, judged) = work.judge(&held_out, observe)?;
    let found = work.report(&times, &real, &judged)?;
    for (name, text) in found.files()? {
        write_file(&out.join(name), text.as_bytes())?;
    }
    Ok(found)
}

fn planned<'a>(models: &'a [FrontierModel], settings: &FrontierSettings) -> Vec<Planned<'a>> {
    let draws = settings::draws(settings);
    let name = |variant: &Variant, draws: &[Draw]| match draws {
        _ if settings.top_ps.len() < 2 || settings.sweeps_top_p() => variant.label(),
        [draw, ..] => format!("{}, top-p {}", variant.label(), draw.top_p),
        [] => variant.label(),
    };
    let of_variant = |model: &'a FrontierModel, variant: Variant| {
        let curve = |draws: &Vec<Draw>| Planned {
            model,
            name: name(&variant, draws),
            variant: variant.clone(),
            draws: draws.clone(),
        };
        draws.iter().map(curve).collect::<Vec<_>>()
    };
    let variants = models.iter().flat_map(|model| Variant::of(model, settings).into_iter().map(move |v| (model, v)));
    variants.flat_map(|(model, variant)| of_variant(model, variant)).collect()
}

struct Work<'a> {
    inputs: &'a FrontierInputs<'a>,
    settings: &'a FrontierSettings,
    out: &'a Path,
    curves: Vec<Planned<'a>>,
}

impl Work<'_> {
    fn length(&self) -> usize {
        self.inputs.data.manifest().length
    }

    fn sampling(&self, curve: &Planned, draw: Draw) -> GenerativeSettings {
        curve.variant.sampling(self.settings, self.length(), draw)
    }

    // What samples depend on. Their number is left out: more of them continue a file, fewer are taken from it.
    fn identity(&self, curve: &Planned, draw: Draw) -> Value {
        let mut identity = serde_json::to_value(self.sampling(curve, draw)).expect("settings always serialise");
        if let Value::Object(map) = &mut identity {
            map.remove("samples");
        }
        identity["eval"] = "frontier".into();
        identity["subject"] = curve.model.model.identity();
        identity
    }

    fn times(&self, observe: &mut ObserveFrontier) -> Result<Vec<WallTime>, TrainError> {
        let middle = |curve: &Planned| curve.draws[curve.draws.len() / 2];
        let identities = self.curves.iter().map(|curve| self.identity(curve, middle(curve)));
        let identity = json!({
            "curves": identities.collect::<Vec<_>>(), "batch": self.settings.batch,
            "device": self.inputs.device_name, "threads": threads(),
        });
        let mut timed = Vec::with_capacity(self.curves.len());
        for curve in &self.curves {
            let settings = GenerativeSettings { samples: self.settings.batch, ..self.sampling(curve, middle(curve)) };
            timed.push(Timed { name: curve.name.clone(), model: &curve.model.model, settings });
        }
        wall_times(&timed, self.settings.runs, (&self.out.join("wall-times.json"), &identity), observe)
    }

    fn log(&self, curve: &Planned, draw: Draw) -> Result<ResultLog<SampleBatch>, TrainError> {
        let path = self.out.join("samples").join(format!("{}.jsonl", curve.variant.file_name(draw)));
        ResultLog::open(Some(&path), &self.identity(curve, draw))
    }

    fn points(&self) -> impl Iterator<Item = (usize, &Planned<'_>, Draw)> {
        let curves = self.curves.iter().enumerate();
        curves.flat_map(|(index, curve)| curve.draws.iter().map(move |&draw| (index, curve, draw)))
    }

    // Samples of each point that are there already.
    fn kept_samples(&self) -> Result<Vec<usize>, TrainError> {
        let of_point = |(_, curve, draw): (usize, &Planned, Draw)| {
            let log = self.log(curve, draw)?;
            Ok(log.done().iter().map(|batch| batch.samples.len()).sum::<usize>().min(self.settings.samples))
        };
        self.points().map(of_point).collect()
    }

    fn draw(&self, before: &[usize], times: &[WallTime], observe: &mut ObserveFrontier) -> Result<(), TrainError> {
        let n = self.settings.samples;
        let cost = |curve: usize, samples: usize| times[curve].median * samples as f64;
        let all_cost: f64 = self.points().zip(before).map(|((curve, ..), &done)| cost(curve, n - done)).sum();
        let (all, start) = (n * before.len(), Instant::now());
        let (mut done_before, mut cost_done): (usize, f64) = (before.iter().sum(), 0.0);
        for ((index, curve, draw), &done) in self.points().zip(before) {
            if done == n {
                continue;
            }
            let name = point_name(curve, draw);
            let watch = &mut |n_done: usize, _: usize| {
                let so_far = cost_done + cost(index, n_done.min(n) - done);
                // Wall times were measured for themselves; here they are scaled to what sampling has really taken.
                let scale = if so_far > 0.0 { start.elapsed().as_secs_f64() / so_far } else { 1.0 };
                observe(&FrontierProgress {
                    phase: Phase::Sampling,
                    name: &name,
                    done: done_before + n_done.min(n) - done,
                    all,
                    seconds_left: Some((all_cost - so_far).max(0.0) * scale),
                })
            };
            sample_texts(&curve.model.model, &self.sampling(curve, draw), self.log(curve, draw)?, watch)?;
            done_before += n - done;
            cost_done += cost(index, n - done);
        }
        Ok(())
    }

    fn judge(
        &self,
        held_out: &[Sample],
        observe: &mut ObserveFrontier,
    ) -> Result<(JudgedSet, Vec<JudgedSet>), TrainError> {
        let (settings, inputs) = (self.settings, self.inputs);
        let judged_by = json!({
            "judge": inputs.judge.identity, "same_tokens": inputs.judge.same_tokens, "data": inputs.data.identity()?,
            "split": settings.split, "rows": held_out.len(), "seed": settings.seed, "pooling": settings.pooling,
            "clusterings": settings.clusterings,
        });
        let path = |file: &str| self.out.join("judged").join(format!("{file}.json"));
        let n_points = self.points().count();
        let mut judging = Judging::new(inputs.judge, settings, held_out, n_points + 1);
        let real = judging.held_out((&path("held-out"), &judged_by), observe)?;
        let mut sets = Vec::with_capacity(n_points);
        for (_, curve, draw) in self.points() {
            let identity = json!({ "samples": self.identity(curve, draw), "n": settings.samples, "by": judged_by });
            let (name, path) = (point_name(curve, draw), path(&curve.variant.file_name(draw)));
            sets.push(judging.point(&name, (&path, &identity), || self.samples(curve, draw), observe)?);
        }
        let all = settings.samples * (n_points + 1);
        let last = FrontierProgress { phase: Phase::Judging, name: "", done: all, all, seconds_left: Some(0.0) };
        observed(observe, &last)?;
        Ok((real, sets))
    }

    // The drawn samples of a point, as they are judged.
    fn samples(&self, curve: &Planned, draw: Draw) -> Result<Vec<Sample>, TrainError> {
        let batches = self.log(curve, draw)?.into_done();
        let drawn = batches.into_iter().flat_map(|batch| batch.samples).take(self.settings.samples);
        let model = curve.model.model.text_model();
        drawn.map(|sample| rows::sample(sample.tokens.unwrap_or_default(), self.inputs.data, model)).collect()
    }

    fn report(&self, times: &[WallTime], real: &JudgedSet, judged: &[JudgedSet]) -> Result<Frontier, TrainError> {
        let settings = self.settings;
        let drawn = resamples(settings.samples, settings.seed);
        let real_drawn = resamples(real.each.len(), settings.seed.wrapping_add(1));
        let target = ResampledPoint::new(&real.each, &real_drawn).entropy;
        let mut left = judged.iter();
        let (mut curves, mut matched) = (Vec::new(), Vec::new());
        for (curve, time) in self.curves.iter().zip(times) {
            let sets: Vec<&JudgedSet> = left.by_ref().take(curve.draws.len()).collect();
            let resampled: Vec<ResampledPoint> =
                sets.iter().map(|set| ResampledPoint::new(&set.each, &drawn)).collect();
            let at = at_entropy(&resampled, &target);
            let point = |(draw, set): (&Draw, &&JudgedSet)| FrontierPoint {
                temperature: draw.temperature,
                top_p: draw.top_p,
                perplexity: set.report.paper.perplexity,
                public_code: set.report.public_code.perplexity,
                entropy: set.report.entropy_model_tokens,
                distinct_2: set.report.distinct.get(1).and_then(|distinct| distinct.per_sample),
                mauve: set.mauve,
            };
            curves.push(FrontierCurve {
                name: curve.name.clone(),
                variant: curve.variant.clone(),
                top_p: (!settings.sweeps_top_p()).then(|| curve.draws[0].top_p),
                wall_time: *time,
                matched: at.exponential(),
                points: curve.draws.iter().zip(&sets).map(point).collect(),
            });
            matched.push(at);
        }
        let equal_time = equal_time::compare(&curves, &matched, settings.seconds);
        Ok(Frontier {
            device: self.inputs.device_name.to_string(),
            threads: threads(),
            length: self.length(),
            judge: self.inputs.judge.name.clone(),
            features: self.inputs.judge.features(settings.pooling),
            settings: settings.clone(),
            held_out: HeldOut {
                rows: real.each.len(),
                perplexity: real.report.paper.perplexity,
                entropy: real.report.entropy_model_tokens,
            },
            curves,
            equal_time,
        })
    }
}

fn point_name(curve: &Planned, draw: Draw) -> String {
    format!("{}, temperature {}, top-p {}", curve.variant.label(), draw.temperature, draw.top_p)
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
