//! The order of rows in training: one permutation per epoch, computed entry by entry.
//!
//! No permutation is stored, so the order costs no memory for a data set of any size, and a resumed run reads the same
//! rows as an uninterrupted one.

use crate::mix::mix;

/// The order of training rows for one seed.
#[derive(Clone, Copy, Debug)]
pub struct RowOrder {
    seed: u64,
    n_rows: u64,
}

impl RowOrder {
    /// An order of `n_rows` rows.
    ///
    /// # Panics
    /// If `n_rows` is 0. Every split of a data folder has at least one row.
    pub fn new(seed: u64, n_rows: usize) -> Self {
        assert!(n_rows > 0, "a row order needs at least one row");
        Self { seed, n_rows: n_rows as u64 }
    }

    /// The indices of the `batch` rows of an optimizer step. Each epoch takes every row once, in its own order.
    pub fn step(&self, step: u64, batch: usize) -> Vec<usize> {
        let start = step * batch as u64;
        (start..start + batch as u64).map(|index| self.row(index)).collect()
    }

    /// The row at `index` of the infinite sequence of epochs.
    fn row(&self, index: u64) -> usize {
        let epoch = index / self.n_rows;
        let key = mix(self.seed ^ mix(epoch));
        // Cycle walking: a permutation of a power of four, applied until the result is below `n_rows`, permutes the rows.
        let mut position = self.permute(index % self.n_rows, key);
        while position >= self.n_rows {
            position = self.permute(position, key);
        }
        position as usize
    }

    // A Feistel network: six rounds over 2 * half bits.
    fn permute(&self, value: u64, key: u64) -> u64 {
        let half = (64 - (self.n_rows - 1).leading_zeros()).div_ceil(2).max(1);
        let low_bits = (1_u64 << half) - 1;
        let (mut left, mut right) = (value >> half, value & low_bits);
        for round in 0..6 {
            (left, right) = (right, left ^ (mix(right ^ key.wrapping_add(round)) & low_bits));
        }
        left << half | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_epoch_takes_every_row_once(seed in any::<u64>(), n_rows in 1..700_usize, epoch in 0..5_u64) {
            let order = RowOrder::new(seed, n_rows);
            let mut rows: Vec<usize> =
                (0..n_rows as u64).map(|index| order.row(epoch * n_rows as u64 + index)).collect();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..n_rows).collect::<Vec<_>>());
        }

        #[test]
        fn steps_are_consecutive_parts_of_one_sequence(seed in any::<u64>(), n_rows in 1..90_usize, batch in 1..20_usize) {
            let order = RowOrder::new(seed, n_rows);
            let stepped: Vec<usize> = (0..9).flat_map(|step| order.step(step, batch)).collect();
            prop_assert_eq!(stepped, (0..9 * batch as u64).map(|index| order.row(index)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let epoch =
            |seed, epoch: u64| (0..100).map(|i| RowOrder::new(seed, 100).row(epoch * 100 + i)).collect::<Vec<_>>();
        assert_ne!(epoch(1, 0), epoch(1, 1));
        assert_ne!(epoch(1, 0), epoch(2, 0));
        // Not the identity: few rows keep their place.
        assert!(epoch(1, 0).iter().enumerate().filter(|(i, row)| i == *row).count() < 10);
    }
}
