//! Configuration files: strict TOML, with `--set key=value` on top.
//!
//! [`TrainConfig`] is the file of `pgm-train fit`, [`DistillConfig`] that of `pgm-train distill`. Both have the
//! keys of [`RunConfig`] at their top level. [`CodecTrainConfig`] is the file of `pgm-train codec`. [`reference`](mod@reference) generates `docs/configuration.md` and the output of
//! `pgm-train config` from the doc comments of these structs.

mod card;
mod codec;
mod distill;
mod model;
mod objective;
mod optim;
pub mod reference;
mod run;
mod teacher;
mod toml_file;
mod train;

pub use card::CardSection;
pub use codec::{CodecSection, CodecTrainConfig, QuantizerKind, ReconstructionLoss};
pub use distill::{DistillConfig, Divergence, TargetGroups, TeacherWeights};
pub use model::ModelSection;
pub use objective::Objective;
pub use optim::{LrScheduleKind, OptimSection};
pub use run::{NelboEstimator, Precision, RunConfig, StepOptions};
pub use teacher::TeacherSection;
pub use train::TrainConfig;

pub(crate) use toml_file::ConfigFile;
