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

    /// Refuses a number of micro-batches that does not divide among the processes. A resumed run cannot change it.
    ///
    /// # Errors
    /// A sentence with the numbers that do.
    pub(crate) fn check(self, accumulate: usize, batch: usize, resume: bool) -> Result<(), String> {
        let Self { size, .. } = self;
        if accumulate.is_multiple_of(size) {
            return Ok(());
        }
        let divisors = |of: usize| (1..=of).filter(move |n| of.is_multiple_of(*n));
        let listed = |numbers: Vec<usize>| numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let fitting: Vec<usize> = divisors(batch).filter(|n| n.is_multiple_of(size)).take(4).collect();
        let ranks = format!("start a number of ranks that divides it: {}", listed(divisors(accumulate).collect()));
        let advice = match fitting.is_empty() {
            _ if resume => ranks,
            true => format!("no divisor of batch = {batch} is a multiple of {size}: change batch, or {ranks}"),
            false => format!("set accumulate to {}, or {ranks}", listed(fitting)),
        };
        let what =
            if accumulate == 1 { "the one micro-batch".to_string() } else { format!("the {accumulate} micro-batches") };
        Err(format!("{what} of a step cannot be divided among {size} ranks; {advice}"))
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
        assert_eq!(share(2).check(4, 16, false), Ok(()));
        for (accumulate, batch, resume, says) in [
            (
                4,
                12,
                false,
                "4 micro-batches of a step cannot be divided among 3 ranks; set accumulate to 3, 6, 12, or start",
            ),
            (4, 12, true, "among 3 ranks; start a number of ranks that divides it: 1, 2, 4"),
            (4, 16, false, "no divisor of batch = 16 is a multiple of 3: change batch, or start a number"),
            (1, 6, false, "the one micro-batch of a step cannot be divided among 3 ranks; set accumulate to 3, 6, or"),
        ] {
            let message = share(3).check(accumulate, batch, resume).unwrap_err();
            assert!(message.contains(says), "{message}");
        }
    }
}
