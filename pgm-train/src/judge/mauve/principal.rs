//! Principal components.
// N rows, D their width, C components

use faer::{Mat, Side};

use crate::TrainError;

/// The coordinates of the rows along the first principal components, as many as it takes to keep a share of the variance.
///
/// The eigenvectors are those of the covariance, or, where there are fewer rows than columns, of the products of the rows.
///
/// # Shapes
/// `[N, D] -> [N, C]`, C at least 1
///
/// # Errors
/// [`TrainError::Judge`] when the eigenvalues are not found.
pub(super) fn components(rows: &[Vec<f64>], kept: f64) -> Result<Vec<Vec<f64>>, TrainError> {
    let (n_rows, width) = (rows.len(), rows[0].len());
    let mean: Vec<f64> = (0..width).map(|at| rows.iter().map(|row| row[at]).sum::<f64>() / n_rows as f64).collect();
    let centred = Mat::from_fn(n_rows, width, |row, at| rows[row][at] - mean[at]);
    let by_rows = n_rows < width;
    let products = if by_rows { &centred * centred.transpose() } else { centred.transpose() * &centred };
    let eigen = products
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| TrainError::judge("MAUVE", "the eigenvalues of the features' covariance were not found"))?;
    let (vectors, values) = (eigen.U(), eigen.S().column_vector());
    // Rounding makes eigenvalues of 0 slightly negative.
    let value = |at: usize| values[at].max(0.0);
    let mut order: Vec<usize> = (0..products.nrows()).collect();
    order.sort_by(|&a, &b| value(b).total_cmp(&value(a)));
    let all: f64 = order.iter().map(|&at| value(at)).sum();
    let mut so_far = 0.0;
    let enough = order.iter().position(|&at| {
        so_far += value(at);
        so_far >= kept * all
    });
    order.truncate(enough.map_or(order.len(), |last| last + 1));
    if by_rows {
        let coordinate = |row: usize, at: usize| vectors[(row, at)] * value(at).sqrt();
        return Ok((0..n_rows).map(|row| order.iter().map(|&at| coordinate(row, at)).collect()).collect());
    }
    let projected = &centred * vectors; // [N, D]
    Ok((0..n_rows).map(|row| order.iter().map(|&at| projected[(row, at)]).collect()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Points of a plane in six dimensions, with variances 9 to 1 along two orthogonal directions.
    fn plane(n: usize) -> Vec<Vec<f64>> {
        let (a, b) = ([0.6, 0.8, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.8, 0.0, -0.6]);
        let turn = |i: usize| i as f64 / n as f64 * std::f64::consts::TAU;
        let row = |i: usize| (0..6).map(|at| 3.0 * turn(i).cos() * a[at] + turn(i).sin() * b[at] + 5.0).collect();
        (0..n).map(row).collect()
    }

    fn squared_distance(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
    }

    #[test]
    fn components_keep_the_asked_share_of_the_variance_and_distances_within_it() {
        // More rows than columns, and fewer.
        for n in [12, 5] {
            let rows = plane(n);
            let one = components(&rows, 0.89).unwrap();
            assert!(one.iter().all(|row| row.len() == 1), "{n}");
            for (i, row) in one.iter().enumerate() {
                let expected = 3.0 * (i as f64 / n as f64 * std::f64::consts::TAU).cos();
                assert!((row[0].abs() - expected.abs()).abs() < 1e-9, "{n} {i}: {row:?} {expected}");
            }
            let two = components(&rows, 0.95).unwrap();
            assert!(two.iter().all(|row| row.len() == 2));
            for i in 1..n {
                let (before, after) = (squared_distance(&rows[0], &rows[i]), squared_distance(&two[0], &two[i]));
                assert!((before - after).abs() < 1e-9, "{n} {i}");
            }
        }
    }

    #[test]
    fn rows_without_variance_keep_one_component() {
        assert_eq!(components(&vec![vec![2.0, 1.0]; 3], 0.9).unwrap(), vec![vec![0.0]; 3]);
    }
}
