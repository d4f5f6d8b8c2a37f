//! Batches of pictures. The pictures of a step are a function of (seed, step).
//
// B pictures of a micro-batch, C channels, H x W pixels

use std::ops::Range;
use std::sync::Arc;

use burn::data::dataloader::{DataLoader, DataLoaderIterator};
use burn::data::dataset::DatasetError;
use burn::tensor::{Device, Tensor, TensorData};
use pgm_data::{PixelRows, PixelShape, RowOrder};

use super::pictures::pixels_of_bytes;
use crate::batches::BatchIterator;

/// A micro-batch of pictures.
#[derive(Clone, Debug)]
pub struct PictureBatch {
    /// Pixels in -1 to 1, `[B, C, H, W]`.
    pub pixels: Tensor<4>,
    /// Its share of the step.
    pub scale: f64,
}

/// Which pictures a batch has.
#[derive(Clone, Debug)]
enum Pictures {
    /// Those of a step, in micro-batches.
    Training { order: RowOrder, accumulate: usize },
    /// The first so many, one after the other.
    Validation { n_rows: usize },
}

/// The batches of a training or a validation.
#[derive(Clone)]
pub(super) struct PictureLoader {
    rows: Arc<PixelRows>,
    shape: PixelShape,
    pictures: Pictures,
    /// Pictures of a micro-batch.
    batch: usize,
    device: Device,
    batches: Range<usize>,
}

impl PictureLoader {
    /// Micro-batches of the steps of a training, which has `batch` pictures in each of `accumulate`.
    pub(super) fn training(
        rows: Arc<PixelRows>,
        (seed, steps): (u64, Range<usize>),
        [batch, accumulate]: [usize; 2],
        device: &Device,
    ) -> Self {
        let pictures = Pictures::Training { order: RowOrder::new(seed, rows.len()), accumulate };
        let batches = steps.start * accumulate..steps.end * accumulate;
        Self { shape: shape_of(&rows), rows, pictures, batch, device: device.clone(), batches }
    }

    /// Batches of the first `n_rows` pictures; 0 takes all.
    pub(super) fn validation(rows: Arc<PixelRows>, n_rows: usize, batch: usize, device: &Device) -> Self {
        let n_rows = if n_rows == 0 { rows.len() } else { n_rows.min(rows.len()) };
        let (pictures, batches) = (Pictures::Validation { n_rows }, 0..n_rows.div_ceil(batch));
        Self { shape: shape_of(&rows), rows, pictures, batch, device: device.clone(), batches }
    }

    fn batch(&self, index: usize) -> Result<PictureBatch, DatasetError> {
        let (rows, scale) = match &self.pictures {
            Pictures::Training { order, accumulate } => {
                let mut rows = order.step((index / accumulate) as u64, self.batch * accumulate);
                let part = index % accumulate;
                (rows.drain(part * self.batch..(part + 1) * self.batch).collect(), 1.0 / *accumulate as f64)
            }
            Pictures::Validation { n_rows } => {
                ((index * self.batch..((index + 1) * self.batch).min(*n_rows)).collect::<Vec<usize>>(), 1.0)
            }
        };
        let pixels = pictures_of(&self.rows, &rows, self.shape, &self.device)?;
        Ok(PictureBatch { pixels, scale })
    }
}

/// The pictures at these indices, `[B, C, H, W]`.
pub(super) fn pictures_of(
    rows: &PixelRows,
    indices: &[usize],
    shape: PixelShape,
    device: &Device,
) -> Result<Tensor<4>, DatasetError> {
    let mut values = Vec::with_capacity(indices.len() * shape.len());
    for &index in indices {
        let bytes = rows.pixels(index).map_err(DatasetError::new)?;
        values.extend(pixels_of_bytes(&bytes, shape.channels));
    }
    let PixelShape { height, width, channels } = shape;
    Ok(Tensor::from_data(TensorData::new(values, [indices.len(), channels, height, width]), device))
}

/// The shape of the pictures; a folder of pixels always has one.
pub(super) fn shape_of(rows: &PixelRows) -> PixelShape {
    rows.info().pixels.expect("rows of pixels have a shape")
}

impl DataLoader<PictureBatch> for PictureLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<PictureBatch> + 'a> {
        Box::new(BatchIterator::new(self.batches.clone(), |index| Ok(vec![self.batch(index)?])))
    }

    fn num_items(&self) -> usize {
        self.batches.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<PictureBatch>> {
        Arc::new(Self { device: device.clone(), ..self.clone() })
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<PictureBatch>> {
        Arc::new(Self { batches: self.batches.start + start..self.batches.start + end, ..self.clone() })
    }
}
