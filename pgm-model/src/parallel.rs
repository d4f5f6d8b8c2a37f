//! Loops over threads: rayon's with the feature `threads`, ordinary loops without it.
//!
//! Without the feature, `par_chunks` and `par_chunks_mut` are the standard library's iterators, so that callers are
//! written once.
#![cfg_attr(not(feature = "flex"), allow(dead_code))]

/// The traits of `par_chunks` and `par_chunks_mut`.
#[cfg(feature = "threads")]
pub(crate) mod prelude {
    pub(crate) use rayon::prelude::{IndexedParallelIterator, ParallelIterator, ParallelSlice, ParallelSliceMut};
}

/// The traits of `par_chunks` and `par_chunks_mut`.
#[cfg(not(feature = "threads"))]
pub(crate) mod prelude {
    use std::slice::{Chunks, ChunksMut};

    pub(crate) trait ParallelSlice<T> {
        fn par_chunks(&self, size: usize) -> Chunks<'_, T>;
    }

    impl<T> ParallelSlice<T> for [T] {
        fn par_chunks(&self, size: usize) -> Chunks<'_, T> {
            self.chunks(size)
        }
    }

    pub(crate) trait ParallelSliceMut<T> {
        fn par_chunks_mut(&mut self, size: usize) -> ChunksMut<'_, T>;
    }

    impl<T> ParallelSliceMut<T> for [T] {
        fn par_chunks_mut(&mut self, size: usize) -> ChunksMut<'_, T> {
            self.chunks_mut(size)
        }
    }
}

/// The number of threads that share a loop.
pub(crate) fn n_threads() -> usize {
    #[cfg(feature = "threads")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "threads"))]
    1
}

/// Runs `n` tasks, distributed over the threads.
pub(crate) fn for_each_task(n: usize, task: impl Fn(usize) + Send + Sync) {
    for_each_task_with(n, || (), |(), index| task(index));
}

/// Runs `n` tasks with scratch memory, one for each thread that takes part.
///
/// The calling thread works too and takes tasks from one counter with the others. Handing all tasks to the thread pool
/// would put it to sleep and cost two more wake-ups, which is much of the time of a small loop.
pub(crate) fn for_each_task_with<S>(
    n: usize,
    scratch: impl Fn() -> S + Send + Sync,
    task: impl Fn(&mut S, usize) + Send + Sync,
) {
    #[cfg(feature = "threads")]
    {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let next = AtomicUsize::new(0);
        let take_tasks = || {
            let mut index = next.fetch_add(1, Ordering::Relaxed);
            if index >= n {
                return;
            }
            let mut scratch = scratch();
            while index < n {
                task(&mut scratch, index);
                index = next.fetch_add(1, Ordering::Relaxed);
            }
        };
        let n_helpers = n_threads().min(n).saturating_sub(1);
        if n_helpers == 0 {
            return take_tasks();
        }
        rayon::in_place_scope(|scope| {
            for _ in 0..n_helpers {
                scope.spawn(|_| take_tasks());
            }
            take_tasks();
        });
    }
    #[cfg(not(feature = "threads"))]
    if n > 0 {
        let mut scratch = scratch();
        (0..n).for_each(|index| task(&mut scratch, index));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn each_task_runs_once_also_within_other_tasks() {
        for n in [0, 1, 2, 7, 300] {
            let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            let inner = AtomicUsize::new(0);
            for_each_task_with(n, Vec::new, |seen: &mut Vec<usize>, index| {
                assert!(!seen.contains(&index));
                seen.push(index);
                counts[index].fetch_add(1, Ordering::Relaxed);
                for_each_task(3, |_| {
                    inner.fetch_add(1, Ordering::Relaxed);
                });
            });
            assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 1), "{n} tasks");
            assert_eq!(inner.load(Ordering::Relaxed), 3 * n);
        }
    }
}
