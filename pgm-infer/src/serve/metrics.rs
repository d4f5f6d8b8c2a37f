//! Counters for `/metrics`, in OpenMetrics' text form.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::engine::{Replica, ReplicaState, StepMetrics, StepObserver};

/// The labels of a replica: `model`, and `replica` with its number where a model has several.
type ReplicaLabels = Vec<(&'static str, String)>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabel {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabel {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SampleLabel {
    model: String,
    finish: &'static str,
}

type Histograms = Family<ReplicaLabels, Histogram, fn() -> Histogram>;

/// Counters of a server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<ResponseLabel, Counter>,
    samples: Family<SampleLabel, Counter>,
    in_flight: Family<ModelLabel, Gauge>,
    replica_up: Family<ReplicaLabels, Gauge>,
    replica_info: Family<ReplicaLabels, Gauge>,
    waiting: Family<ReplicaLabels, Gauge>,
    tokens: Family<ReplicaLabels, Counter<u64, AtomicU64>>,
    device_errors: Family<ReplicaLabels, Counter>,
    device_failed_at: Family<ReplicaLabels, Gauge>,
    cache_bytes: Family<ReplicaLabels, Gauge>,
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
            replica_up: Family::default(),
            replica_info: Family::default(),
            waiting: Family::default(),
            tokens: Family::default(),
            device_errors: Family::default(),
            device_failed_at: Family::default(),
            cache_bytes: Family::default(),
            batch_rows: Family::new_with_constructor(rows as fn() -> Histogram),
            step_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
        };
        let registry = &mut metrics.registry;
        registry.register("pgm_http_requests", "Responses by route and status", metrics.requests.clone());
        registry.register("pgm_samples", "Finished samples by the reason for their end", metrics.samples.clone());
        registry.register("pgm_samples_in_flight", "Samples that hold a place of the queue", metrics.in_flight.clone());
        let help = "1 if the model's copy on this device works, 0 after a step that failed until another succeeds";
        registry.register("pgm_replica_up", help, metrics.replica_up.clone());
        let help = "The device of each of a model's copies, where there are several; always 1";
        registry.register("pgm_replica_info", help, metrics.replica_info.clone());
        registry.register(
            "pgm_samples_waiting",
            "Samples that wait for a free row of the batch",
            metrics.waiting.clone(),
        );
        registry.register("pgm_tokens", "Decoded tokens", metrics.tokens.clone());
        registry.register(
            "pgm_device_errors",
            "Sampling steps that failed on the device",
            metrics.device_errors.clone(),
        );
        let help = "Time of the last step if it failed on the device, in seconds since 1970; 0 if it succeeded";
        registry.register("pgm_device_failed_at_seconds", help, metrics.device_failed_at.clone());
        let help = "Bytes that are kept of what rows have encoded";
        registry.register("pgm_cache_bytes", help, metrics.cache_bytes.clone());
        registry.register("pgm_batch_rows", "Rows of a sampling step", metrics.batch_rows.clone());
        registry.register("pgm_step_seconds", "Duration of a sampling step", metrics.step_seconds.clone());
        metrics
    }
}

impl Metrics {
    /// Counts a response.
    pub fn count_response(&self, route: &str, status: u16) {
        self.requests.get_or_create(&ResponseLabel { route: route.to_string(), status }).inc();
    }

    /// Counts a finished sample.
    pub fn count_sample(&self, model: &str, finish: &'static str) {
        self.samples.get_or_create(&SampleLabel { model: model.to_string(), finish }).inc();
    }

    /// Adds to the samples that hold a place of the queue.
    pub fn change_in_flight(&self, model: &str, n: i64) {
        self.in_flight.get_or_create(&label(model)).inc_by(n);
    }

    /// Counts the steps of a model's engine; goes into its [`EngineOptions`](crate::engine::EngineOptions).
    pub fn watch(self: &Arc<Self>, model: &str) -> StepObserver {
        let (metrics, model) = (Arc::clone(self), model.to_string());
        let failing = Mutex::new(BTreeSet::new());
        Arc::new(move |step: &StepMetrics| {
            let label = labels(&model, step.replica);
            metrics.waiting.get_or_create(&label).set(step.n_waiting as i64);
            metrics.cache_bytes.get_or_create(&label).set(step.cache_bytes as i64);
            if step.n_rows == 0 {
                return;
            }
            metrics.tokens.get_or_create(&label).inc_by(step.n_decoded as u64);
            metrics.batch_rows.get_or_create(&label).observe(step.n_rows as f64);
            metrics.step_seconds.get_or_create(&label).observe(step.duration.as_secs_f64());
            let failed_at = if step.failed { unix_seconds() as i64 } else { 0 };
            metrics.device_failed_at.get_or_create(&label).set(failed_at);
            if step.failed {
                metrics.device_errors.get_or_create(&label).inc();
            }
            let Some(number) = step.replica else { return };
            let mut failing = failing.lock().unwrap_or_else(PoisonError::into_inner);
            if step.failed && failing.insert(number) {
                tracing::error!(
                    "model {model}, replica {number}: its device failed; it gets no requests until it works again"
                );
            } else if !step.failed && failing.remove(&number) {
                tracing::info!("model {model}, replica {number}: its device works again");
            }
        })
    }

    /// Notes which replicas of a model work.
    pub fn set_replicas(&self, model: &str, replicas: &[Replica]) {
        for (number, replica) in replicas.iter().enumerate() {
            let mut labels = labels(model, (replicas.len() > 1).then_some(number));
            let is_up = replica.state == ReplicaState::Working;
            self.replica_up.get_or_create(&labels).set(i64::from(is_up));
            if replicas.len() > 1 {
                labels.push(("device", replica.device.clone()));
                self.replica_info.get_or_create(&labels).set(1);
            }
        }
    }

    /// All counters as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

fn label(model: &str) -> ModelLabel {
    ModelLabel { model: model.to_string() }
}

fn labels(model: &str, replica: Option<usize>) -> ReplicaLabels {
    let replica = replica.map(|number| ("replica", number.to_string()));
    std::iter::once(("model", model.to_string())).chain(replica).collect()
}

/// Seconds since 1970.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
