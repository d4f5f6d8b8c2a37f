//! Positions as tables: rotary angles for queries and keys, sinusoids for the GroupSwap's queries.
//!
//! Tokens arrive packed and out of order, so every row looks its angles up at its own true positions.
//!
//! Shapes: B batch, S positions, h heads, d head width, P table rows, W table width: twice the frequencies.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, FloatDType, Tensor, TensorData};

use crate::plan::Positions;

const BASE: f32 = 10_000.0;

/// Cosines, then sines, of a set of frequencies at positions `0..P`: `[P, W]`.
#[derive(Clone, Debug)]
pub(crate) struct AngleTable(Tensor<2>);

impl AngleTable {
    /// Looks the table up at positions it holds: `[B, S] -> [B, S, W]`.
    pub(crate) fn at(&self, positions: &Positions) -> Tensor<3> {
        let [n_rows, n_positions] = positions.indices().dims();
        let index = positions.indices().clone().reshape([n_rows * n_positions]);
        self.0.clone().select(0, index).reshape([n_rows, n_positions, self.0.dims()[1]])
    }
}

/// The frequencies of a width.
pub(crate) fn frequencies(width: usize) -> Vec<f32> {
    (0..width / 2).map(|j| 1.0 / BASE.powf(2.0 * j as f32 / width as f32)).collect()
}

/// The tables of one width, one for each device in use: frequencies `10000^(-2j/width)` for `j < width/2`.
///
/// They start at the trained length and grow when a longer sequence asks. Clones of a model share them.
#[derive(Clone, Debug)]
pub(crate) struct AngleTables {
    frequencies: Vec<f32>,
    length: usize,
    made: Arc<Mutex<Vec<(Device, AngleTable)>>>,
}

impl AngleTables {
    pub(crate) fn new(width: usize, length: usize) -> Self {
        Self { frequencies: frequencies(width), length, made: Arc::default() }
    }

    /// A table on `device` that holds positions below `span`.
    pub(crate) fn get(&self, span: usize, device: &Device) -> AngleTable {
        let device = device.clone().without_autodiff();
        // A table is replaced whole, so one that another thread left behind in a panic is still good.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let known = made.iter().position(|(known, _)| *known == device);
        if let Some(index) = known {
            if made[index].1.0.dims()[0] >= span {
                return made[index].1.clone();
            }
            made.swap_remove(index);
        }
        let table = self.make(span.max(self.length), &device);
        made.push((device, table.clone()));
        table
    }

    // Made on the host in float32, as the public code makes them, so that every backend has the same ones.
    fn make(&self, length: usize, device: &Device) -> AngleTable {
        let row = |position: usize| {
            let angles = self.frequencies.iter().map(move |frequency| position as f32 * frequency);
            angles.clone().map(f32::cos).chain(angles.map(f32::sin))
        };
        let numbers: Vec<f32> = (0..length).flat_map(row).collect();
        let shape = [length, 2 * self.frequencies.len()];
        AngleTable(Tensor::from_data(TensorData::new(numbers, shape), device))
    }
}

/// Rotary angles at the positions of one set of tokens: cosines, then sines, `[B or 1, S, d]`.
#[derive(Clone, Debug)]
pub struct RotaryAngles(Tensor<3>);

impl RotaryAngles {
    pub(crate) fn new(tables: &AngleTables, positions: &Positions) -> Self {
        Self(tables.get(positions.span(), &positions.indices().device()).at(positions))
    }

    /// Angles at positions `0..length` of each of `n_rows` rows, for heads of width `head_dim`.
    pub fn at_all(n_rows: usize, length: usize, head_dim: usize, device: &Device) -> Self {
        Self::new(&AngleTables::new(head_dim, length), &Positions::all(n_rows, length, device))
    }

    /// `[B or 1, S, d]`.
    #[cfg_attr(not(feature = "fused"), allow(dead_code))]
    pub(crate) fn table(&self) -> Tensor<3> {
        self.0.clone()
    }

    /// Rotates queries or keys in the half-split form: the first half of a head is the real part.
    ///
    /// # Shapes
    /// `[B, h, S, d] -> [B, h, S, d]`
    pub fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let (real, imaginary) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let dtype: FloatDType = real.dtype().into();
        let [cos, sin] = [0, half].map(|first| self.0.clone().narrow(2, first, half).unsqueeze_dim(1).cast(dtype));
        let turned_real = real.clone() * cos.clone() - imaginary.clone() * sin.clone();
        let turned_imaginary = imaginary * cos + real * sin;
        Tensor::cat(vec![turned_real, turned_imaginary], 3)
    }
}
