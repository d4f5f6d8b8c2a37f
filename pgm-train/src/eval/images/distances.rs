//! Products of all rows of one set with all rows of another, block by block.

use faer::Mat;

use super::statistics::FeatureSet;
use crate::TrainError;

const ROWS: usize = 512;
const COLUMNS: usize = 2048;

/// Calls `visit` with blocks `[R, C]` of the scalar products of rows of `a` and `b`, and the indices of the block's first
/// row and column. In float64.
///
/// # Errors
/// [`TrainError::Judge`] when the sets have different widths.
pub(super) fn products(
    a: &FeatureSet,
    b: &FeatureSet,
    mut visit: impl FnMut(usize, usize, &Mat<f64>),
) -> Result<(), TrainError> {
    if a.width() != b.width() {
        let problem = format!("the two sets have features of width {} and {}", a.width(), b.width());
        return Err(TrainError::judge("features of pictures", problem));
    }
    for first_column in (0..b.n_rows()).step_by(COLUMNS) {
        let columns = b.block(first_column, (first_column + COLUMNS).min(b.n_rows()));
        for first_row in (0..a.n_rows()).step_by(ROWS) {
            let rows = a.block(first_row, (first_row + ROWS).min(a.n_rows()));
            visit(first_row, first_column, &(&rows * columns.transpose()));
        }
    }
    Ok(())
}

/// The squared length of each row.
pub(super) fn squared_lengths(set: &FeatureSet) -> Vec<f64> {
    (0..set.n_rows()).map(|row| set.row(row).iter().map(|&value| f64::from(value).powi(2)).sum()).collect()
}
