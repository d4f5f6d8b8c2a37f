//! The figures of a validation, from the sums of its rows.

use std::ops::Range;

use serde::{Deserialize, Deserializer, Serialize};

use super::history::ValidationLine;
use crate::judge::metrics::Estimate;

/// Seed of the bootstrap of the interval.
const INTERVAL_SEED: u64 = 0;

/// The sums of the rows of a validation so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct ValidationSums {
    rows: Vec<RowSum>,
}

/// One draw of each of some rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MeasuredRows {
    pub(crate) rows: Range<usize>,
    /// The tokens of each row that count.
    pub(crate) tokens: Vec<usize>,
    /// The sum of each row. JSON knows no infinity, so what is not finite is read back as NaN.
    #[serde(deserialize_with = "null_is_nan")]
    pub(crate) nats: Vec<f64>,
}

fn null_is_nan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let numbers: Vec<Option<f64>> = Deserialize::deserialize(deserializer)?;
    Ok(numbers.into_iter().map(|number| number.unwrap_or(f64::NAN)).collect())
}

#[derive(Clone, Copy, Debug, Default)]
struct RowSum {
    nats: f64,
    n_draws: usize,
    n_tokens: usize,
}

impl ValidationSums {
    /// Adds one draw of each of some rows.
    pub(crate) fn add(&mut self, MeasuredRows { rows, tokens, nats }: &MeasuredRows) {
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

    // As another rank receives them.
    fn measured(rows: Range<usize>, tokens: &[usize], nats: &[f64]) -> MeasuredRows {
        let measured = MeasuredRows { rows, tokens: tokens.to_vec(), nats: nats.to_vec() };
        serde_json::from_slice(&serde_json::to_vec(&measured).unwrap()).unwrap()
    }

    #[test]
    fn draws_are_averaged_and_rows_weigh_by_their_tokens() {
        let mut sums = ValidationSums::default();
        sums.add(&measured(0..2, &[4, 2], &[8.0, 3.0]));
        sums.add(&measured(0..2, &[4, 2], &[4.0, 5.0]));
        sums.add(&measured(2..3, &[6], &[5.0]));
        sums.add(&measured(2..3, &[6], &[7.0]));
        let line = sums.line(7).unwrap();
        assert_eq!((line.step, line.val_nelbo), (7, (6.0 + 4.0 + 6.0) / 12.0));
        let [low, high] = line.val_nelbo_interval.unwrap();
        assert!((1.0..=line.val_nelbo).contains(&low) && (line.val_nelbo..=2.0).contains(&high), "{line:?}");
    }

    #[test]
    fn a_sum_that_is_not_finite_gives_no_line() {
        let mut sums = ValidationSums::default();
        assert!(sums.line(0).is_none());
        sums.add(&measured(0..2, &[4, 4], &[1.0, f64::NAN]));
        assert!(sums.line(0).is_none());
    }
}
