//! How much of a stream waits for a client that reads slowly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::sample::{RowChange, SampleSettings};

/// What every stream may hold.
const LEAST: usize = 1 << 20;
/// How often all of a sample's tokens may wait.
const TIMES: usize = 4;

/// Bytes of steps that wait for a client. The engine does not wait for it, so a stream that is read too slowly ends.
#[derive(Clone, Debug)]
pub struct Backlog {
    waiting: Arc<AtomicUsize>,
    is_full: Arc<AtomicBool>,
    most: usize,
}

impl Backlog {
    /// A backlog for rows of `n_tokens` in all.
    pub fn new(n_tokens: usize, settings: &SampleSettings) -> Self {
        let most = LEAST + TIMES * n_tokens * token_bytes(settings.alternatives);
        Self { waiting: Arc::default(), is_full: Arc::default(), most }
    }

    /// Adds a step, unless the client is too far behind.
    #[must_use]
    pub fn push(&self, change: &RowChange) -> bool {
        let bytes = bytes_of(change);
        let has_room = self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.most;
        self.is_full.fetch_or(!has_room, Ordering::Relaxed);
        has_room
    }

    /// A step was taken.
    pub fn pop(&self, change: &RowChange) {
        self.waiting.fetch_sub(bytes_of(change), Ordering::Relaxed);
    }

    /// Whether a step has had no room, so that the stream has ended.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }
}

fn token_bytes(n_alternatives: usize) -> usize {
    size_of::<(usize, u32)>() + size_of::<f64>() + (n_alternatives + 1) * size_of::<(u32, f64)>()
}

fn bytes_of(change: &RowChange) -> usize {
    let n_alternatives = change.alternatives.first().map_or(0, Vec::len);
    size_of::<RowChange>()
        + change.decoded.len() * token_bytes(n_alternatives)
        + change.forgotten.len() * size_of::<usize>()
}
