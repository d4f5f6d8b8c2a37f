//! Self-distillation through time (SDTT, arXiv 2410.21035): in rounds, a student learns to do in one sampling step what
//! its teacher does in several, and teaches the next round.
//!
//! A round is a run of its own in `OUT/round-N/`, with checkpoints, `metrics.jsonl`, `loss.svg` and a model folder. It
//! trains on the learner and the loop of [`fit`](crate::fit()), with other batches and another loss. Rows, times, groups
//! and the teacher's decoding are functions of (seed, round, step), so a resumed distillation equals the unbroken one.

mod loader;
mod loss;
mod rounds;
mod teacher;
#[cfg(test)]
mod tests;

pub use rounds::{Distill, DistillResult, distill};
