//! Training, distillation and evaluation of Partition Generative Models and their baselines, on burn-train's learner.
//!
//! [`fit()`] runs a whole training: a [`TrainConfig`], a prepared data folder and an output folder in; checkpoints,
//! `metrics.jsonl`, `loss.svg` and a model folder out. The rows, times, groups and dropout of a step are functions of
//! (seed, step), so a resumed run equals the unbroken one to the last bit.
//!
//! [`convert()`] makes a partition model of a masked one, which a run can start from and be taught by.
//!
//! [`codec::fit_codec`] trains a codec on the same loop.
//!
//! [`distill()`] is a sequence of such runs, one per round: the same learner and loop, with batches and a loss of its
//! own. [`eval`] measures the models of either; [`judge`] measures samples: their perplexity under another model, their
//! entropy and their diversity.

pub mod batches;
pub mod bench;
pub mod codec;
pub mod config;
mod convert;
mod distill;
mod draws;
mod error;
pub mod eval;
mod files;
mod json_lines;
pub mod judge;
pub mod plot;
mod run;
mod special_tokens;
mod token_nll;
mod world;

pub use config::{CodecTrainConfig, DistillConfig, NelboEstimator, Objective, Precision, StepOptions, TrainConfig};
pub use convert::{Convert, Converted, convert};
pub use distill::{Distill, DistillResult, distill};
pub use draws::{DrawnItem, HiddenTokens, NelboDraws};
pub use error::{Diverged, TrainError};
pub use run::{
    BestValidation, Curve, Fit, FitResult, InitModel, StepOutput, TrainEvent, TrainModel, bits_per_byte_of_a_nat,
    draw_curves, fit, history,
};
pub use world::{Message, Share, Transport, World, launcher_size, processes_started};
