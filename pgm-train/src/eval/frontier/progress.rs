//! Progress of a frontier, reported to the caller, who can stop it.

use std::ops::ControlFlow;

use crate::TrainError;

/// The parts of the work, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Curves are timed in turn.
    Timing,
    /// Samples are drawn.
    Sampling,
    /// Samples are judged.
    Judging,
}

impl Phase {
    /// What is counted.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Timing => "timed batches",
            Self::Sampling => "samples",
            Self::Judging => "judged samples",
        }
    }
}

/// How far a frontier is.
#[derive(Clone, Copy, Debug)]
pub struct FrontierProgress<'a> {
    /// The part of the work.
    pub phase: Phase,
    /// The curve or point at work.
    pub name: &'a str,
    /// Items done, those of earlier runs included.
    pub done: usize,
    /// Items in all.
    pub all: usize,
    /// Seconds until this part is done, where they are known from the wall times of the curves.
    pub seconds_left: Option<f64>,
}

/// Called while a frontier is measured. `Break` stops it with [`TrainError::Stopped`]; what is done is kept.
pub type ObserveFrontier<'a> = dyn FnMut(&FrontierProgress) -> ControlFlow<()> + 'a;

/// Calls `observe`.
///
/// # Errors
/// [`TrainError::Stopped`] when it breaks.
pub(super) fn report(observe: &mut ObserveFrontier, progress: &FrontierProgress) -> Result<(), TrainError> {
    match observe(progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(TrainError::Stopped),
    }
}
