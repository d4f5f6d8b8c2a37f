//! How a replica of a model does: the samples that it has, and whether its device works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::InferError;

/// Whether a replica works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// It takes samples.
    Working,
    /// Its last step failed on the device. While others work it gets no new samples; a minute later it tries a step of its
    /// own, see [`EngineOptions::probe_after`](super::EngineOptions::probe_after).
    Failing,
    /// Its thread has ended, by a bug of this crate.
    Ended,
}

/// A copy of an engine's model on one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The name of its device; empty for an engine that was given none.
    pub device: String,
    /// Its samples that wait or run, and the work beside them.
    pub n_samples: usize,
    /// Whether it works.
    pub state: ReplicaState,
}

/// What a replica's thread and the engine know of each other.
#[derive(Debug)]
pub(super) struct ReplicaStatus {
    /// The number of the replica, if the engine has several.
    pub(super) number: Option<usize>,
    /// The name of its device.
    pub(super) device: String,
    load: AtomicUsize,
    is_failing: AtomicBool,
}

impl ReplicaStatus {
    pub(super) fn new(number: Option<usize>, device: String) -> Arc<Self> {
        Arc::new(Self { number, device, load: AtomicUsize::new(0), is_failing: AtomicBool::new(false) })
    }

    /// Samples that wait or run.
    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::SeqCst)
    }

    /// Whether its last step failed on the device.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::SeqCst)
    }

    pub(super) fn set_failing(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Ordering::SeqCst);
    }

    /// A failure of the device, which is named where there are several.
    pub(super) fn error(&self, error: &InferError) -> InferError {
        let message = match error {
            InferError::Device(message) => message.clone(),
            error => error.to_string(),
        };
        InferError::Device(match self.number {
            Some(number) if self.device.is_empty() => format!("replica {number}: {message}"),
            Some(number) => format!("replica {number} on {}: {message}", self.device),
            None => message,
        })
    }
}

/// Counts one sample of a replica.
#[derive(Debug)]
pub(super) struct LoadGuard(Arc<ReplicaStatus>);

impl LoadGuard {
    pub(super) fn new(status: &Arc<ReplicaStatus>) -> Self {
        status.load.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(status))
    }
}

impl Drop for LoadGuard {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Ordering::SeqCst);
    }
}
