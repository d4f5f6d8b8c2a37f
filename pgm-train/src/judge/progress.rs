//! Progress of an evaluation, reported to the caller, who can stop it.

use std::ops::ControlFlow;

use crate::TrainError;

/// Called with the items done and the items in all. `Break` stops the evaluation with [`TrainError::Stopped`].
pub type Observe<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// Calls `observe`.
///
/// # Errors
/// [`TrainError::Stopped`] when it breaks.
pub(crate) fn report_progress(observe: &mut Observe, n_done: usize, n: usize) -> Result<(), TrainError> {
    match observe(n_done, n) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(TrainError::Stopped),
    }
}
