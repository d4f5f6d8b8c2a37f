//! The iterator that all loaders share.

use std::ops::Range;

use burn::data::dataloader::{DataLoaderIterator, Progress};
use burn::data::dataset::DatasetError;

/// Calls `load` at an index and yields the batches that it returns one by one, each of which is one index further.
pub(crate) struct BatchIterator<F, B> {
    next: usize,
    range: Range<usize>,
    load: F,
    loaded: Vec<B>,
}

impl<B, F: Fn(usize) -> Result<Vec<B>, DatasetError>> BatchIterator<F, B> {
    pub(crate) fn new(range: Range<usize>, load: F) -> Self {
        Self { next: range.start, range, load, loaded: Vec::new() }
    }
}

impl<B, F: Fn(usize) -> Result<Vec<B>, DatasetError>> Iterator for BatchIterator<F, B> {
    type Item = Result<B, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.range.end {
            return None;
        }
        if self.loaded.is_empty() {
            match (self.load)(self.next) {
                Ok(batches) => self.loaded = batches,
                Err(error) => return Some(Err(error)),
            }
        }
        self.next += 1;
        Some(Ok(self.loaded.remove(0)))
    }
}

impl<B, F: Fn(usize) -> Result<Vec<B>, DatasetError>> DataLoaderIterator<B> for BatchIterator<F, B> {
    fn progress(&self) -> Progress {
        Progress::new(self.next - self.range.start, self.range.len(), Some("batches".to_string()))
    }
}
