//! The decoded part of a row.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sample::published::NetworkQuirks;

/// Identifies a row, so that a network can keep state for it between steps. No two rows of a process have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RowId(u64);

impl Default for RowId {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The tokens of one row that are known so far.
#[derive(Clone, Debug, Default)]
pub struct CleanRow {
    /// The row. A clone is the same row: only one of them may be decoded further.
    pub id: RowId,
    /// Tokens of the row, open ones included.
    pub length: usize,
    /// Positions that were given or are decoded, in the order in which they came.
    pub positions: Vec<usize>,
    /// Their tokens.
    pub tokens: Vec<u32>,
    /// The class that a class-conditional network is asked for; none for no class in particular.
    pub class: Option<usize>,
    /// The set of each token, from 0, which never falls: a token is encoded from its own set and from earlier ones, and kept.
    /// `None` encodes all tokens together and anew in each evaluation.
    pub sets: Option<Vec<usize>>,
    /// What the network does otherwise for this row, to repeat a public sampler.
    pub quirks: NetworkQuirks,
}

impl CleanRow {
    /// A new row of `length` tokens without a class, of which those at `positions` are known.
    pub fn new(length: usize, positions: Vec<usize>, tokens: Vec<u32>) -> Self {
        Self {
            id: RowId::default(),
            length,
            positions,
            tokens,
            class: None,
            sets: None,
            quirks: NetworkQuirks::default(),
        }
    }

    /// The row with its tokens in these sets.
    #[must_use]
    pub fn with_sets(self, sets: Option<Vec<usize>>) -> Self {
        Self { sets, ..self }
    }

    /// Removes the token at an index.
    pub(super) fn remove(&mut self, index: usize) {
        self.positions.remove(index);
        self.tokens.remove(index);
        // Tokens of the last step have no set yet.
        if let Some(sets) = self.sets.as_mut().filter(|sets| index < sets.len()) {
            sets.remove(index);
        }
    }

    /// The row with a class.
    #[must_use]
    pub fn with_class(self, class: Option<usize>) -> Self {
        Self { class, ..self }
    }
}
