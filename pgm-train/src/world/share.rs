//! Which part of the work is whose.

use std::ops::Range;

/// The part of a process in the work of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// The process, from 0.
    pub rank: usize,
    /// The number of processes.
    pub size: usize,
}

impl Default for Share {
    /// The whole work.
    fn default() -> Self {
        Self { rank: 0, size: 1 }
    }
}

impl Share {
    /// The micro-batches of this process among the `accumulate` of a step.
    pub fn micro_batches(self, accumulate: usize) -> Range<usize> {
        let each = accumulate / self.size;
        self.rank * each..(self.rank + 1) * each
    }

    /// Whether a batch of a validation is this process's.
    pub fn has_batch(self, index: usize) -> bool {
        index % self.size == self.rank
    }

    /// Refuses a number of micro-batches that does not divide among the processes.
    ///
    /// # Errors
    /// A sentence with the numbers that do.
    pub(crate) fn check(self, accumulate: usize, batch: usize) -> Result<(), String> {
        let Self { size, .. } = self;
        if accumulate.is_multiple_of(size) {
            return Ok(());
        }
        let divisors = |of: usize| (1..=of).filter(move |n| of.is_multiple_of(*n));
        let listed = |numbers: Vec<usize>| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let fitting: Vec<usize> = divisors(batch).filter(|n| n.is_multiple_of(size)).take(4).collect();
        let accumulates = match fitting.is_empty() {
            true => format!("no divisor of batch = {batch} is a multiple of {size}"),
            false => format!("set accumulate to {}", listed(fitting)),
        };
        Err(format!(
            "the {accumulate} micro-batches of a step do not divide among {size} ranks; {accumulates}, or start one of {} ranks",
            listed(divisors(accumulate).collect())
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_all_ranks_are_the_whole_once() {
        for (size, accumulate) in [(1, 1), (2, 4), (3, 6), (4, 4)] {
            let ranks = (0..size).map(|rank| Share { rank, size });
            let parts: Vec<usize> = ranks.clone().flat_map(|share| share.micro_batches(accumulate)).collect();
            assert_eq!(parts, (0..accumulate).collect::<Vec<_>>());
            assert!((0..7).all(|batch| ranks.clone().filter(|share| share.has_batch(batch)).count() == 1));
        }
    }

    #[test]
    fn a_number_that_does_not_divide_is_refused_with_those_that_do() {
        let share = |size| Share { rank: 0, size };
        assert_eq!(share(2).check(4, 16), Ok(()));
        let message = share(3).check(4, 12).unwrap_err();
        assert!(message.contains("set accumulate to 3, 6, 12, or start one of 1, 2, 4 ranks"), "{message}");
        let message = share(3).check(4, 16).unwrap_err();
        assert!(message.contains("no divisor of batch = 16 is a multiple of 3"), "{message}");
    }
}
