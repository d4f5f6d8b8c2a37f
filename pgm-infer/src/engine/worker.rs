//! The thread of a replica: it fills the batch from the queue and runs its steps.

use std::sync::Arc;
use std::time::Instant;

use super::options::{EngineOptions, StepMetrics};
use super::queue::{Job, NextJob, SampleQueue};
use super::sample::Sample;
use super::seats::StepCost;
use super::status::ReplicaStatus;
use super::task::Finish;
use crate::InferError;
use crate::denoise::SamplingPath;
use crate::picture::ImageModel;
use crate::sample::{Denoiser, SampleRequest, SampleRow, SampleSettings, StepResult, advance};
use crate::text::TextModel;
use crate::unwind::catch;

/// A model as its thread needs it.
pub(super) enum WorkerModel {
    Text(Arc<TextModel>),
    Images(Arc<ImageModel>),
}

impl WorkerModel {
    fn denoiser(&self) -> Box<dyn Denoiser + '_> {
        match self {
            Self::Text(model) => model.denoiser(SamplingPath::Clean),
            Self::Images(model) => model.denoiser(SamplingPath::Clean),
        }
    }

    fn mask_index(&self) -> usize {
        match self {
            Self::Text(model) => model.config().backbone().mask_index,
            Self::Images(model) => model.config().backbone().mask_index,
        }
    }

    // A row with which the device is tried.
    fn probe(&self) -> Result<SampleRequest, InferError> {
        match self {
            Self::Text(model) => Ok(model.row(&[], None, 0)?.request),
            Self::Images(model) => Ok(model.request(None, 0)),
        }
    }
}

pub(super) struct Worker<'a> {
    model: &'a WorkerModel,
    options: EngineOptions,
    queue: SampleQueue,
    status: Arc<ReplicaStatus>,
    batch: Vec<Sample>,
    cost: StepCost,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        model: &'a WorkerModel,
        options: EngineOptions,
        queue: SampleQueue,
        status: Arc<ReplicaStatus>,
    ) -> Self {
        Self { model, options, queue, status, batch: Vec::new(), cost: StepCost::default() }
    }

    /// Runs until the engine is dropped.
    pub(super) fn run(mut self) {
        loop {
            let patience = self.status.is_failing().then_some(self.options.probe_after);
            match self.queue.next_job(patience) {
                NextJob::Job(job) => {
                    if !self.work(job) {
                        return self.cancel_all();
                    }
                }
                NextJob::Late => self.probe(),
                NextJob::Gone => return,
            }
        }
    }

    // Works until there is nothing left to do; false once the engine is dropped.
    fn work(&mut self, job: Job) -> bool {
        // One denoiser for as long as there is work: what it caches of the rows is freed when they are done.
        let denoiser = self.model.denoiser();
        denoiser.bound_cache(self.options.cache_bytes);
        self.queue.add(job, denoiser.as_ref());
        while self.queue.len() + self.batch.len() > 0 {
            if !self.queue.add_submitted(denoiser.as_ref()) {
                return false;
            }
            self.fill_batch();
            self.step(denoiser.as_ref());
        }
        self.report(&StepMetrics::idle(self.status.number));
        true
    }

    // One step of a row that nobody asked for: a replica that failed gets no others.
    fn probe(&self) {
        let began = Instant::now();
        let step = || {
            let denoiser = self.model.denoiser();
            // With one step it decodes something.
            let settings = SampleSettings { steps: 1, ..SampleSettings::default() };
            let mut row = denoiser.row(&self.model.probe()?, &settings)?;
            advance(denoiser.as_ref(), &mut [&mut row])
        };
        let result = catch(step).unwrap_or_else(|message| Err(InferError::Device(message)));
        // A row that cannot be started says nothing of the device.
        let failed = matches!(result, Err(InferError::Device(_)));
        self.status.set_failing(failed);
        let duration = began.elapsed();
        self.report(&StepMetrics { n_rows: 1, duration, failed, ..StepMetrics::idle(self.status.number) });
    }

    fn cancel_all(mut self) {
        for sample in self.batch.drain(..).chain(self.queue.drain()) {
            sample.finish(self.model.mask_index(), Finish::Cancelled);
        }
    }

    // Cancelled and late samples end; then the requests share the rows.
    fn fill_batch(&mut self) {
        let now = Instant::now();
        let mut ended: Vec<Sample> = self.batch.extract_if(.., |sample| sample.must_end(now).is_some()).collect();
        ended.extend(self.queue.remove_ended(now));
        for sample in ended {
            let finish = sample.must_end(now).unwrap_or(Finish::Cancelled);
            sample.finish(self.model.mask_index(), finish);
        }
        self.queue.fill(&mut self.batch, self.options.max_batch, self.cost.fixed_rows());
        self.batch.iter_mut().for_each(|sample| _ = sample.started.get_or_insert(now));
    }

    fn step(&mut self, denoiser: &dyn Denoiser) {
        let (mask, began, n_rows) = (self.model.mask_index(), Instant::now(), self.batch.len());
        if n_rows == 0 {
            let cache_bytes = denoiser.cache_bytes();
            return self.report(&StepMetrics { cache_bytes, ..StepMetrics::idle(self.status.number) });
        }
        let mut rows: Vec<&mut SampleRow> = self.batch.iter_mut().map(|sample| &mut sample.row).collect();
        // A backend panics if its device is lost.
        let result = catch(|| advance(denoiser, &mut rows)).unwrap_or_else(|message| Err(InferError::Device(message)));
        let changes = result.as_ref().map_or(&[][..], |result| &result.changes);
        let n_decoded = changes.iter().flatten().map(|change| change.decoded.len()).sum();
        let (n_waiting, failed, duration) = (self.queue.len(), result.is_err(), began.elapsed());
        // A step that decodes nothing may need no evaluation.
        if !failed && n_decoded > 0 {
            self.cost.record(n_rows, duration);
        }
        // A step without an evaluation says nothing of the device, and neither does a row that cannot be evaluated.
        match &result {
            Ok(StepResult { evaluated: false, .. }) | Err(InferError::Request(_)) => {}
            _ => self.status.set_failing(failed),
        }
        let (replica, cache_bytes) = (self.status.number, denoiser.cache_bytes());
        self.report(&StepMetrics { replica, n_rows, n_waiting, n_decoded, cache_bytes, duration, failed });
        let samples = self.batch.drain(..);
        match result {
            Ok(result) => {
                let stepped = samples.zip(result.changes).filter_map(|(sample, change)| sample.stepped(mask, change));
                self.batch = stepped.collect();
            }
            Err(error) => {
                // It is unknown which row caused it, so all of them fail.
                samples.for_each(|sample| sample.fail(mask, self.status.error(&error)));
            }
        }
    }

    fn report(&self, metrics: &StepMetrics) {
        if let Some(watch) = &self.options.watch {
            let _ = catch(|| watch(metrics));
        }
    }
}
