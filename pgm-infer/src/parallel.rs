//! Loops over threads: rayon's with the feature `threads`, ordinary loops without it.

/// `f` of each index below `n`, in order. `f` gets a value of `init`, one for each thread that takes part.
#[cfg(feature = "threads")]
pub(crate) fn map_indices<S, R: Send>(
    n: usize,
    init: impl Fn() -> S + Send + Sync,
    f: impl Fn(&mut S, usize) -> R + Send + Sync,
) -> Vec<R> {
    use rayon::prelude::*;
    (0..n).into_par_iter().map_init(init, f).collect()
}

/// `f` of each index below `n`, in order.
#[cfg(not(feature = "threads"))]
pub(crate) fn map_indices<S, R>(n: usize, init: impl Fn() -> S, f: impl Fn(&mut S, usize) -> R) -> Vec<R> {
    let mut state = init();
    (0..n).map(|index| f(&mut state, index)).collect()
}

/// The number of threads that share a loop.
pub(crate) fn n_threads() -> usize {
    #[cfg(feature = "threads")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "threads"))]
    1
}
