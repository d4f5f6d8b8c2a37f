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
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) fn n_threads() -> usize {
    #[cfg(feature = "threads")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "threads"))]
    1
}

/// Runs `n` tasks, distributed over the threads.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) fn for_each_task(n: usize, task: impl Fn(usize) + Send + Sync) {
    #[cfg(feature = "threads")]
    {
        use rayon::prelude::*;
        (0..n).into_par_iter().with_max_len(1).for_each(task);
    }
    #[cfg(not(feature = "threads"))]
    (0..n).for_each(task);
}

/// Runs `n` tasks with scratch memory, which consecutive tasks of one thread share.
pub(crate) fn for_each_task_with<S>(
    n: usize,
    scratch: impl Fn() -> S + Send + Sync,
    task: impl Fn(&mut S, usize) + Send + Sync,
) {
    #[cfg(feature = "threads")]
    {
        use rayon::prelude::*;
        (0..n).into_par_iter().for_each_init(scratch, task);
    }
    #[cfg(not(feature = "threads"))]
    {
        let mut scratch = scratch();
        (0..n).for_each(|index| task(&mut scratch, index));
    }
}
