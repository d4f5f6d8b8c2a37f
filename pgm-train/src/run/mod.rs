//! Runs on burn-train's learner: training loop, checkpoints, resume, metrics.

mod capture;
pub(crate) mod checkpoint;
mod dashboard;
mod event;
mod fit;
pub mod history;
mod identity;
mod launch;
mod loop_model;
mod optim;
mod plot;
mod resume;
mod train_loop;
mod train_model;
mod validation;

pub use event::TrainEvent;
pub use fit::{Fit, FitResult, fit};
pub use train_model::{StepOutput, TrainModel};

pub(crate) use dashboard::{Gauge, StepFigures};
pub(crate) use fit::{draw_parameters, write_results};
pub(crate) use identity::DataIdentity;
pub(crate) use launch::Training;
pub(crate) use loop_model::LoopModel;
pub(crate) use optim::{AdamW, clip_global_norm};
pub(crate) use plot::draw as draw_curve;
pub(crate) use resume::{Counters, LoopStart, RunIdentity, newest_checkpoint};
pub(crate) use train_loop::LoopSettings;
pub(crate) use train_model::DistillObjective;
