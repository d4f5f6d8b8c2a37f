//! From text to a data folder.
//!
//! Files are read as a stream. A few megabytes at a time are tokenized in parallel and written as rows, in order.
//! Everything goes into a temporary folder beside the target, which is renamed at the end: an interrupted run leaves
//! no folder that looks complete. Several processes can share the work: see [`prepare_part`] and [`merge_parts`].

mod attempt;
mod notes;
mod options;
mod parts;
mod piece;
mod route;
mod sources;
mod split_writer;

use std::ops::ControlFlow;

pub use options::{Prepare, Prepared, Progress, Validation};
pub(crate) use parts::has_parts;
pub use parts::{MergeParts, PreparedPart, merge_parts, part_share, prepare_part};

use crate::error::DataError;
use crate::manifest::Manifest;
use attempt::{Target, write_folder};
use sources::Sources;

/// Prepares a data folder. `observe` receives the progress and can stop the work.
///
/// # Errors
/// What is wrong with the inputs or the options; [`DataError::Stopped`] when `observe` returns
/// [`ControlFlow::Break`]. No folder exists at `out` then.
pub fn prepare(options: &Prepare, observe: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Result<Manifest, DataError> {
    prepare_with_notes(options, observe).map(|prepared| prepared.manifest)
}

/// As [`prepare`], with notes for the user.
///
/// # Errors
/// As for [`prepare`].
pub fn prepare_with_notes(
    options: &Prepare,
    observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Prepared, DataError> {
    options.validate()?;
    let mut report = |progress: Progress| match observe(progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(DataError::Stopped),
    };
    let sources = Sources::of_files(options, &mut || report(Progress { done: 0, total: 0 }))?;
    write_folder(options, &sources, Target::New, &mut report)
}
