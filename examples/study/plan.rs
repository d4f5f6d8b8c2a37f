//! The sizes of a study.

use pgm_train::Objective;
use serde::Serialize;

use crate::{SET_CAUSAL, WIDE};

/// The factor on the embedding with which a small model leaves its first plateau early (docs/training.md).
pub const EMBEDDING_SCALE: f64 = 20.0;

/// The size of a study, by its running time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// One minute, to test that everything runs.
    Smoke,
    /// Four minutes on two cores.
    Quick,
    /// Some hours on two cores.
    Usual,
    /// One night on two cores.
    Full,
}

/// The numbers of a study. All its results but the speeds depend on these and the text only.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Bytes of text, unless `--text` is given.
    pub text_bytes: u64,
    /// Length of a row. Tokens are bytes, which a small model learns faster than words.
    pub length: usize,
    /// Hidden size of every network but the wider one.
    pub hidden: usize,
    /// Attention heads of every network but the wider one.
    pub heads: usize,
    /// Blocks of every network. Half of the partition model's are encoder blocks, half decoder blocks.
    pub blocks: usize,
    /// Training steps of every model.
    pub steps: usize,
    /// Rows of a training step.
    pub batch: usize,
    /// Each kind of model is trained with each of these seeds.
    pub seeds: Vec<u64>,
    /// Training steps of the judge.
    pub judge_steps: usize,
    /// Sampling steps of the first teacher.
    pub teacher_steps: usize,
    /// Rounds of distillation. Each halves the number of sampling steps.
    pub rounds: usize,
    /// Training steps of a round.
    pub round_steps: usize,
    /// Held-out rows of `eval ppl`.
    pub rows: usize,
    /// Times per row of `eval ppl`.
    pub times: usize,
    /// Samples for each number of sampling steps.
    pub samples: usize,
    /// Numbers of sampling steps to compare.
    pub sampling_steps: Vec<usize>,
    /// Numbers of sampling steps of the frontier's curves. The frontier's folder continues with others, so they are not part of
    /// what a working folder was made with.
    #[serde(skip)]
    pub frontier_steps: Vec<usize>,
    /// Temperatures of the frontier's points; not part of it, too.
    #[serde(skip)]
    pub temperatures: Vec<f64>,
    /// Questions of `eval choice` and texts of `eval greedy`.
    pub questions: usize,
    /// Draws per choice of `eval choice`.
    pub draws: usize,
}

impl Plan {
    /// The plan of a size.
    pub fn of(size: Size) -> Self {
        let usual = Self {
            text_bytes: 4_000_000,
            length: 128,
            hidden: 128,
            heads: 4,
            blocks: 4,
            steps: 2000,
            batch: 16,
            seeds: vec![1, 2],
            judge_steps: 3000,
            teacher_steps: 128,
            rounds: 3,
            round_steps: 150,
            rows: 256,
            times: 8,
            samples: 128,
            sampling_steps: vec![8, 16, 32, 64, 128],
            frontier_steps: vec![8, 16, 24, 32, 128],
            temperatures: vec![0.8, 0.9, 1.0, 1.1],
            questions: 48,
            draws: 32,
        };
        match size {
            Size::Usual => usual,
            Size::Smoke => Self {
                text_bytes: 100_000,
                length: 32,
                hidden: 16,
                heads: 2,
                blocks: 2,
                steps: 6,
                judge_steps: 6,
                teacher_steps: 64,
                round_steps: 2,
                rows: 4,
                times: 2,
                samples: 2,
                sampling_steps: vec![8, 16],
                frontier_steps: vec![2, 4],
                temperatures: vec![1.0, 0.2],
                questions: 2,
                draws: 2,
                ..usual
            },
            Size::Quick => Self {
                text_bytes: 1_000_000,
                length: 64,
                hidden: 64,
                heads: 2,
                steps: 240,
                judge_steps: 500,
                teacher_steps: 64,
                round_steps: 30,
                rows: 64,
                times: 4,
                samples: 32,
                sampling_steps: vec![8, 16, 32, 64],
                frontier_steps: vec![8, 32],
                questions: 12,
                draws: 8,
                ..usual
            },
            Size::Full => Self {
                text_bytes: 16_000_000,
                hidden: 192,
                blocks: 6,
                steps: 10_000,
                seeds: vec![1, 2, 3],
                judge_steps: 12_000,
                round_steps: 500,
                rows: 1024,
                samples: 256,
                questions: 200,
                draws: 128,
                ..usual
            },
        }
    }

    /// Hidden size and heads of the wider partition model: one more head of the same size.
    pub fn wide(&self) -> (usize, usize) {
        (self.hidden + self.hidden / self.heads, self.heads + 1)
    }

    /// The training configuration of a kind of model, as TOML.
    pub fn training(&self, objective: Objective, kind: &str, seed: u64, steps: usize) -> String {
        let objective = serde_json::to_string(&objective).expect("an objective always serialises");
        let Self { batch, blocks, length, .. } = self;
        let (hidden, heads) = if kind == WIDE { self.wide() } else { (self.hidden, self.heads) };
        let rows = self.rows.min(128);
        let (half, every, warmup) = (blocks / 2, steps.div_ceil(12), steps / 20);
        let sets = if kind == SET_CAUSAL { format!("sets = {length}\n") } else { String::new() };
        format!(
            "objective = {objective}\nsteps = {steps}\nbatch = {batch}\nseed = {seed}\nlog_every = 25\n\
             validate_every = {every}\nvalidate_rows = {rows}\ncheckpoint_every = 100\ncheckpoint_keep = 1\n\
             [model]\nhidden = {hidden}\nheads = {heads}\nencoder = {half}\ndecoder = {half}\nlength = {length}\n\
             embedding_scale = {EMBEDDING_SCALE:.1}\n{sets}\
             [optim]\nlr = 2e-3\nwarmup = {warmup}\nschedule = \"cosine\"\nfloor = 0.05\nweight_decay = 0.01\nema = 0.99\n"
        )
    }

    /// The configuration of a distillation, as TOML.
    pub fn distillation(&self, targets: &str) -> String {
        let Self { batch, rounds, round_steps, teacher_steps, .. } = self;
        let rows = self.rows.min(128);
        format!(
            "rounds = {rounds}\nround_steps = {round_steps}\nbatch = {batch}\nseed = 1\n\
             teacher_steps = {teacher_steps}\ntargets = \"{targets}\"\nlog_every = 25\n\
             validate_every = {round_steps}\nvalidate_rows = {rows}\ncheckpoint_every = 100\ncheckpoint_keep = 1\n\
             [optim]\nlr = 3e-4\nwarmup = 20\nema = 0.99\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use pgm_train::{DistillConfig, TrainConfig};

    use super::*;
    use crate::KINDS;

    #[test]
    fn every_size_is_a_valid_run() {
        for size in [Size::Smoke, Size::Quick, Size::Usual, Size::Full] {
            let plan = Plan::of(size);
            for (objective, kind) in KINDS {
                let config = TrainConfig::parse(&plan.training(objective, kind, 1, plan.steps), "study", &[]).unwrap();
                assert_eq!(config.model.hidden > plan.hidden, kind == WIDE);
            }
            let distillation = DistillConfig::parse(&plan.distillation("both"), "study", &[]).unwrap();
            assert_eq!(distillation.schedule().len(), plan.rounds);
            assert!(plan.blocks.is_multiple_of(2) && plan.seeds.len() >= 2);
        }
    }
}
