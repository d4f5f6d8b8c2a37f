//! Requests and settings of sampling.

use crate::InferError;
use crate::sample::border::{self, Border};
use crate::sample::draw::DrawSettings;
use crate::sample::grid::TokenGrid;
use crate::sample::guidance::Guidance;
use crate::sample::order::{Confidence, OrderKind};
use crate::sample::published::AsPublished;
use crate::sample::refresh::Refresh;
use crate::sample::schedule::Schedule;

/// One row to sample: its length, its given tokens, its seed.
#[derive(Clone, Debug, Default)]
pub struct SampleRequest {
    /// Tokens of the row, given ones included.
    pub length: usize,
    /// Positions and tokens that are clean from the start, BOS at position 0 among them.
    pub given: Vec<(usize, u32)>,
    /// Seed of the row's random stream.
    pub seed: u64,
    /// Open positions that hold given characters; most often none. They are drawn before the steps of the settings.
    pub borders: Vec<Border>,
    /// The class that a class-conditional network is asked for; none for a text, and for no class in particular.
    pub class: Option<usize>,
    /// Where a picture's cells stand in the row; none for a text.
    pub grid: Option<TokenGrid>,
}

impl SampleRequest {
    /// The positions that are not given, ascending.
    ///
    /// # Errors
    /// [`InferError::Request`] for positions that are given twice or do not exist, and for cells and borders that do not fit.
    pub(super) fn open_positions(&self) -> Result<Vec<usize>, InferError> {
        if self.grid.is_some_and(|grid| grid.start.saturating_add(grid.n_tokens()) > self.length) {
            let message = format!("the picture's cells do not fit into a row of {} tokens", self.length);
            return Err(InferError::Request(message));
        }
        let mut is_open = vec![true; self.length];
        for &(position, _) in &self.given {
            match is_open.get_mut(position) {
                Some(open) if *open => *open = false,
                Some(_) => return Err(InferError::Request(format!("position {position} is given twice"))),
                None => {
                    let message = format!("position {position} is given, but the row has {} tokens", self.length);
                    return Err(InferError::Request(message));
                }
            }
        }
        border::check(&self.borders, &is_open)?;
        Ok((0..self.length).filter(|&position| is_open[position]).collect())
    }
}

/// How to sample. The defaults are in [`settings`](crate::settings).
#[derive(Clone, Copy, Debug)]
pub struct SampleSettings {
    /// Steps. With fewer steps than open positions a step decodes several of them, with more some steps are empty.
    pub steps: usize,
    /// How many positions a step decodes.
    pub schedule: Schedule,
    /// Which positions a step decodes.
    pub order: OrderKind,
    /// How a token is drawn.
    pub draw: DrawSettings,
    /// How much the class counts.
    pub guidance: Guidance,
    /// How many of the most probable tokens are reported with each drawn one.
    pub alternatives: usize,
    /// How often a partition model encodes the clean tokens anew.
    pub refresh: Refresh,
    /// The public sampler that is repeated; none for a sampler without its quirks.
    pub as_published: Option<AsPublished>,
}

impl SampleSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`InferError::Setting`] naming the flag.
    pub fn validate(&self) -> Result<(), InferError> {
        self.draw.validate()?;
        self.guidance.validate()?;
        let wrong = |name, value: String, problem| Err(InferError::Setting { name, value, problem });
        match self.order {
            _ if self.refresh == Refresh::Every(0) => wrong("--refresh", "0".into(), "must be at least 1, or inf"),
            _ if self.steps == 0 => wrong("--steps", "0".into(), "must be at least 1"),
            OrderKind::EntropyBounded { bound, .. } if bound.is_nan() || bound < 0.0 => {
                wrong("--entropy-bound", bound.to_string(), "must be 0 or more")
            }
            OrderKind::Remask { rate } if !(0.0..=1.0).contains(&rate) => {
                wrong("--remask-rate", rate.to_string(), "must lie between 0 and 1")
            }
            OrderKind::Confidence(Confidence { noise, .. }) if !(noise >= 0.0 && noise.is_finite()) => {
                wrong("--noise", noise.to_string(), "must be 0 or a positive number")
            }
            _ => Ok(()),
        }
    }
}
