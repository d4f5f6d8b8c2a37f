//! What a run reports while it works.

use super::history::{TrainLine, ValidationLine};

/// An event of a run, for the caller to show.
#[derive(Clone, Debug)]
pub enum TrainEvent<V = ValidationLine> {
    /// The run begins, or resumes from a checkpoint.
    Started {
        /// Steps done before.
        step: usize,
        /// Parameters of the network.
        parameters: usize,
        /// Training rows.
        rows: usize,
        /// Processes that train together.
        world_size: usize,
    },
    /// A round of a distillation begins.
    Round {
        /// The round, from 1.
        round: usize,
        /// Rounds in all.
        n_rounds: usize,
        /// Sampling steps of the teacher.
        teacher_steps: usize,
        /// Sampling steps that the student will need.
        student_steps: usize,
    },
    /// Figures of training.
    Trained {
        /// The figures.
        line: TrainLine,
        /// Steps in all.
        steps: usize,
        /// Seconds until the last of them, at the rate of this process's steps, validations included.
        seconds_left: f64,
    },
    /// A validation.
    Validated(V),
    /// A checkpoint was written.
    Saved {
        /// Steps done.
        step: usize,
    },
    /// Something that the user should know.
    Notice(String),
}
