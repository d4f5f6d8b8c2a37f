//! Runs on burn-train's learner: training loop, checkpoints, resume, metrics.

mod best;
mod capture;
pub(crate) mod checkpoint;
mod chunks;
mod curves;
mod dashboard;
mod divergence;
mod event;
mod exchange;
mod fit;
pub mod history;
mod identity;
mod init;
mod launch;
mod lock;
mod loop_model;
mod loop_settings;
mod model_card;
mod model_files;
mod optim;
mod parameters;
mod plot;
mod resume;
mod start_together;
mod teacher;
mod train_loop;
mod train_model;
mod validation;
mod watch;

pub use best::BestValidation;
pub use curves::{Curve, draw_curves};
pub use event::TrainEvent;
pub use fit::{Fit, FitResult, fit};
pub use init::InitModel;
pub use model_card::bits_per_byte_of_a_nat;
pub use train_model::{StepOutput, TrainModel};

pub(crate) use checkpoint::Checkpoint;
pub(crate) use chunks::{CHUNK, chunks, step_by_chunks};
pub(crate) use dashboard::{Gauge, StepFigures};
pub(crate) use divergence::divergence_per_position;
pub(crate) use fit::{draw_parameters, edited_notice, write_results};
pub(crate) use identity::DataIdentity;
pub(crate) use launch::Training;
pub(crate) use lock::RunLock;
pub(crate) use loop_model::LoopModel;
pub(crate) use loop_settings::LoopSettings;
pub(crate) use model_card::{
    CardSubject, CardWords, ModelCard, Recipe, StoredWeights, codec_card, model_card, write_card,
};
pub(crate) use model_files::ModelFiles;
pub(crate) use optim::{AdamW, clip_global_norm, weight_norm};
pub(crate) use plot::draw as draw_curve;
pub(crate) use resume::{Counters, LoopStart, LrPlan, RunIdentity, ScheduleCheck, newest_checkpoint, start_again};
pub(crate) use start_together::{check_same, rows_of, weights_of_first};
pub(crate) use train_model::TaughtLoss;
