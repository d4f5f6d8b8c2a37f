//! The figures of burn-train's dashboard, and a renderer for runs without a terminal, which shows nothing.
//!
//! The training loop computes its figures once, for `metrics.jsonl`, the dashboard and the plain lines. A [`Gauge`] is a
//! metric that picks one of them out of [`StepFigures`].

use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn::train::logger::{EvaluationProgressLogger, MetricLogger, TrainingProgressLogger};
use burn::train::metric::store::{EpochSummary, MetricsUpdate, Split};
use burn::train::metric::{
    Metric, MetricAttributes, MetricDefinition, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};
use burn::train::renderer::{
    EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation, MetricsRendererTraining,
};

/// The figures of one line of training or of one validation.
#[derive(Clone, Debug, Default)]
pub(crate) struct StepFigures {
    pub(crate) loss: f64,
    pub(crate) perplexity: f64,
    pub(crate) lr: f64,
    pub(crate) grad_norm: f64,
    pub(crate) tokens_per_second: f64,
}

/// One of the figures as a metric.
#[derive(Clone)]
pub(crate) struct Gauge {
    name: Arc<String>,
    pick: fn(&StepFigures) -> f64,
    higher_is_better: bool,
    value: f64,
}

impl Gauge {
    pub(crate) fn new(name: &str, higher_is_better: bool, pick: fn(&StepFigures) -> f64) -> Self {
        Self { name: Arc::new(name.to_string()), pick, higher_is_better, value: 0.0 }
    }

    fn entry(&self) -> SerializedEntry {
        let small = self.value != 0.0 && self.value.abs() < 0.01;
        let shown = if small { format!("{:.3e}", self.value) } else { format!("{:.4}", self.value) };
        SerializedEntry::new(shown, self.value.to_string())
    }
}

impl Metric for Gauge {
    type Input = StepFigures;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        NumericAttributes { unit: None, higher_is_better: self.higher_is_better }.into()
    }

    fn update(
        &mut self,
        figures: &StepFigures,
        _metadata: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        self.value = (self.pick)(figures);
        Ok(self.entry())
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        Ok(self.entry())
    }

    fn clear(&mut self) {}
}

impl Numeric for Gauge {
    fn value(&self) -> Option<NumericEntry> {
        Some(NumericEntry::Value(self.value))
    }

    fn running_value(&self) -> Option<NumericEntry> {
        self.value()
    }

    fn final_value(&self) -> NumericEntry {
        NumericEntry::Final(self.value)
    }
}

/// Shows nothing: the caller prints plain lines.
pub(crate) struct Quiet;

impl MetricsRendererTraining for Quiet {
    fn update_train(&mut self, _state: MetricState) {}
    fn update_valid(&mut self, _state: MetricState) {}
}

impl MetricsRendererEvaluation for Quiet {
    fn update_test(&mut self, _name: EvaluationName, _state: MetricState) {}
}

impl TrainingProgressLogger for Quiet {
    fn start(&mut self, _epochs: usize, _first: usize, _items: Option<usize>, _label: Option<&str>) {}
    fn update_epoch(&mut self, _epoch: usize) {}
    fn start_split(&mut self, _split: &str, _items: usize) {}
    fn update_split(&mut self, _items: usize) {}
    fn end_split(&mut self) {}
    fn end(&mut self) {}
    fn log_event_training(&mut self, _event: String) {}
}

impl EvaluationProgressLogger for Quiet {
    fn start_global_progress(&mut self, _tests: usize) {}
    fn start_test(&mut self, _name: &str, _items: usize) {}
    fn update_test_progress(&mut self, _items: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _event: String) {}
}

impl MetricsRenderer for Quiet {
    fn manual_close(&mut self) {}
    fn register_metric(&mut self, _definition: MetricDefinition) {}
}

/// Keeps burn-train from writing log files of its own: `metrics.jsonl` is the record of a run.
pub(crate) struct NoLog;

impl MetricLogger for NoLog {
    fn log(&mut self, _update: MetricsUpdate, _epoch: usize, _split: &Split) {}

    fn read_numeric(&mut self, _name: &str, _epoch: usize, _split: &Split) -> Result<Vec<NumericEntry>, String> {
        Ok(Vec::new())
    }

    fn log_metric_definition(&mut self, _definition: MetricDefinition) {}
    fn log_epoch_summary(&mut self, _summary: EpochSummary) {}
}
