//! The partition model as a denoiser, by its sampling path and by its training path.
//!
//! Shapes: B rows, L length, K positions, H hidden.

use std::cell::RefCell;

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_model::ops::is_flex;
use pgm_model::{Class, CleanTokens, ModelConfig, PackedRows, Partition, PartitionTransformer, Positions};

use super::as_published::{WithDropout, has_quirks};
use super::images::Drawable;
use super::kept_rows::KeptRows;
use super::rows::{by_length, dense, to_vecs};
use super::shared_rows::SharedRows;
use crate::InferError;
use crate::sample::logits::{Logits, in_host_memory};
use crate::sample::{CleanRow, Denoiser, SampleRequest, SampleRow, SampleSettings};

/// The sampling path: only clean tokens are processed, and rows that differ in their number are packed where that is
/// faster.
#[derive(Debug)]
pub struct PartitionDenoiser<'a> {
    model: &'a PartitionTransformer,
    device: &'a Device,
    mask_index: usize,
    drawable: Drawable,
    kept: RefCell<KeptRows>,
    with_dropout: WithDropout,
}

impl<'a> PartitionDenoiser<'a> {
    /// The network on its device; the mask is never drawn.
    pub fn new(model: &'a PartitionTransformer, device: &'a Device, mask_index: usize) -> Self {
        let (drawable, with_dropout) = (Drawable::without(mask_index), WithDropout::new(hidden_from_clean));
        Self { model, device, mask_index, drawable, with_dropout, kept: RefCell::default() }
    }

    /// The network of this configuration: of a model of image codes, rows may have classes.
    pub fn of(model: &'a PartitionTransformer, device: &'a Device, config: &ModelConfig) -> Self {
        Self { drawable: Drawable::new(config), ..Self::new(model, device, config.backbone().mask_index) }
    }
}

