//! The sizes of a run. Everything that costs time stands here.

use pgm_train::eval::images::ClassifierOptions;

/// Rows and columns of codes: digits have 28 x 28 pixels, a code stands for 4 x 4.
pub const GRID: [usize; 2] = [7, 7];
/// Tokens of a row: BOS and the codes.
const LENGTH: usize = 1 + GRID[0] * GRID[1];
/// Steps of sampling that are compared.
pub const STEPS: [usize; 3] = [4, 8, 16];
/// Seeds of each comparison.
pub const SEEDS: [u64; 2] = [1, 2];
/// The weight of guidance where it is on.
pub const GUIDANCE: f64 = 1.0;

/// The sizes of a run.
pub struct Plan {
    /// Share of the digits that no network trains on.
    pub held_out: f64,
    /// Steps and pictures of a step of the codec.
    pub codec: [usize; 2],
    /// Widths of its convolutions.
    pub codec_widths: [usize; 2],
    /// Steps and rows of a step of each model.
    pub model: [usize; 2],
    /// Width and heads.
    pub hidden: [usize; 2],
    /// Blocks of the encoder and of the decoder; MaskGIT has as many in all.
    pub blocks: [usize; 2],
    /// The classifier that scores.
    pub classifier: ClassifierOptions,
    /// Samples of each class for a score.
    pub samples: usize,
    /// Pictures of each class on a sheet.
    pub shown: usize,
}

impl Plan {
    /// Twelve minutes on two cores.
    pub fn full() -> Self {
        Self {
            held_out: 0.2,
            codec: [350, 64],
            codec_widths: [16, 32],
            model: [600, 128],
            hidden: [96, 4],
            blocks: [2, 2],
            classifier: ClassifierOptions { steps: 500, ..ClassifierOptions::default() },
            samples: 50,
            shown: 10,
        }
    }

    /// Seconds: everything runs, nothing is learned.
    pub fn smoke() -> Self {
        Self {
            held_out: 0.02,
            codec: [4, 8],
            codec_widths: [4, 4],
            model: [4, 8],
            hidden: [16, 2],
            blocks: [1, 1],
            classifier: ClassifierOptions { steps: 4, batch: 8, width: 2, features: 8, ..ClassifierOptions::default() },
            samples: 1,
            shown: 2,
        }
    }

    /// The configuration of the codec: 125 codes by finite scalar quantisation.
    pub fn codec_toml(&self) -> String {
        let ([steps, batch], [first, second]) = (self.codec, self.codec_widths);
        format!(
            "steps = {steps}\nbatch = {batch}\nseed = 1\nlog_every = {}\nvalidate_every = {steps}\nvalidate_rows = 512\n\
             checkpoint_every = {steps}\n[codec]\nlevels = [5, 5, 5]\nwidths = [{first}, {second}]\n\
             [optim]\nlr = 2e-3\nwarmup = {}\ndecay = \"cosine\"\nema = 0.98\n",
            (steps / 10).max(1),
            steps.min(30)
        )
    }

    /// The configuration of a model: `partition` or `maskgit`.
    pub fn model_toml(&self, objective: &str) -> String {
        let ([steps, batch], [hidden, heads], [encoder, decoder]) = (self.model, self.hidden, self.blocks);
        format!(
            "objective = \"{objective}\"\nsteps = {steps}\nbatch = {batch}\nseed = 1\nlog_every = {}\n\
             validate_every = {steps}\nvalidate_rows = 512\ncheckpoint_every = {steps}\n\
             [model]\nhidden = {hidden}\nheads = {heads}\nencoder = {encoder}\ndecoder = {decoder}\nlength = {LENGTH}\n\
             [optim]\nlr = 2e-3\nwarmup = {}\ndecay = \"cosine\"\nema = 0.99\nweight_decay = 0.03\n",
            (steps / 10).max(1),
            steps.min(50)
        )
    }
}
