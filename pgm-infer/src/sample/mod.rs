//! The sampling loop, on token ids alone: no thread, no clock, no tokenizer.
//!
//! A step asks each row for positions ([`SampleRow::begin`]), runs the network once for all rows ([`Denoiser`]), reads the
//! logits and draws tokens ([`Logits`]), and returns them to the rows ([`SampleRow::end`]). Reading logits is the only
//! part that waits for a device; [`advance`] blocks there, [`advance_async`] awaits.
//!
//! | file | question it answers |
//! |---|---|
//! | `request.rs` | what is sampled, with which settings |
//! | `row.rs` | the state of one row |
//! | `border.rs` | tokens that hold given characters, drawn before the first step |
//! | `step.rs` | one step of several rows |
//! | `run.rs` | all steps |
//! | `schedule.rs` | how many positions a step decodes |
//! | `order/` | which positions a step decodes |
//! | `refresh.rs` | which evaluations encode the clean tokens anew |
//! | `grid.rs` | where a picture's cells stand in a row |
//! | `guidance.rs`, `evaluation.rs` | how much a class counts in a step; the step's network evaluation with it |
//! | `draw.rs` | which token is drawn |
//! | `published.rs` | what the public samplers of images do otherwise |
//! | `logits/` | how logits are read from host or device |

mod border;
mod clean_row;
mod denoiser;
pub mod draw;
mod evaluation;
mod grid;
mod guarded_order;
mod guidance;
#[cfg(test)]
mod guidance_tests;
pub mod logits;
pub mod order;
mod published;
mod refresh;
mod request;
mod row;
mod row_step;
mod run;
mod sampled;
mod schedule;
mod step;
#[cfg(test)]
mod tests;

pub use border::{Border, BorderPart};
pub use clean_row::{CleanRow, RowId};
pub use denoiser::Denoiser;
pub use draw::DrawSettings;
pub use grid::TokenGrid;
pub use guidance::{Guidance, GuidanceSchedule, MAX_WEIGHT};
pub use logits::Logits;
pub use published::{AsPublished, NetworkQuirks, PublishedSampler};
pub use refresh::Refresh;
pub use request::{SampleRequest, SampleSettings};
pub use row::SampleRow;
pub use row_step::RowStep;
pub use run::{SampleOutput, StepView, sample};
pub use sampled::{RowChange, SampledRow};
pub use schedule::{Curve, OpenCounts, Schedule};
pub use step::{StepResult, advance, advance_async};