impl PartitionDenoiser<'_> {
    // Hidden states of rows that are encoded anew: packed `[1, K, H]`, or as `hidden_from_clean`; and whether they are packed.
    fn hidden(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> (Tensor<3>, bool) {
        let shapes = || rows.iter().map(|row| row.positions.len()).zip(positions.iter().map(|row| row.len()));
        let is_any = shapes().any(|(_, n)| n > 0);
        // On Flex, attention over packed rows costs only the tokens of each row, so nothing is padded.
        if is_flex(self.device) && is_any && shapes().any(|shape| Some(shape) != shapes().next()) {
            let tokens: Vec<&[u32]> = rows.iter().map(|row| row.tokens.as_slice()).collect();
            let clean: Vec<&[usize]> = rows.iter().map(|row| row.positions.as_slice()).collect();
            let packed = PackedRows::new(&tokens, &clean, positions, self.device);
            let packed = match classes(rows) {
                Some(classes) => packed.with_classes(classes),
                None => packed,
            };
            return (self.model.decode_hidden_packed(&self.model.encode_packed(&packed), &packed), true);
        }
        (hidden_from_clean(self.model, rows, positions, self.device), false)
    }

    // Hidden states `[1, K, H]` at all positions, row after row, of rows whose encodings are kept.
    fn kept_hidden(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Tensor<3>, InferError> {
        let mut kept = self.kept.borrow_mut();
        let encoded = kept.encode(self.model, self.device, rows)?;
        let hidden = self.model.decode_rows(&encoded.iter().collect::<Vec<_>>(), positions, self.device);
        kept.keep(rows, encoded);
        Ok(hidden)
    }
}

impl Denoiser for PartitionDenoiser<'_> {
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits<'_>, InferError> {
        let head = Box::new(|hidden| self.model.logits(hidden));
        if has_quirks(rows) {
            return Ok(Logits::from_parts(self.with_dropout.parts(self.model, rows, positions, self.device)?, head));
        }
        let counts = || positions.iter().map(|row| row.len());
        let (kept, anew): (Vec<usize>, Vec<usize>) = (0..rows.len()).partition(|&row| rows[row].sets.is_some());
        if !kept.is_empty() && counts().any(|n| n > 0) {
            let of = |members: &[usize]| -> (Vec<&CleanRow>, Vec<&[usize]>) {
                members.iter().map(|&row| (rows[row], positions[row])).unzip()
            };
            let (kept_rows, kept_positions) = of(&kept);
            let hidden = self.kept_hidden(&kept_rows, &kept_positions)?;
            if anew.is_empty() {
                return Ok(Logits::from_packed(hidden, counts(), head));
            }
            let starts = kept_positions.iter().scan(0, |next, row| Some(std::mem::replace(next, *next + row.len())));
            let parts = kept.iter().zip(&kept_positions).zip(starts);
            let mut parts: Vec<(Tensor<3>, Vec<usize>)> = parts
                .map(|((&row, positions), start)| (hidden.clone().narrow(1, start, positions.len()), vec![row]))
                .collect();
            let (anew_rows, anew_positions) = of(&anew);
            parts.push((hidden_from_clean(self.model, &anew_rows, &anew_positions, self.device), anew));
            return Ok(Logits::from_parts(parts, head));
        }
        let Some(shared) = SharedRows::of(rows, positions) else {
            let (hidden, is_packed) = self.hidden(rows, positions);
            return Ok(match is_packed {
                true => Logits::from_packed(hidden, counts(), head),
                false => Logits::from_hidden(hidden, head),
            });
        };
        let positions: Vec<&[usize]> = shared.positions.iter().map(Vec::as_slice).collect();
        let (hidden, is_packed) = self.hidden(&shared.rows, &positions);
        let width = hidden.dims()[1];
        let start = |distinct: usize| match is_packed {
            true => positions[..distinct].iter().map(|row| row.len()).sum(),
            false => distinct * width,
        };
        Ok(Logits::from_places(hidden, shared.starts(start), head))
    }

    fn mask_index(&self) -> usize {
        self.mask_index
    }

    fn excluded_classes(&self) -> &[usize] {
        &self.drawable.excluded
    }

    fn bound_cache(&self, max_bytes: usize) {
        self.kept.borrow_mut().set_max_bytes(max_bytes);
    }

    fn cache_bytes(&self) -> usize {
        self.kept.borrow().n_bytes()
    }

    fn row(&self, request: &SampleRequest, settings: &SampleSettings) -> Result<SampleRow, InferError> {
        self.drawable.check(request)?;
        SampleRow::new(request, settings)
    }
}

/// Hidden states `[B, K', H]` from clean tokens; K' is the largest number of positions, rounded up on GPUs.
pub(super) fn hidden_from_clean(
    model: &PartitionTransformer,
    rows: &[&CleanRow],
    positions: &[&[usize]],
    device: &Device,
) -> Tensor<3> {
    let tokens: Vec<Vec<u32>> = rows.iter().map(|row| row.tokens.clone()).collect();
    let clean: Vec<Vec<usize>> = rows.iter().map(|row| row.positions.clone()).collect();
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
    let n_clean = width_for(longest(&mut clean.iter().map(Vec::len)), device);
    let n_positions = width_for(longest(&mut positions.iter().map(|row| row.len())), device);
    let queries = Positions::padded(&to_vecs(positions), n_positions, device);
    let clean = CleanTokens::padded(&tokens, &clean, n_clean, device);
    let clean = match sets(rows) {
        Some(sets) => clean.with_sets(&sets),
        None => clean,
    };
    let clean = match classes(rows) {
        Some(classes) => clean.with_classes(classes),
        None => clean,
    };
    model.decode_hidden(&model.encode(&clean), &queries)
}

// The class of each row; none if no row has one, as in a text model.
fn classes(rows: &[&CleanRow]) -> Option<Vec<Class>> {
    rows.iter().any(|row| row.class.is_some()).then(|| rows.iter().map(|row| row.class).collect())
}

