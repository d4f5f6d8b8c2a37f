//! Runs on burn-train's learner: training loop, checkpoints, resume, metrics.

mod best;
mod capture;
pub(crate) mod checkpoint;
mod dashboard;
mod event;
mod fit;
pub mod history;
mod identity;
mod init;
mod launch;
mod lock;
mod model_files;
mod optim;
mod plot;
mod resume;
mod train_loop;
mod train_model;
mod validation;
mod watch;

pub use best::BestValidation;
pub use event::TrainEvent;
pub use fit::{Fit, FitResult, fit};
pub use init::InitModel;
pub use train_model::{StepOutput, TrainModel};

pub(crate) use fit::write_results;
pub(crate) use identity::DataIdentity;
pub(crate) use launch::Training;
pub(crate) use lock::RunLock;
pub(crate) use model_files::ModelFiles;
pub(crate) use optim::{AdamW, clip_global_norm};
pub(crate) use resume::{Counters, LoopStart, LrPlan, RunIdentity, ScheduleCheck, newest_checkpoint};
pub(crate) use train_loop::LoopSettings;
pub(crate) use train_model::DistillObjective;
