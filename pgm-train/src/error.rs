//! The error type of this crate.

use std::path::PathBuf;

/// Errors of this crate. Each message names what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A configuration that cannot be used.
    #[error("{origin}: {problem}")]
    Config {
        /// The file or flag.
        origin: String,
        /// What is wrong, naming the key.
        problem: String,
    },
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] pgm_data::DataError),
    /// The model cannot be built or written.
    #[error(transparent)]
    Model(#[from] pgm_model::ModelError),
    /// Sampling failed or was refused.
    #[error(transparent)]
    Infer(#[from] pgm_infer::InferError),
    /// A file could not be read or written.
    #[error("cannot {action} {}: {problem}", path.display())]
    File {
        /// "read", "write" or "remove".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's message.
        problem: String,
    },
    /// The output folder already holds a run.
    #[error("{} holds a run already; continue it with --resume, or choose another --out", path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// The run to resume was made with other settings.
    #[error("{} cannot be resumed: {key} was {before} and is now {now}; {advice}", path.display())]
    Changed {
        /// The run's folder.
        path: PathBuf,
        /// The first setting that differs.
        key: String,
        /// Its value in the checkpoint.
        before: String,
        /// Its value now.
        now: String,
        /// What to do, and why if that is not plain.
        advice: String,
    },
    /// Another run is at work in the folder.
    #[error(
        "{} is in use by another training{}; wait until it ends, or choose another --out",
        path.display(), process.map(|id| format!(" (process {id})")).unwrap_or_default()
    )]
    Busy {
        /// The folder.
        path: PathBuf,
        /// The process of that run, if it is known.
        process: Option<u32>,
    },
    /// No checkpoint of the run can be used.
    #[error("no checkpoint in {} can be used: {problem}", path.display())]
    NoCheckpoint {
        /// The folder of checkpoints.
        path: PathBuf,
        /// What is wrong with the newest one.
        problem: String,
    },
    /// The loss, the gradient or the weights are no longer numbers.
    #[error("{0}")]
    Diverged(Box<Diverged>),
    /// A validation before the first step is no number.
    #[error(
        "the {what} is not finite at step {step}, before any training; the weights that the run starts from are damaged"
    )]
    NotFinite {
        /// "validation loss".
        what: &'static str,
        /// The step at which it was found.
        step: usize,
    },
    /// A judge's folder cannot be used, or the judge cannot judge these samples.
    #[error("{origin}: {problem}")]
    Judge {
        /// The file or what is judged.
        origin: String,
        /// What is wrong and what to do, as the end of the sentence.
        problem: String,
    },
    /// A line of a file of samples or of a task that is not one.
    #[error("{} line {line}: {problem}", path.display())]
    Samples {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The ranks of a training do not agree.
    #[error("{0}")]
    Ranks(String),
    /// The caller stopped the work.
    #[error("stopped before it was done")]
    Stopped,
    /// The learner failed.
    #[error("training stopped: {0}")]
    Learner(String),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
}

impl TrainError {
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>, problem: impl ToString) -> Self {
        Self::File { action, path: path.into(), problem: problem.to_string() }
    }

    pub(crate) fn judge(origin: impl ToString, problem: impl ToString) -> Self {
        Self::Judge { origin: origin.to_string(), problem: problem.to_string() }
    }
}

/// Where and how a training diverged.
#[derive(Clone, Debug, PartialEq)]
pub struct Diverged {
    /// What is not finite, with its verb: "the loss is", "the gradient norm is", "the weights are", "the validation loss is".
    pub what: &'static str,
    /// Steps done, the one that diverged included.
    pub step: usize,
    /// Loss of that step.
    pub loss: f32,
    /// Global gradient norm of that step, before clipping.
    pub grad_norm: f32,
    /// Learning rate of that step.
    pub lr: f64,
    /// The step before with its loss and gradient norm, if they are known.
    pub before: Option<(usize, f32, f32)>,
    /// The run's folder.
    pub path: PathBuf,
    /// The step of the newest checkpoint, if there is one.
    pub checkpoint: Option<usize>,
}

impl std::fmt::Display for Diverged {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { what, step, loss, grad_norm, lr, .. } = self;
        write!(f, "training diverged: {what} not finite at step {step} (loss {loss}, gradient norm {grad_norm}, ")?;
        write!(f, "learning rate {lr:e}")?;
        if let Some((step, loss, grad_norm)) = self.before {
            write!(f, "; step {step} had loss {loss}, gradient norm {grad_norm}")?;
        }
        let path = self.path.display();
        match self.checkpoint {
            Some(kept) => write!(f, "); the newest checkpoint is kept, its model is {path}@step-{kept}")?,
            None => write!(f, "); there is no checkpoint in {path} yet")?,
        }
        write!(f, "; start a new run with a lower optim.lr, a longer optim.warmup or a lower optim.clip")
    }
}
