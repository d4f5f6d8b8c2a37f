//! Position tables: rotary angles for queries and keys, sinusoids for the GroupSwap's queries.
//!
//! Clean tokens come in any order, so each row looks up the angles of its own positions.
// B batch, S positions, h heads, d head width, P rows of a table, W width of a table: twice the number of frequencies

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, FloatDType, Tensor, TensorData, assert_shape};

use crate::sequence::Positions;

const BASE: f32 = 10_000.0;

/// Cosines, then sines, of all frequencies at positions `0..P`: `[P, W]`.
#[derive(Clone, Debug)]
pub(crate) struct AngleTable(Tensor<2>);

impl AngleTable {
    /// The rows of `positions`, which must be below P: `[B, S] -> [B, S, W]`.
    pub(crate) fn at(&self, positions: &Positions) -> Tensor<3> {
        let [n_rows, n_positions] = positions.indices().dims();
        let index = positions.indices().clone().reshape([n_rows * n_positions]);
        self.0.clone().select(0, index).reshape([n_rows, n_positions, self.0.dims()[1]]) // [B, S, W]
    }

    fn length(&self) -> usize {
        self.0.dims()[0]
    }
}

/// The frequencies `10000^(-2j/width)` for `j < width/2`.
pub(crate) fn frequencies(width: usize) -> Vec<f32> {
    (0..width / 2).map(|j| 1.0 / BASE.powf(2.0 * j as f32 / width as f32)).collect()
}

/// The tables of one width, one for each device in use.
///
/// A table starts at the trained length. For a longer sequence it grows to at least twice its length, so that a sequence
/// which grows token by token costs a few tables. Clones of a model share the tables.
#[derive(Clone, Debug)]
pub(crate) struct AngleTables {
    frequencies: Vec<f32>,
    length: usize,
    by_device: Arc<Mutex<Vec<(Device, AngleTable)>>>,
}

impl AngleTables {
    /// Tables of `width` numbers per position, for positions below `length` at first.
    pub(crate) fn new(width: usize, length: usize) -> Self {
        Self { frequencies: frequencies(width), length, by_device: Arc::default() }
    }

    /// A table on `device` that holds all positions below `span`.
    pub(crate) fn get(&self, span: usize, device: &Device) -> AngleTable {
        let device = device.clone().without_autodiff();
        // A table is replaced as a whole, so the list is valid even after a panic of another thread.
        let mut by_device = self.by_device.lock().unwrap_or_else(PoisonError::into_inner);
        let mut n_known = 0;
        if let Some(index) = by_device.iter().position(|(known, _)| *known == device) {
            let table = &by_device[index].1;
            if table.length() >= span {
                return table.clone();
            }
            n_known = table.length();
            by_device.swap_remove(index);
        }
        let table = self.compute(span.max(self.length).max(2 * n_known), &device);
        by_device.push((device, table.clone()));
        table
    }

    // Computed on the host in float32, as in the public code, so that every backend has the same numbers.
    fn compute(&self, length: usize, device: &Device) -> AngleTable {
        let row = |position: usize| {
            let angles = self.frequencies.iter().map(move |frequency| position as f32 * frequency);
            angles.clone().map(f32::cos).chain(angles.map(f32::sin))
        };
        let numbers: Vec<f32> = (0..length).flat_map(row).collect();
        let shape = [length, 2 * self.frequencies.len()];
        AngleTable(Tensor::from_data(TensorData::new(numbers, shape), device)) // [P, W]
    }
}

/// Rotary angles of a set of tokens: cosines, then sines, `[1 or B, S, d]`.
#[derive(Clone, Debug)]
pub struct RotaryAngles(Tensor<3>);

impl RotaryAngles {
    pub(crate) fn new(tables: &AngleTables, positions: &Positions) -> Self {
        Self(tables.get(positions.span(), &positions.indices().device()).at(positions))
    }

    /// Angles that were looked up before, `[1, S, d]`.
    pub(crate) fn of(table: Tensor<3>) -> Self {
        Self(table)
    }

    /// Angles of positions `0..length` in each of `n_rows` rows, for heads of width `head_dim`.
    pub fn at_all(n_rows: usize, length: usize, head_dim: usize, device: &Device) -> Self {
        Self::new(&AngleTables::new(head_dim, length), &Positions::all(n_rows, length, device))
    }

    /// Angles of 0, which rotate nothing: for attention between tokens whose positions are known otherwise.
    pub(crate) fn none(length: usize, head_dim: usize, device: &Device) -> Self {
        let half = [1, length, head_dim / 2];
        Self(Tensor::cat(vec![Tensor::ones(half, device), Tensor::zeros(half, device)], 2))
    }

    /// Cosines, then sines, `[1 or B, S, d]`.
    pub(crate) fn table(&self) -> Tensor<3> {
        self.0.clone()
    }

    /// Rotates queries or keys in the half-split form: the first half of a head holds the real parts.
    ///
    /// # Shapes
    /// `[B, h, S, d] -> [B, h, S, d]`
    pub fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, n_positions, head_dim] = self.0.dims();
        assert_shape!(x, [_, _, n_positions, head_dim]);
        let half = head_dim / 2;
        let (real, imaginary) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half)); // [B, h, S, d / 2] each
        let dtype: FloatDType = real.dtype().into();
        let [cos, sin] = [0, half].map(|first| self.0.clone().narrow(2, first, half).unsqueeze_dim(1).cast(dtype));
        let rotated_real = real.clone() * cos.clone() - imaginary.clone() * sin.clone();
        let rotated_imaginary = imaginary * cos + real * sin;
        Tensor::cat(vec![rotated_real, rotated_imaginary], 3) // [B, h, S, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_that_grows_token_by_token_computes_few_tables() {
        let (device, tables) = (Device::default(), AngleTables::new(6, 8));
        let mut lengths: Vec<usize> = (1..=1000).map(|span| tables.get(span, &device).length()).collect();
        assert!(lengths.iter().enumerate().all(|(index, &length)| length > index));
        lengths.dedup();
        assert_eq!(lengths, [8, 16, 32, 64, 128, 256, 512, 1024]);
        assert_eq!(tables.clone().get(3, &device).length(), 1024, "a clone has the grown table, and it never shrinks");
    }

    #[test]
    fn a_grown_table_has_the_numbers_of_one_computed_at_once() {
        let device = Device::default();
        let grown = AngleTables::new(10, 4);
        grown.get(4, &device);
        let (grown, whole) = (grown.get(13, &device), AngleTables::new(10, 13).get(13, &device));
        let at = |table: &AngleTable| table.at(&Positions::all(1, 13, &device)).try_into_vec_as::<f32>().unwrap();
        assert_eq!(at(&grown), at(&whole));
    }
}
