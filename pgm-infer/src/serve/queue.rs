//! The places of a model's queue.
//!
//! A request holds one place per sample. They are free when the client was served or has left, and the engine has dropped
//! the request's listeners. So the number of waiting samples is bounded whatever clients do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::ApiError;
use super::metrics::Metrics;

/// Counts the places of one model that are taken.
#[derive(Debug)]
pub struct Queue {
    n_places: usize,
    n_taken: AtomicUsize,
    metrics: Arc<Metrics>,
    model: String,
}

impl Queue {
    /// An empty queue.
    pub fn new(n_places: usize, metrics: &Arc<Metrics>, model: &str) -> Arc<Self> {
        let (metrics, model) = (Arc::clone(metrics), model.to_string());
        Arc::new(Self { n_places, n_taken: AtomicUsize::new(0), metrics, model })
    }

    /// Whether no place is free.
    pub fn is_full(&self) -> bool {
        self.n_taken.load(Ordering::Relaxed) >= self.n_places
    }

    /// Takes `n` places.
    ///
    /// # Errors
    /// [`ApiError::queue_full`] when fewer are free.
    pub fn take(self: &Arc<Self>, n: usize) -> Result<QueuePermit, ApiError> {
        let fits = |taken: usize| taken.checked_add(n).filter(|taken| *taken <= self.n_places);
        match self.n_taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => {
                self.metrics.change_in_flight(&self.model, n as i64);
                Ok(QueuePermit { queue: Arc::clone(self), n })
            }
            Err(_) => Err(ApiError::queue_full()),
        }
    }
}

/// Places of a [`Queue`]. Dropping it frees them.
#[derive(Debug)]
pub struct QueuePermit {
    queue: Arc<Queue>,
    n: usize,
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        self.queue.n_taken.fetch_sub(self.n, Ordering::Relaxed);
        self.queue.metrics.change_in_flight(&self.queue.model, -(self.n as i64));
    }
}
