//! Matmuls on tensor cores: sixteen rows per plane at a time.
#![allow(clippy::too_many_arguments)]

// W numbers in a word, d head width

use cubecl::cmma::MmaDefinition;
use cubecl::prelude::*;

/// The two columns of a lane's sums.
pub(crate) type Two = Const<2>;

/// Multiplies one step of the left factor by eight columns of the right factor and adds the result to the sums.
#[cube]
pub(crate) fn mma<T: Float, W: Size>(
    lhs: &Array<Vector<T, W>>,
    #[comptime] step: usize,
    rhs: &Shared<[Vector<T, W>]>,
    at: usize,
    #[comptime] second: usize,
    sums: &mut Array<Vector<f32, Two>>,
    #[comptime] tile: usize,
    #[comptime] width: usize,
) {
    let matrix = MmaDefinition::<T, T, f32>::new(16usize, 8usize, 8 * width);
    let mut rows = Array::<Vector<T, W>>::new(4usize);
    #[unroll]
    for i in 0..4usize {
        rows[i] = lhs[4 * step + i];
    }
    let mut columns = Array::<Vector<T, W>>::new(2usize);
    columns[0] = rhs[at];
    columns[1] = rhs[at + second];
    let mut before = Array::<Vector<f32, Two>>::new(2usize);
    before[0] = sums[2 * tile];
    before[1] = sums[2 * tile + 1];
    let after = matrix.execute(&rows, &columns, &before);
    sums[2 * tile] = after[0];
    sums[2 * tile + 1] = after[1];
}

/// Sums of `tiles` times eight columns, all 0.
#[cube]
pub(crate) fn zero_sums(#[comptime] tiles: usize) -> Array<Vector<f32, Two>> {
    let mut sums = Array::<Vector<f32, Two>>::new(2 * tiles);
    #[unroll]
    for i in 0..2 * tiles {
        sums[i] = Vector::new(0.0);
    }
    sums
}

/// Converts accumulators to the left factor of the next matmul, which contracts over their columns. For tf32 the columns
/// come in the lanes' order; the callers' `lane_first` and `lane_second` follow it.
#[cube]
pub(crate) fn sums_as_lhs<T: Float, W: Size>(
    sums: &Array<Vector<f32, Two>>,
    #[comptime] tiles: usize,
    #[comptime] width: usize,
) -> Array<Vector<T, W>> {
    let steps = comptime!(tiles / width);
    let mut lhs = Array::<Vector<T, W>>::new(4 * steps);
    #[unroll]
    for step in 0..steps {
        #[unroll]
        for i in 0..4usize {
            let mut word = Vector::<T, W>::empty();
            if comptime!(width == 2) {
                let two = sums[4 * step + i];
                word.insert(0usize, T::cast_from(two.extract(0usize)));
                word.insert(1usize, T::cast_from(two.extract(1usize)));
            } else {
                let two = sums[2 * step + i % 2];
                word.insert(0usize, T::cast_from(two.extract(i / 2)));
            }
            lhs[4 * step + i] = word;
        }
    }
    lhs
}

/// The vectors of two tokens as rows of a left factor, multiplied by `factor` and rotated if `rotated`.
#[cube]
pub(crate) fn load_rows<T: Float, W: Size>(
    x: &[f32],
    starts: (usize, usize),
    angles: &[f32],
    angle: (usize, usize),
    factor: f32,
    #[comptime] rotated: bool,
    #[comptime] half: usize,
    #[comptime] width: usize,
) -> Array<Vector<T, W>> {
    let t = UNIT_POS_PLANE as usize % 4;
    let steps = comptime!(half / (8 * width));
    let mut lhs = Array::<Vector<T, W>>::new(8 * steps);
    #[unroll]
    for step in 0..steps {
        #[unroll]
        for part in 0..2usize {
            let mut low_0 = Vector::<T, W>::empty();
            let mut low_1 = Vector::<T, W>::empty();
            let mut high_0 = Vector::<T, W>::empty();
            let mut high_1 = Vector::<T, W>::empty();
            #[unroll]
            for e in 0..width {
                let i = 8 * width * step + 4 * width * part + width * t + e;
                let (low, high) = load_pair(x, starts.0, angles, angle.0, i, rotated, half);
                low_0.insert(e, T::cast_from(low * factor));
                high_0.insert(e, T::cast_from(high * factor));
                let (low, high) = load_pair(x, starts.1, angles, angle.1, i, rotated, half);
                low_1.insert(e, T::cast_from(low * factor));
                high_1.insert(e, T::cast_from(high * factor));
            }
            lhs[4 * step + 2 * part] = low_0;
            lhs[4 * step + 2 * part + 1] = low_1;
            lhs[4 * (steps + step) + 2 * part] = high_0;
            lhs[4 * (steps + step) + 2 * part + 1] = high_1;
        }
    }
    lhs
}

/// Element `i` of both halves of a vector, rotated if `rotated`.
#[cube]
pub(crate) fn load_pair(
    x: &[f32],
    start: usize,
    angles: &[f32],
    angle: usize,
    i: usize,
    #[comptime] rotated: bool,
    #[comptime] half: usize,
) -> (f32, f32) {
    let (real, imaginary) = (x[start + i], x[start + half + i]);
    if comptime!(rotated) {
        let (cos, sin) = (angles[angle + i], angles[angle + half + i]);
        (real * cos - imaginary * sin, imaginary * cos + real * sin)
    } else {
        (real, imaginary)
    }
}

/// The maximum over the four lanes of a row.
#[cube]
pub(crate) fn row_max(value: f32) -> f32 {
    let value = value.max(plane_shuffle_xor(value, 1));
    value.max(plane_shuffle_xor(value, 2))
}

/// The sum over the four lanes of a row.
#[cube]
pub(crate) fn row_sum(value: f32) -> f32 {
    let value = value + plane_shuffle_xor(value, 1);
    value + plane_shuffle_xor(value, 2)
}

/// Stores one row of sums as the gradient of a vector that was multiplied by `factor` and rotated.
#[cube]
pub(crate) fn store_rotated_grad(
    to: &mut [f32],
    start: usize,
    angles: &[f32],
    angle: usize,
    sums: &Array<Vector<f32, Two>>,
    factor: f32,
    #[comptime] second: usize,
    #[comptime] half: usize,
) {
    let t = UNIT_POS_PLANE as usize % 4;
    #[unroll]
    for tile in 0..comptime!(half / 8) {
        #[unroll]
        for e in 0..2usize {
            let i = 8 * tile + 2 * t + e;
            let real = sums[2 * tile + second].extract(e) * factor;
            let imaginary = sums[2 * (half / 8 + tile) + second].extract(e) * factor;
            let (cos, sin) = (angles[angle + i], angles[angle + half + i]);
            to[start + i] = real * cos + imaginary * sin;
            to[start + half + i] = imaginary * cos - real * sin;
        }
    }
}

/// Stores one row of sums.
#[cube]
pub(crate) fn store_row(
    to: &mut [f32],
    start: usize,
    sums: &Array<Vector<f32, Two>>,
    #[comptime] second: usize,
    #[comptime] d: usize,
) {
    let t = UNIT_POS_PLANE as usize % 4;
    #[unroll]
    for tile in 0..comptime!(d / 8) {
        #[unroll]
        for e in 0..2usize {
            to[start + 8 * tile + 2 * t + e] = sums[2 * tile + second].extract(e);
        }
    }
}
