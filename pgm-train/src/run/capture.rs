//! The records of the learner's model, optimiser and schedule, taken out through its checkpointer.
//!
//! Only a checkpointer gets to see the learner's optimiser. burn-train's own checkpointer writes each record in a thread of
//! its own, under its final name. Our checkpoint is one folder, renamed when it is complete. So this checkpointer sends the
//! three records over channels, and one place writes them.

use std::sync::mpsc::{Receiver, Sender, channel};

use burn::lr_scheduler::LrSchedulerRecord;
use burn::optim::OptimizerRecord;
use burn::store::ModuleRecord;
use burn::train::checkpoint::{
    Checkpoint, Checkpointer, CheckpointerError, CheckpointingAction, CheckpointingStrategy,
};
use burn::train::metric::store::EventStoreClient;

/// A checkpointer that sends its record.
pub(crate) struct Capture<R>(Sender<R>);

impl<R: Checkpoint> Checkpointer<R> for Capture<R> {
    fn save(&self, _epoch: usize, record: R) -> Result<(), CheckpointerError> {
        self.0.send(record).map_err(|error| CheckpointerError::Unknown(error.to_string()))
    }

    fn delete(&self, _epoch: usize) -> Result<(), CheckpointerError> {
        Ok(())
    }

    fn restore(&self, _epoch: usize) -> Result<R, CheckpointerError> {
        Err(CheckpointerError::Unknown("records are restored before the learner starts".to_string()))
    }
}

/// The receiving ends of the three records.
pub(crate) struct Captured {
    pub(crate) model: Receiver<ModuleRecord>,
    pub(crate) optim: Receiver<OptimizerRecord>,
    pub(crate) scheduler: Receiver<LrSchedulerRecord>,
}

type Captures = (Capture<ModuleRecord>, Capture<OptimizerRecord>, Capture<LrSchedulerRecord>);

/// Three checkpointers and where their records arrive.
pub(crate) fn captures() -> (Captures, Captured) {
    let (model_sender, model) = channel();
    let (optim_sender, optim) = channel();
    let (scheduler_sender, scheduler) = channel();
    let captures = (Capture(model_sender), Capture(optim_sender), Capture(scheduler_sender));
    (captures, Captured { model, optim, scheduler })
}

/// Saves at every call: the training loop decides when to call.
pub(crate) struct Always;

impl CheckpointingStrategy for Always {
    fn checkpointing(&mut self, _epoch: usize, _collector: &EventStoreClient) -> Vec<CheckpointingAction> {
        vec![CheckpointingAction::Save]
    }
}
