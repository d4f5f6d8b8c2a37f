//! What `/metrics` shows, in Prometheus' text form.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::engine::{StepMetrics, StepObserver};

/// A model's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfModel {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfAnswer {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfSample {
    model: String,
    finish: &'static str,
}

type Histograms = Family<OfModel, Histogram, fn() -> Histogram>;

/// Counters of a server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<OfAnswer, Counter>,
    samples: Family<OfSample, Counter>,
    /// Samples that were admitted and have not ended, by model.
    pub in_flight: Family<OfModel, Gauge>,
    waiting: Family<OfModel, Gauge>,
    tokens: Family<OfModel, Counter<u64, AtomicU64>>,
    device_errors: Family<OfModel, Counter>,
    device_failed_at: Family<OfModel, Gauge>,
    batch_rows: Histograms,
    step_seconds: Histograms,
}

impl Default for Metrics {
    fn default() -> Self {
        fn rows() -> Histogram {
            Histogram::new(exponential_buckets(1.0, 2.0, 9))
        }
        fn seconds() -> Histogram {
            Histogram::new(exponential_buckets(0.000_5, 2.0, 16))
        }
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            samples: Family::default(),
            in_flight: Family::default(),
            waiting: Family::default(),
            tokens: Family::default(),
            device_errors: Family::default(),
            device_failed_at: Family::default(),
            batch_rows: Family::new_with_constructor(rows as fn() -> Histogram),
            step_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
        };
        let registry = &mut metrics.registry;
        registry.register("pgm_http_requests", "Requests by route and status", metrics.requests.clone());
        registry.register("pgm_samples", "Samples that ended, by how", metrics.samples.clone());
        registry.register("pgm_samples_in_flight", "Samples admitted and not ended", metrics.in_flight.clone());
        registry.register("pgm_samples_waiting", "Samples waiting for a seat in the batch", metrics.waiting.clone());
        registry.register("pgm_tokens", "Tokens decoded", metrics.tokens.clone());
        registry.register("pgm_device_errors", "Steps that failed on the device", metrics.device_errors.clone());
        let help = "When the last step failed, in seconds since 1970; 0 if it did not";
        registry.register("pgm_device_failed_at_seconds", help, metrics.device_failed_at.clone());
        registry.register("pgm_batch_rows", "Rows that shared a step", metrics.batch_rows.clone());
        registry.register("pgm_step_seconds", "Time of a step", metrics.step_seconds.clone());
        metrics
    }
}

/// The label of a model.
pub fn of(model: &str) -> OfModel {
    OfModel { model: model.to_string() }
}

impl Metrics {
    /// Counts an answered request.
    pub fn answered(&self, route: &str, status: u16) {
        self.requests.get_or_create(&OfAnswer { route: route.to_string(), status }).inc();
    }

    /// Counts a sample that ended.
    pub fn ended(&self, model: &str, finish: &'static str) {
        self.samples.get_or_create(&OfSample { model: model.to_string(), finish }).inc();
    }

    /// What an engine is to be opened with, so that its steps are counted.
    pub fn watch(self: &Arc<Self>, model: &str) -> StepObserver {
        let (metrics, label) = (Arc::clone(self), of(model));
        Arc::new(move |tick: &StepMetrics| {
            metrics.waiting.get_or_create(&label).set(tick.n_waiting as i64);
            if tick.n_rows == 0 {
                return;
            }
            metrics.tokens.get_or_create(&label).inc_by(tick.n_decoded as u64);
            metrics.batch_rows.get_or_create(&label).observe(tick.n_rows as f64);
            metrics.step_seconds.get_or_create(&label).observe(tick.duration.as_secs_f64());
            let failed_at = if tick.failed { super::now() as i64 } else { 0 };
            metrics.device_failed_at.get_or_create(&label).set(failed_at);
            if tick.failed {
                metrics.device_errors.get_or_create(&label).inc();
            }
        })
    }

    /// Whether the last step of a model failed on its device, within the last minute: a server that gets no requests for
    /// being unwell is then asked again.
    pub fn is_failing(&self, model: &str) -> bool {
        super::now() as i64 - self.device_failed_at.get_or_create(&of(model)).get() < 60
    }

    /// All of them as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}
