//! The partition model as a denoiser, by its sampling path and by its training path.
//!
//! Shapes: B rows, L length, K positions, H hidden.

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_model::ops::is_flex;
use pgm_model::{Class, CleanTokens, ModelConfig, PackedRows, Partition, PartitionTransformer, Positions};

use super::as_published::{WithDropout, has_quirks};
use super::images::Drawable;
use super::rows::{by_length, dense, to_vecs};
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
    with_dropout: WithDropout,
}

impl<'a> PartitionDenoiser<'a> {
    /// The network on its device; the mask is never drawn.
    pub fn new(model: &'a PartitionTransformer, device: &'a Device, mask_index: usize) -> Self {
        let (drawable, with_dropout) = (Drawable::without(mask_index), WithDropout::new(hidden_from_clean));
        Self { model, device, mask_index, drawable, with_dropout }
    }

    /// The network of this configuration: of a model of image codes, rows may have classes.
    pub fn of(model: &'a PartitionTransformer, device: &'a Device, config: &ModelConfig) -> Self {
        Self { drawable: Drawable::new(config), ..Self::new(model, device, config.backbone().mask_index) }
    }
}

impl Denoiser for PartitionDenoiser<'_> {
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits<'_>, InferError> {
        let head = Box::new(|hidden| self.model.logits(hidden));
        if has_quirks(rows) {
            return Ok(Logits::from_parts(self.with_dropout.parts(self.model, rows, positions, self.device)?, head));
        }
        let counts = || positions.iter().map(|row| row.len());
        let shapes = || rows.iter().map(|row| row.positions.len()).zip(counts());
        // On Flex, attention over packed rows costs only the tokens of each row, so nothing is padded.
        if is_flex(self.device) && counts().any(|n| n > 0) && shapes().any(|shape| Some(shape) != shapes().next()) {
            let tokens: Vec<&[u32]> = rows.iter().map(|row| row.tokens.as_slice()).collect();
            let clean: Vec<&[usize]> = rows.iter().map(|row| row.positions.as_slice()).collect();
            let packed = PackedRows::new(&tokens, &clean, positions, self.device);
            let packed = match classes(rows) {
                Some(classes) => packed.with_classes(classes),
                None => packed,
            };
            let hidden = self.model.decode_hidden_packed(&self.model.encode_packed(&packed), &packed);
            return Ok(Logits::from_packed(hidden, counts(), head));
        }
        Ok(Logits::from_hidden(hidden_from_clean(self.model, rows, positions, self.device), head))
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

// The width of a row of `n` tokens. Kernels of a GPU are compiled and tuned for each shape, so there are few shapes: powers
// of two up to 64, then multiples of 64.
fn width_for(n: usize, device: &Device) -> usize {
    match n {
        _ if in_host_memory(device) => n,
        0..=64 => n.next_power_of_two(),
        _ => n.next_multiple_of(64),
    }
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