// The set of each token, from 0; none if no row has sets.
fn sets(rows: &[&CleanRow]) -> Option<Vec<Vec<usize>>> {
    rows.iter().any(|row| row.sets.is_some()).then(|| rows.iter().map(|row| sets_of(row)).collect())
}

// The sets of a row counted from its earliest, to which registers belong.
fn sets_of(row: &CleanRow) -> Vec<usize> {
    let Some(sets) = &row.sets else { return vec![0; row.tokens.len()] };
    let first = sets.iter().copied().min().unwrap_or(0);
    sets.iter().map(|set| set - first).collect()
}

// The width of a row of `n` tokens. Kernels of a GPU are compiled and tuned for each shape, so there are few shapes: powers
// of two up to 64, then multiples of 64.
fn width_for(n: usize, device: &Device) -> usize {
    match n {
        _ if in_host_memory(device) => n,
        0..=64 => n.next_power_of_two(),
        _ => n.next_multiple_of(64),
    }
}

// The set of each position; 0 where a row is open.
fn sets_by_position(row: &CleanRow, length: usize) -> Vec<usize> {
    let mut by_position = vec![0; length];
    row.positions.iter().zip(sets_of(row)).for_each(|(&position, set)| by_position[position] = set);
    by_position
}

/// The training path over the full length: slow, the reference for the sampling path.
#[derive(Debug)]
pub struct FullDenoiser<'a> {
    model: &'a PartitionTransformer,
    device: &'a Device,
    mask_index: usize,
    drawable: Drawable,
}

impl<'a> FullDenoiser<'a> {
    /// The network on its device; the mask is never drawn.
    pub fn new(model: &'a PartitionTransformer, device: &'a Device, mask_index: usize) -> Self {
        Self { model, device, mask_index, drawable: Drawable::without(mask_index) }
    }

    /// The network of this configuration: of a model of image codes, rows may have classes.
    pub fn of(model: &'a PartitionTransformer, device: &'a Device, config: &ModelConfig) -> Self {
        Self { drawable: Drawable::new(config), ..Self::new(model, device, config.backbone().mask_index) }
    }

    // [B, K, H]
    fn hidden(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Tensor<3> {
        let tokens = dense(rows, 0, self.device);
        let length = tokens.dims()[1];
        let groups: Vec<Vec<bool>> = rows
            .iter()
            .map(|row| {
                let mut open = vec![true; length];
                row.positions.iter().for_each(|&position| open[position] = false);
                open
            })
            .collect();
        let partition = Partition::from_rows(&groups, self.device);
        let partition = match rows.iter().any(|row| row.sets.is_some()) {
            true => partition.with_sets(&rows.iter().map(|row| sets_by_position(row, length)).collect::<Vec<_>>()),
            false => partition,
        };
        let partition = match classes(rows) {
            Some(classes) => partition.with_classes(classes),
            None => partition,
        };
        let all = self.model.hidden_partition(tokens, &partition); // [B, L, H]
        let width = all.dims()[2];
        let n_positions = positions.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut index = Vec::with_capacity(rows.len() * n_positions);
        for (row, positions) in positions.iter().enumerate() {
            index.extend(positions.iter().map(|position| (row * length + position) as i32));
            index.resize((row + 1) * n_positions, 0);
        }
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [rows.len() * n_positions]), self.device);
        let chosen = all.reshape([rows.len() * length, width]).select(0, index);
        chosen.reshape([rows.len(), n_positions, width])
    }
}

impl Denoiser for FullDenoiser<'_> {
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits<'_>, InferError> {
        let parts = by_length(rows, positions, |rows, positions| self.hidden(rows, positions));
        Ok(Logits::from_parts(parts, Box::new(|hidden| self.model.logits(hidden))))
    }

    fn mask_index(&self) -> usize {
        self.mask_index
    }

    fn excluded_classes(&self) -> &[usize] {
        &self.drawable.excluded
    }

    fn row(&self, request: &SampleRequest, settings: &SampleSettings) -> Result<SampleRow, InferError> {
        self.drawable.check(request)?;
        SampleRow::new(request, settings)
    }
}
