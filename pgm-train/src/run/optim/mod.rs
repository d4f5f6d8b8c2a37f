//! The optimiser step: AdamW, its learning rate, clipping before it and the average after it.

mod adamw;
mod clip;
mod ema;
mod lr_schedule;

pub(crate) use adamw::AdamW;
pub(crate) use clip::{clip_global_norm, clip_to, global_norm, weight_norm};
pub(crate) use ema::{ema_decay, update_average};
pub(crate) use lr_schedule::LrSchedule;
