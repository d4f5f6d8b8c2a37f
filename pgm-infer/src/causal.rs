//! An autoregressive network as a [`Denoiser`]: it gives the logits of the token behind a row's beginning.
//!
//! Keys and values of earlier tokens are kept. They depend on a row's tokens only, so a row finds its own by them: rows join
//! and leave between steps, and rows that begin alike are read once.

use std::cell::RefCell;

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_model::{AutoregressiveTransformer, Cache};
use rand::Rng;

use crate::denoiser::{CleanRow, Denoiser};
use crate::order::{Order, OrderContext, OrderKind};
use crate::sampler::{SampleRequest, SampleRow, SampleSettings};
use crate::{InferError, Logits};

/// The autoregressive network, left to right with a cache. Of the settings of a row it heeds the draw and the
/// alternatives.
#[derive(Debug)]
pub struct CausalDenoiser<'a> {
    model: &'a AutoregressiveTransformer,
    device: &'a Device,
    mask_index: usize,
    known: RefCell<Known>,
}

// Rows that were read up to these tokens.
#[derive(Debug, Default)]
struct Known {
    tokens: Vec<Vec<u32>>,
    cache: Cache,
}

impl<'a> CausalDenoiser<'a> {
    /// The network on its device; `mask_index` is the class that is never drawn.
    pub fn new(model: &'a AutoregressiveTransformer, device: &'a Device, mask_index: usize) -> Self {
        Self { model, device, mask_index, known: RefCell::default() }
    }

    // Reads beginnings of one length.
    fn read(&self, rows: &[&[u32]]) -> Cache {
        let mut cache = Cache::new(rows.len());
        if !rows[0].is_empty() {
            self.model.forward_cached(self.on_device(rows), &mut cache);
        }
        cache
    }

    // Rows of one length, `[B, S]`.
    fn on_device(&self, rows: &[&[u32]]) -> Tensor<2, Int> {
        let values: Vec<i32> = rows.iter().copied().flatten().map(|&token| token as i32).collect();
        Tensor::from_data(TensorData::new(values, [rows.len(), rows[0].len()]), self.device)
    }

    // The cache of these beginnings, in this order.
    fn cache_of(&self, rows: &[&[u32]], known: Known) -> Cache {
        // Most often a row stands where it stood, one token further.
        let place = |index: usize, row: &[u32]| {
            let same = |&at: &usize| known.tokens.get(at).is_some_and(|tokens| tokens == row);
            Some(index).filter(same).or_else(|| (0..known.tokens.len()).find(same))
        };
        let mut places: Vec<Option<usize>> = rows.iter().enumerate().map(|(index, row)| place(index, row)).collect();
        let mut unread: Vec<&[u32]> =
            rows.iter().zip(&places).filter(|(_, place)| place.is_none()).map(|(row, _)| *row).collect();
        if unread.is_empty() {
            let stays = places.iter().copied().eq((0..known.tokens.len()).map(Some));
            return if stays {
                known.cache
            } else {
                known.cache.rows(&places.into_iter().flatten().collect::<Vec<_>>())
            };
        }
        unread.sort_unstable_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        unread.dedup();
        for (row, place) in rows.iter().zip(&mut places).filter(|(_, place)| place.is_none()) {
            *place = unread.iter().position(|other| other == row).map(|index| known.tokens.len() + index);
        }
        let new = unread.chunk_by(|a, b| a.len() == b.len()).map(|rows| self.read(rows));
        let parts: Vec<Cache> = std::iter::once(known.cache).chain(new).collect();
        let places: Vec<usize> = places.into_iter().flatten().collect();
        Cache::joined(&parts).rows(&places)
    }
}

impl Denoiser for CausalDenoiser<'_> {
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits, InferError> {
        let tokens = rows.iter().map(|row| beginning(&row.positions, &row.tokens)).collect::<Result<Vec<_>, _>>()?;
        if tokens.iter().zip(positions).any(|(tokens, positions)| *positions != [tokens.len()]) {
            return Err(InferError::Request("an autoregressive model predicts the next token only".into()));
        }
        let before: Vec<&[u32]> = tokens.iter().map(|tokens| &tokens[..tokens.len() - 1]).collect();
        let last: Vec<&[u32]> = tokens.iter().map(|tokens| &tokens[tokens.len() - 1..]).collect();
        // Taken, so that nothing is known should the device fail.
        let mut cache = self.cache_of(&before, self.known.take());
        let logits = Logits::new(self.model.forward_cached(self.on_device(&last), &mut cache))?;
        self.known.replace(Known { tokens, cache });
        Ok(logits)
    }

    fn mask_index(&self) -> usize {
        self.mask_index
    }

    fn row(&self, request: &SampleRequest, settings: &SampleSettings) -> Result<SampleRow, InferError> {
        let (positions, tokens): (Vec<_>, Vec<_>) = request.given.iter().copied().unzip();
        beginning(&positions, &tokens)?;
        if !matches!(settings.order, OrderKind::Uniform | OrderKind::Sequential) {
            return Err(only_order());
        }
        // However many steps there are to be, each decodes one token.
        let settings = SampleSettings { steps: 1, ..*settings };
        SampleRow::with_order(request, &settings, |_, _| Box::new(LeftToRight))
    }
}

/// What an order of one's own is told.
pub(crate) fn only_order() -> InferError {
    InferError::Request("an autoregressive model writes from left to right and in no other order".into())
}

// Tokens by position, if they are a beginning.
fn beginning(positions: &[usize], tokens: &[u32]) -> Result<Vec<u32>, InferError> {
    let mut given: Vec<(usize, u32)> = positions.iter().copied().zip(tokens.iter().copied()).collect();
    given.sort_unstable();
    if given.is_empty() || given.iter().enumerate().any(|(index, &(position, _))| index != position) {
        let message = "an autoregressive model only continues a text: it can neither fill a blank before given text nor \
                       start without BOS; give a --prompt, or use a partition or masked model";
        return Err(InferError::Request(message.to_string()));
    }
    Ok(given.into_iter().map(|(_, token)| token).collect())
}

// One token a step.
struct LeftToRight;

impl Order for LeftToRight {
    fn look(&mut self, view: &OrderContext<'_>, _rng: &mut dyn Rng) -> Vec<usize> {
        view.open.first().copied().into_iter().collect()
    }

    fn chooses_count(&self) -> bool {
        true
    }
}
