//! Stored numbers as float32.

use crate::parallel::prelude::*;

/// Numbers of `N` bytes each as float32. It runs on all threads, because the first write to new memory takes most of the time.
///
/// With `transposed` `[rows, columns]`, the bytes are a matrix, and the result is its transpose. It is computed in tiles
/// that fit the cache. `release` is called with each part of the bytes once it is read.
pub(super) fn to_f32<const N: usize>(
    bytes: &[u8],
    transposed: Option<[usize; 2]>,
    release: &dyn Fn(&[u8]),
    number: impl Fn([u8; N]) -> f32 + Sync,
) -> Vec<f32> {
    const BAND: usize = 1 << 22;
    const TILE: usize = 32;
    let mut out = vec![0.0; bytes.len() / N];
    match transposed {
        None => {
            for (out, bytes) in out.chunks_mut(BAND).zip(bytes.chunks(BAND * N)) {
                let numbers = bytes.as_chunks::<N>().0;
                out.par_chunks_mut(BAND / 64).zip(numbers.par_chunks(BAND / 64)).for_each(|(out, numbers)| {
                    out.iter_mut().zip(numbers).for_each(|(out, bytes)| *out = number(*bytes));
                });
                release(bytes);
            }
        }
        Some([rows, columns]) => {
            let band = (BAND / columns.max(1)).next_multiple_of(TILE);
            for (start, bytes) in (0..rows).step_by(band).zip(bytes.chunks(band * columns * N)) {
                let numbers = bytes.as_chunks::<N>().0;
                // A chunk is TILE columns of the stored matrix, which are rows of the result.
                out.par_chunks_mut(TILE * rows).enumerate().for_each(|(tile, out)| {
                    for (tile_start, tile_rows) in (start..).step_by(TILE).zip(numbers.chunks(TILE * columns)) {
                        for (column, out) in (tile * TILE..).zip(out.chunks_exact_mut(rows)) {
                            for (out, row) in out[tile_start..].iter_mut().zip(tile_rows.chunks_exact(columns)) {
                                *out = number(row[column]);
                            }
                        }
                    }
                });
                release(bytes);
            }
        }
    }
    out
}
