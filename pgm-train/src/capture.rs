//! A checkpointer that hands records over instead of writing them.
//!
//! The learner gives its optimiser away only through a checkpointer, and burn-train's own writes each record on a
//! thread of its own under its final name. Ours must come together in one folder that is renamed when complete, so
//! the three records are caught here and written in one place.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

use burn::lr_scheduler::LrSchedulerRecord;
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use burn::train::checkpoint::{
    Checkpoint, Checkpointer, CheckpointerError, CheckpointingAction, CheckpointingStrategy,
};
use burn::train::metric::store::EventStoreClient;

/// The sending end for one kind of record.
pub(crate) struct Capture<R>(Mutex<Sender<R>>);

impl<R: Checkpoint> Checkpointer<R> for Capture<R> {
    fn save(&self, _epoch: usize, record: R) -> Result<(), CheckpointerError> {
        let sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sender.send(record).map_err(|error| CheckpointerError::Unknown(error.to_string()))
    }

    fn delete(&self, _epoch: usize) -> Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, _epoch: usize) -> Result<R, CheckpointerError> {
        Err(CheckpointerError::Unknown("records are restored by the training strategy".to_string()))
    }
}

/// The receiving ends of the three records.
pub(crate) struct Captured {
    pub(crate) model: Receiver<ModuleRecord>,
    pub(crate) optim: Receiver<OptimizerRecord>,
    pub(crate) scheduler: Receiver<LrSchedulerRecord>,
}

type Captures = (Capture<ModuleRecord>, Capture<OptimizerRecord>, Capture<LrSchedulerRecord>);

pub(crate) fn captures() -> (Captures, Captured) {
    let (model_sender, model) = channel();
    let (optim_sender, optim) = channel();
    let (scheduler_sender, scheduler) = channel();
    let capture =
        (Capture(Mutex::new(model_sender)), Capture(Mutex::new(optim_sender)), Capture(Mutex::new(scheduler_sender)));
    (capture, Captured { model, optim, scheduler })
}

/// Saves whenever asked: the strategy decides when.
pub(crate) struct Always;

impl CheckpointingStrategy for Always {
    fn checkpointing(&mut self, _epoch: usize, _collector: &EventStoreClient) -> Vec<CheckpointingAction> {
        vec![CheckpointingAction::Save]
    }
}
