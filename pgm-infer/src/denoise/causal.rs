//! An autoregressive network as a denoiser: it predicts the token after a row's prefix.
//!
//! Keys and values of earlier tokens are cached for each row, by the row's id: rows join and leave between steps. New rows
//! with the same prefix share its evaluation.

use std::cell::RefCell;

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_model::{AutoregressiveTransformer, Cache};

use super::images::Drawable;
use crate::InferError;
use crate::sample::logits::Logits;
use crate::sample::order::{LeftToRight, OrderKind};
use crate::sample::{CleanRow, Denoiser, RowId, SampleRequest, SampleRow, SampleSettings};

/// The autoregressive network, left to right with a cache. Of a row's settings only the draw and the alternatives have an
/// effect.
#[derive(Debug)]
pub struct CausalDenoiser<'a> {
    model: &'a AutoregressiveTransformer,
    device: &'a Device,
    mask_index: usize,
    excluded: Vec<usize>,
    cached: RefCell<CachedRows>,
}

// Rows of the last evaluation and the cache of their tokens.
#[derive(Debug, Default)]
struct CachedRows {
    ids: Vec<RowId>,
    cache: Cache,
}

impl CachedRows {
    // The cache row with the first `length` tokens of a row; most often the one that it had before.
    fn place(&self, expected: usize, id: RowId, length: usize) -> Option<usize> {
        let same = |&place: &usize| self.ids.get(place) == Some(&id) && self.cache.lengths()[place] == length;
        Some(expected).filter(same).or_else(|| (0..self.ids.len()).find(same))
    }
}

impl<'a> CausalDenoiser<'a> {
    /// The network on its device; the mask is never drawn.
    pub fn new(model: &'a AutoregressiveTransformer, device: &'a Device, mask_index: usize) -> Self {
        Self { model, device, mask_index, excluded: vec![mask_index], cached: RefCell::default() }
    }

    // The cache of prefixes of one length.
    fn compute(&self, rows: &[&[u32]]) -> Cache {
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

    // The cache of the prefixes `rows` of the rows `ids`, in this order.
    fn cache_of(&self, ids: &[RowId], rows: &[&[u32]], cached: CachedRows) -> Cache {
        let known = ids.iter().zip(rows).enumerate();
        let mut places: Vec<Option<usize>> =
            known.map(|(index, (id, row))| cached.place(index, *id, row.len())).collect();
        let mut missing: Vec<&[u32]> =
            rows.iter().zip(&places).filter(|(_, place)| place.is_none()).map(|(row, _)| *row).collect();
        if missing.is_empty() {
            let unchanged = places.iter().copied().eq((0..cached.ids.len()).map(Some));
            return if unchanged {
                cached.cache
            } else {
                cached.cache.rows(&places.into_iter().flatten().collect::<Vec<_>>())
            };
        }
        missing.sort_unstable_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
        missing.dedup();
        for (row, place) in rows.iter().zip(&mut places).filter(|(_, place)| place.is_none()) {
            *place = missing.iter().position(|other| other == row).map(|index| cached.ids.len() + index);
        }
        let new = missing.chunk_by(|a, b| a.len() == b.len()).map(|rows| self.compute(rows));
        let parts: Vec<Cache> = std::iter::once(cached.cache).chain(new).collect();
        let places: Vec<usize> = places.into_iter().flatten().collect();
        Cache::concat(&parts).rows(&places)
    }
}

impl Denoiser for CausalDenoiser<'_> {
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits<'_>, InferError> {
        let tokens = rows.iter().map(|row| beginning(&row.positions, &row.tokens)).collect::<Result<Vec<_>, _>>()?;
        if tokens.iter().zip(positions).any(|(tokens, positions)| *positions != [tokens.len()]) {
            return Err(InferError::Request("an autoregressive model predicts the next token only".into()));
        }
        let before: Vec<&[u32]> = tokens.iter().map(|tokens| &tokens[..tokens.len() - 1]).collect();
        let last: Vec<&[u32]> = tokens.iter().map(|tokens| &tokens[tokens.len() - 1..]).collect();
        // Taken out, so that nothing is cached if the device fails.
        let ids: Vec<RowId> = rows.iter().map(|row| row.id).collect();
        let mut cache = self.cache_of(&ids, &before, self.cached.take());
        let logits = Logits::new(self.model.forward_cached(self.on_device(&last), &mut cache))?;
        self.cached.replace(CachedRows { ids, cache });
        Ok(logits)
    }

    fn mask_index(&self) -> usize {
        self.mask_index
    }

    fn excluded_classes(&self) -> &[usize] {
        &self.excluded
    }

    fn row(&self, request: &SampleRequest, settings: &SampleSettings) -> Result<SampleRow, InferError> {
        let (positions, tokens): (Vec<_>, Vec<_>) = request.given.iter().copied().unzip();
        beginning(&positions, &tokens)?;
        // A border behind a blank would be drawn with the one before it.
        let of_borders = request.borders.iter().flat_map(|border| {
            let parts = border.parts.iter().map(|part| part.position);
            parts.chain(border.next)
        });
        let continues = of_borders.zip(positions.len()..).all(|(position, expected)| position == expected);
        if !continues || request.borders.len() > 1 {
            return Err(only_continues());
        }
        Drawable::without(self.mask_index).check(request)?;
        if !matches!(settings.order, OrderKind::Uniform | OrderKind::Sequential) {
            return Err(wrong_order());
        }
        // A step decodes one token, whatever the number of steps in the settings.
        let settings = SampleSettings { steps: 1, ..*settings };
        SampleRow::with_order(request, &settings, |_| Box::new(LeftToRight))
    }
}

/// The error of a request that does not decode from left to right.
pub(crate) fn wrong_order() -> InferError {
    InferError::Request("an autoregressive model writes from left to right and in no other order".into())
}

// Tokens by position, if their positions are 0, 1, 2, ...
fn beginning(positions: &[usize], tokens: &[u32]) -> Result<Vec<u32>, InferError> {
    let mut given: Vec<(usize, u32)> = positions.iter().copied().zip(tokens.iter().copied()).collect();
    given.sort_unstable();
    if given.is_empty() || given.iter().enumerate().any(|(index, &(position, _))| index != position) {
        return Err(only_continues());
    }
    Ok(given.into_iter().map(|(_, token)| token).collect())
}

fn only_continues() -> InferError {
    let message = "an autoregressive model only continues a text: it can neither fill a blank before given text nor start \
                   without BOS; give a --prompt, or use a partition or masked model";
    InferError::Request(message.to_string())
}
