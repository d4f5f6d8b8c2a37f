//! Training of Partition Generative Models and their masked baseline on burn-train's learner.
//!
//! [`fit()`] runs a whole training: a [`TrainConfig`], a prepared data folder and an output folder in, checkpoints,
//! `metrics.jsonl`, `loss.svg` and a model folder out. It is resumable to the digit: the rows, times, groups and
//! dropout of a step are functions of (seed, step) alone.
//!
//! [`distill()`] is the second learner. [`eval`] measures what came of either; [`judge`] measures samples: their
//! perplexity under another model, their entropy and their diversity.

mod adamw;
pub mod batch;
pub mod bench;
mod capture;
mod checkpoint;
pub mod config;
mod dashboard;
pub mod distill;
mod error;
pub mod eval;
pub mod fit;
mod gradients;
pub mod history;
mod json_lines;
pub mod judge;
pub mod learner;
pub mod lesson;
mod plot;
mod schedule;
mod strategy;
mod token_nll;

pub use config::{Objective, Precision, TrainConfig};
pub use distill::{Distill, DistillConfig, DistillResult, distill};
pub use error::TrainError;
pub use fit::{Fit, FitResult, TrainEvent, fit};
