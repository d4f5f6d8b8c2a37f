//! How good the samples are and how fast they come, by a classifier that real digits taught.

use std::ops::ControlFlow;
use std::time::Instant;

use anyhow::anyhow;
use burn::tensor::Device;
use pgm_data::{DataFolder, Split};
use pgm_infer::{Picture, SampleRequest, SampledRow, SamplingPath, StepView};
use pgm_train::eval::images::{Classifier, FeatureSet, FeatureStatistics, frechet_distance};
use pgm_train::judge::metrics::{Estimate, interval};

use crate::pictures::settings;
use crate::plan::{GUIDANCE, Plan, SEEDS, STEPS};
use crate::report::{Report, with_interval};
use crate::train::Named;

/// Rows that are sampled together.
const BATCH: usize = 100;
/// Seed of all intervals.
const SEED: u64 = 0;

/// A classifier of real digits, and the features of those that it never saw.
pub struct Judge {
    classifier: Classifier,
    reference: FeatureStatistics,
}

impl Judge {
    /// Trains the classifier.
    pub fn train(plan: &Plan, data: &DataFolder, device: &Device, report: &mut Report) -> anyhow::Result<Self> {
        let train = data.pixels(Split::Train)?;
        let classifier = Classifier::train(&train, &plan.classifier, device, &mut |_| ControlFlow::Continue(()))?;
        let (found, labels) = classifier.classify_rows(&data.pixels(Split::Validation)?)?;
        let accuracy = agreement(&found.labels, &labels);
        let reference = FeatureSet::new(classifier.n_features(), found.features)?.statistics()?;
        let judge = Self { classifier, reference };
        // As many real digits as a score has samples: what a perfect model would get.
        let n = (plan.samples * 10).min(train.len());
        let real: Vec<Vec<u8>> = (0..n).map(|index| train.pixels(index)).collect::<Result<_, _>>()?;
        let real: Vec<&[u8]> = real.iter().map(Vec::as_slice).collect();
        let features = judge.classifier.classify(&real)?.features;
        report.line(format!(
            "classifier: {} of {} held-out digits are labelled right; FD-own of {n} real training digits {}",
            percent(&accuracy),
            labels.len(),
            judge.distance(features)?
        ));
        Ok(judge)
    }

    // FD-own with its interval over the pictures.
    fn distance(&self, features: Vec<f32>) -> anyhow::Result<String> {
        let features = FeatureSet::new(self.classifier.n_features(), features)?;
        let of = |rows: &[usize]| {
            let statistics = features.select(rows).statistics();
            statistics.and_then(|statistics| frechet_distance(&statistics, &self.reference)).unwrap_or(f64::NAN)
        };
        let all: Vec<usize> = (0..features.n_rows()).collect();
        let value = of(&all);
        // A resample has some pictures twice, which raises its distance: the bootstrap tells the width only.
        let around = |[low, high]: [f64; 2]| [value - (high - low) / 2.0, value + (high - low) / 2.0];
        Ok(with_interval(value, interval(&all, of, SEED).map(around), 1))
    }

    /// Samples of both models at all numbers of steps, for two seeds: label agreement, FD-own, speed.
    pub fn compare(&self, plan: &Plan, models: &[Named; 2], report: &mut Report) -> anyhow::Result<()> {
        report.line(format!(
            "\n{:<8} {:>5} {:>8} {:>4}  {:<27} {:<27} {:>10}",
            "model", "steps", "guidance", "seed", "agreement, %", "FD-own", "pictures/s"
        ));
        for (steps, weight) in STEPS.iter().map(|&steps| (steps, 0.0)).chain([(16, GUIDANCE)]) {
            for seed in SEEDS {
                for Named { name, model } in models {
                    let n_classes = model.image().n_classes;
                    let requests: Vec<SampleRequest> = (0..plan.samples * n_classes)
                        .map(|index| model.request(Some(index % n_classes), seed * 1_000_000 + index as u64))
                        .collect();
                    let settings = settings(model, steps, weight);
                    let (mut rows, mut seconds): (Vec<SampledRow>, f64) = (Vec::new(), 0.0);
                    for batch in requests.chunks(BATCH) {
                        let start = Instant::now();
                        let observe = &mut |_: &StepView<'_>| ControlFlow::Continue(());
                        rows.extend(model.generate(batch, &settings, SamplingPath::Clean, observe)?.rows);
                        seconds += start.elapsed().as_secs_f64();
                    }
                    let pictures = model.pictures(&rows.iter().collect::<Vec<_>>())?;
                    let pixels: Vec<&[u8]> = pictures.iter().map(Picture::pixels).collect();
                    let found = self.classifier.classify(&pixels)?;
                    let asked: Vec<u32> = (0..requests.len()).map(|index| (index % n_classes) as u32).collect();
                    report.line(format!(
                        "{name:<8} {steps:>5} {weight:>8} {seed:>4}  {:<27} {:<27} {:>10.1}",
                        percent(&agreement(&found.labels, &asked)),
                        self.distance(found.features)?,
                        requests.len() as f64 / seconds
                    ));
                }
            }
        }
        Ok(())
    }
}

fn agreement(found: &[u32], asked: &[u32]) -> anyhow::Result<Estimate> {
    let equal: Vec<f64> = found.iter().zip(asked).map(|(a, b)| f64::from(u8::from(a == b))).collect();
    Estimate::of_mean(&equal, SEED).ok_or_else(|| anyhow!("there is no picture"))
}

fn percent(estimate: &anyhow::Result<Estimate>) -> String {
    match estimate {
        Ok(Estimate { value, interval }) => {
            with_interval(100.0 * value, interval.map(|ends| ends.map(|end| 100.0 * end)), 1)
        }
        Err(error) => error.to_string(),
    }
}
