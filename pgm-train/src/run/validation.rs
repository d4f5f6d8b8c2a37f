//! The figures of a validation, from the sums of its rows.

use std::ops::Range;

use super::history::ValidationLine;
use crate::judge::metrics::Estimate;

/// Seed of the bootstrap of the interval.
const INTERVAL_SEED: u64 = 0;

/// The sums of the rows of a validation so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct ValidationSums {
    rows: Vec<RowSum>,
}

#[derive(Clone, Copy, Debug, Default)]
struct RowSum {
    nats: f64,
    n_draws: usize,
    n_tokens: usize,
}

impl ValidationSums {
    /// Adds one draw of each of `rows`, which have `tokens` tokens that count.
    pub(crate) fn add(&mut self, rows: &Range<usize>, tokens: &[usize], nats: &[f64]) {
        if self.rows.len() < rows.end {
            self.rows.resize(rows.end, RowSum::default());
        }
        for ((row, &n_tokens), nats) in self.rows[rows.clone()].iter_mut().zip(tokens).zip(nats) {
            *row = RowSum { nats: row.nats + nats, n_draws: row.n_draws + 1, n_tokens };
        }
    }

    /// The nats per token of all rows with their 95 % interval; absent when they are not finite.
    pub(crate) fn line(&self, step: usize) -> Option<ValidationLine> {
        let mean = |row: &RowSum| (row.nats / row.n_draws.max(1) as f64, row.n_tokens as f64);
        let rows: Vec<(f64, f64)> = self.rows.iter().map(mean).collect();
        let per_token = |rows: &[(f64, f64)]| {
            let (nats, tokens) = rows.iter().fold((0.0, 0.0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
            nats / tokens
        };
        let estimate = Estimate::of(&rows, per_token, INTERVAL_SEED)?;
        Some(ValidationLine::new(step, estimate.value, estimate.interval))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_averaged_and_rows_weigh_by_their_tokens() {
        let mut sums = ValidationSums::default();
        sums.add(&(0..2), &[4, 2], &[8.0, 3.0]);
        sums.add(&(0..2), &[4, 2], &[4.0, 5.0]);
        sums.add(&(2..3), &[6], &[5.0]);
        sums.add(&(2..3), &[6], &[7.0]);
        let line = sums.line(7).unwrap();
        assert_eq!((line.step, line.val_nelbo), (7, (6.0 + 4.0 + 6.0) / 12.0));
        let [low, high] = line.val_nelbo_interval.unwrap();
        assert!((1.0..=line.val_nelbo).contains(&low) && (line.val_nelbo..=2.0).contains(&high), "{line:?}");
    }

    #[test]
    fn a_sum_that_is_not_finite_gives_no_line() {
        let mut sums = ValidationSums::default();
        assert!(sums.line(0).is_none());
        sums.add(&(0..2), &[4, 4], &[1.0, f64::NAN]);
        assert!(sums.line(0).is_none());
    }
}
