//! Sampling from an autoregressive network: left to right, one token an evaluation, with a cache of keys and values.
//!
//! All rows stand at the same position; a row whose prompt reaches further than another's reads its own token there
//! instead of drawing. As in [`sample`](crate::sample()), each row owns its random stream, one uniform a drawn token.

use std::ops::ControlFlow;

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_model::AutoregressiveTransformer;
use pgm_model::autoregressive::Cache;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::logits::Pick;
use crate::sampler::{Change, Outcome, Request, Sampled, Settings, StepView};
use crate::{InferError, Logits};

/// An autoregressive network, ready to be sampled.
#[derive(Debug)]
pub struct CausalSampler<'a> {
    /// The network.
    pub model: &'a AutoregressiveTransformer,
    /// Where it lives.
    pub device: &'a Device,
    /// The class that is never drawn.
    pub mask_index: usize,
}

/// Whether an autoregressive network can be asked this.
///
/// # Errors
/// [`InferError::Request`] when the given tokens are not a beginning.
pub fn check(request: &Request) -> Result<(), InferError> {
    Row::new(request).map(|_| ())
}

struct Row {
    tokens: Vec<u32>,
    n_given: usize,
    length: usize,
    rng: ChaCha8Rng,
    log_probabilities: Vec<f64>,
    margins: Vec<f64>,
    alternatives: Vec<Vec<(u32, f64)>>,
}

impl Row {
    fn new(request: &Request) -> Result<Self, InferError> {
        let mut given = request.given.clone();
        given.sort_unstable_by_key(|&(position, _)| position);
        if given.iter().enumerate().any(|(index, &(position, _))| index != position) || given.is_empty() {
            let message = "an autoregressive model only continues a text: it can neither fill a blank before given text \
                           nor start without BOS; give a --prompt, or use a partition or masked model";
            return Err(InferError::Request(message.to_string()));
        }
        Ok(Self {
            tokens: given.into_iter().map(|(_, token)| token).collect(),
            n_given: request.given.len(),
            length: request.length,
            rng: ChaCha8Rng::seed_from_u64(request.seed),
            log_probabilities: Vec::new(),
            margins: Vec::new(),
            alternatives: Vec::new(),
        })
    }

    fn is_open(&self) -> bool {
        self.tokens.len() < self.length
    }

    fn finish(mut self, mask_index: usize) -> Sampled {
        let complete = !self.is_open();
        let order = (self.n_given..self.tokens.len()).collect();
        self.tokens.resize(self.length, mask_index as u32);
        Sampled {
            tokens: self.tokens,
            order,
            log_probabilities: self.log_probabilities,
            margins: self.margins,
            alternatives: self.alternatives,
            complete,
        }
    }
}

impl CausalSampler<'_> {
    /// Samples all requests together. `observe` runs after each token and can stop the run, which then returns what it
    /// has. Of the settings only the draw and the number of alternatives say anything here.
    ///
    /// # Errors
    /// [`InferError::Request`] when given tokens are not a beginning, [`InferError::Setting`] for a draw that cannot be
    /// done, [`InferError::Device`] when the device fails.
    pub fn sample(
        &self,
        requests: &[Request],
        settings: &Settings,
        observe: &mut dyn FnMut(&StepView) -> ControlFlow<()>,
    ) -> Result<Outcome, InferError> {
        settings.draw.validate()?;
        let mut rows = requests.iter().map(Row::new).collect::<Result<Vec<_>, _>>()?;
        let start = rows.iter().map(|row| row.tokens.len()).min().unwrap_or(0);
        let end = rows.iter().map(|row| row.length).max().unwrap_or(0);
        let mut cache = Cache::default();
        let mut n_evaluations = 0;
        for position in start..end {
            let logits = self.next(&rows, cache.n_tokens()..position, &mut cache)?;
            n_evaluations += 1;
            let mut changes = vec![Change::default(); rows.len()];
            let ends_here = |row: &Row| row.tokens.len() == position && row.is_open();
            let pick = |(row, state): (usize, &mut Row)| {
                ends_here(state).then(|| Pick { row, index: 0, uniform: state.rng.random() })
            };
            let picks: Vec<Pick> = rows.iter_mut().enumerate().filter_map(pick).collect();
            let drawn = logits.draw(&picks, self.mask_index, &settings.draw)?;
            let top = logits.top(&picks, settings.alternatives, self.mask_index)?;
            for ((pick, drawn), top) in picks.iter().zip(drawn).zip(top) {
                let (row, change) = (&mut rows[pick.row], &mut changes[pick.row]);
                row.tokens.push(drawn.class as u32);
                row.log_probabilities.push(drawn.log_probability);
                row.margins.push(drawn.margin);
                change.decoded.push((position, drawn.class as u32));
                change.log_probabilities.push(drawn.log_probability);
                if settings.alternatives > 0 {
                    row.alternatives.push(top.clone());
                    change.alternatives.push(top);
                }
            }
            let (step, n_steps) = (position + 1 - start, end - start);
            if observe(&StepView { step, n_steps, n_evaluations, changes: &changes }).is_break() {
                break;
            }
        }
        Ok(Outcome { rows: rows.into_iter().map(|row| row.finish(self.mask_index)).collect(), n_evaluations })
    }

    // Logits of the token after those at `new`, `[B, 1, V]`; a row that has ended reads BOS there and is not looked at.
    fn next(&self, rows: &[Row], new: std::ops::Range<usize>, cache: &mut Cache) -> Result<Logits, InferError> {
        let shape = [rows.len(), new.len()];
        let token = |row: &Row, position: usize| *row.tokens.get(position).unwrap_or(&row.tokens[0]) as i32;
        let values = rows.iter().flat_map(|row| new.clone().map(move |position| token(row, position))).collect();
        let tokens = Tensor::<2, Int>::from_data(TensorData::new(values, shape), self.device);
        Logits::new(self.model.forward_cached(tokens, cache))
    }
}
