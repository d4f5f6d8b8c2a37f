//! How the rows of a step are shared between requests.
//!
//! Requests get rows in turn, one each, so that a request for many samples does not hold up a small one. Where a step takes
//! the longer the more rows it has (a CPU, or a GPU that is full), a large request must not fill the rest of the batch
//! either: then a small request would wait for all rows in each of its steps. So the batch is bounded such that with k
//! requests a step takes at most k times as long as it would for one of them alone.

use std::collections::BTreeMap;
use std::time::Duration;

/// Steps of one size that count for its mean duration.
const MEMORY: f64 = 8.0;

/// The samples of one request that are not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    /// Samples in the batch.
    pub(super) running: usize,
    /// Samples that wait.
    pub(super) waiting: usize,
}

/// The rows of each request, given in the order of their turns, of at most `max_batch`. `fixed_rows` is the fixed cost of a
/// step, see [`StepCost::fixed_rows`].
///
/// A request with a row keeps at least one: with more requests than rows the others wait until a sample is done.
pub(super) fn share(requests: &[Demand], max_batch: usize, fixed_rows: f64) -> Vec<usize> {
    let total = |demand: &Demand| demand.running + demand.waiting;
    let mut order: Vec<usize> = (0..requests.len()).filter(|&index| total(&requests[index]) > 0).collect();
    order.sort_by_key(|&index| requests[index].running == 0);
    order.truncate(max_batch);
    let least = order.iter().map(|&index| total(&requests[index])).min().unwrap_or(0);
    let most = match order.len() {
        0 | 1 => max_batch,
        n => {
            let extra = ((n - 1) as f64 * fixed_rows).min(max_batch as f64) as usize;
            n.saturating_mul(least).saturating_add(extra).min(max_batch)
        }
    };
    let mut rows = vec![0; requests.len()];
    let mut n_rows = 0;
    while n_rows < most {
        let before = n_rows;
        for &index in &order {
            if n_rows < most && rows[index] < total(&requests[index]) {
                rows[index] += 1;
                n_rows += 1;
            }
        }
        if n_rows == before {
            break;
        }
    }
    rows
}

/// What a step costs, as measured: the mean duration of the steps of each size.
#[derive(Debug, Default)]
pub(super) struct StepCost {
    // By number of rows: the mean in seconds, and how many steps it stands for, at most `MEMORY`.
    seconds: BTreeMap<usize, (f64, f64)>,
}

impl StepCost {
    /// Counts a step.
    pub(super) fn record(&mut self, n_rows: usize, duration: Duration) {
        let (mean, n) = self.seconds.entry(n_rows).or_default();
        *n = (*n + 1.0).min(MEMORY);
        *mean += (duration.as_secs_f64() - *mean) / *n;
    }

    /// The fixed cost of a step, in rows: a step of n rows takes as long as n and this many rows. 0 while steps of one size
    /// only were measured; infinite if more rows cost nothing.
    pub(super) fn fixed_rows(&self) -> f64 {
        if self.seconds.len() < 2 {
            return 0.0;
        }
        // Weighted least squares: seconds = fixed + per_row * rows.
        let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
            self.seconds.iter().map(|(&rows, &(mean, weight))| weight * of(rows as f64, mean)).sum()
        };
        let weight = sum(&|_, _| 1.0);
        let (rows, seconds) = (sum(&|rows, _| rows) / weight, sum(&|_, seconds| seconds) / weight);
        let variance = sum(&|n, _| (n - rows).powi(2));
        let per_row = sum(&|n, s| (n - rows) * (s - seconds)) / variance;
        if per_row <= 0.0 { f64::INFINITY } else { ((seconds - per_row * rows) / per_row).max(0.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(running: usize, waiting: usize) -> Demand {
        Demand { running, waiting }
    }

    #[test]
    fn rows_are_given_in_turn() {
        let many = f64::INFINITY;
        for (requests, max_batch, expected) in [
            (vec![demand(0, 64)], 16, vec![16]),
            (vec![demand(16, 48), demand(0, 1)], 16, vec![15, 1]),
            (vec![demand(16, 48), demand(0, 64)], 16, vec![8, 8]),
            (vec![demand(5, 0), demand(0, 2), demand(0, 9)], 7, vec![3, 2, 2]),
            // A request that runs keeps one row; the others wait for their turn.
            (vec![demand(0, 3), demand(2, 5), demand(0, 1)], 2, vec![1, 1, 0]),
            (vec![demand(0, 3), demand(1, 5), demand(0, 1)], 1, vec![0, 1, 0]),
            (vec![demand(0, 0), demand(0, 1)], 4, vec![0, 1]),
            (vec![], 4, vec![]),
        ] {
            assert_eq!(share(&requests, max_batch, many), expected, "{requests:?}");
        }
    }

    #[test]
    fn a_step_takes_at_most_as_many_times_as_long_as_alone_as_there_are_requests() {
        for fixed in [0.0, 0.5, 3.0, 40.0] {
            let seconds = |rows: usize| fixed + rows as f64;
            for requests in [
                vec![demand(16, 48), demand(0, 1)],
                vec![demand(16, 48), demand(0, 1), demand(0, 2)],
                vec![demand(3, 0), demand(16, 40)],
                (0..7).map(|n| demand(0, 1 + n * n)).collect(),
            ] {
                let rows = share(&requests, 16, fixed);
                let step = seconds(rows.iter().sum());
                for (&own, request) in rows.iter().zip(&requests) {
                    assert!(own > 0 && own <= request.running + request.waiting);
                    assert!(step <= requests.len() as f64 * seconds(own), "{requests:?} with {fixed}: {rows:?}");
                }
            }
        }
        // Where rows cost nothing, the batch is filled.
        assert_eq!(share(&[demand(16, 48), demand(0, 1)], 16, 14.0), [15, 1]);
    }

    #[test]
    fn the_fixed_cost_is_learned_from_steps_of_several_sizes() {
        let mut cost = StepCost::default();
        assert_eq!(cost.fixed_rows(), 0.0);
        let record = |cost: &mut StepCost, rows: usize, milliseconds: u64| {
            cost.record(rows, Duration::from_millis(milliseconds));
        };
        record(&mut cost, 16, 22);
        assert_eq!(cost.fixed_rows(), 0.0);
        for _ in 0..20 {
            record(&mut cost, 2, 8);
            record(&mut cost, 16, 22);
            record(&mut cost, 4, 10);
        }
        assert!((cost.fixed_rows() - 6.0).abs() < 1e-6, "{}", cost.fixed_rows());
        let mut flat = StepCost::default();
        record(&mut flat, 1, 5);
        record(&mut flat, 16, 5);
        assert_eq!(flat.fixed_rows(), f64::INFINITY);
    }
}
