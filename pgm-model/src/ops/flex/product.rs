//! The matrix product.
//!
//! With AVX-512, and on processors that are not x86, it is the `gemm` crate's. With AVX2 it is `avx2.rs`, which takes half of
//! that time where one side has few rows, as in sampling, and no more where both are large.

#[cfg(target_arch = "x86_64")]
use super::avx2;

/// Multiplications from which a product is worth several threads.
const PARALLEL: usize = 1 << 21;

/// A matrix within a slice: where it begins, and how far apart its rows and its columns are.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    values: &'a [f32],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    pub(super) fn rows(values: &'a [f32], row: usize) -> Self {
        Self { values, strides: [row, 1] }
    }

    pub(super) fn transposed(self) -> Self {
        Self { values: self.values, strides: [self.strides[1], self.strides[0]] }
    }

    fn holds(&self, [rows, columns]: [usize; 2]) -> bool {
        (rows - 1) * self.strides[0] + (columns - 1) * self.strides[1] < self.values.len()
    }
}

/// `out = lhs rhs`, or its addition to `out`, for `lhs [m, k]`, `rhs [k, n]` and `out [m, n]`, whose rows are contiguous
/// and `row` apart, on all threads where it pays. The result does not depend on how many there are.
pub(super) fn product(out: &mut [f32], row: usize, add: bool, lhs: Matrix<'_>, rhs: Matrix<'_>, sizes: [usize; 3]) {
    let parallel = sizes.into_iter().fold(1, usize::saturating_mul) >= PARALLEL;
    run(out, row, add, lhs, rhs, sizes, parallel);
}

/// The same on this thread.
pub(super) fn product_here(
    out: &mut [f32],
    row: usize,
    add: bool,
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    sizes: [usize; 3],
) {
    run(out, row, add, lhs, rhs, sizes, false);
}

fn run(
    out: &mut [f32],
    row: usize,
    add: bool,
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    [m, k, n]: [usize; 3],
    parallel: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(row >= n && (m - 1) * row + n <= out.len());
    if k == 0 {
        let rows = out.chunks_mut(row).take(if add { 0 } else { m });
        return rows.for_each(|out| out[..n].fill(0.0));
    }
    assert!(lhs.holds([m, k]) && rhs.holds([k, n]));
    #[cfg(target_arch = "x86_64")]
    if avx2::is_best() {
        let (lhs, rhs) = ((lhs.values.as_ptr(), lhs.strides), (rhs.values.as_ptr(), rhs.strides));
        // SAFETY: the assertions say that the three matrices lie within their slices, and `out` is borrowed alone.
        return unsafe { avx2::product((out.as_mut_ptr(), row), add, lhs, rhs, [m, k, n], parallel) };
    }
    let stride = |stride: usize| stride as isize;
    // SAFETY: as above.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride(row),
            add,
            lhs.values.as_ptr(),
            stride(lhs.strides[1]),
            stride(lhs.strides[0]),
            rhs.values.as_ptr(),
            stride(rhs.strides[1]),
            stride(rhs.strides[0]),
            1.0,
            1.0,
            false,
            false,
            false,
            if parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None },
        );
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    // Sizes around those of tiles, panels and blocks, in every form, into a part of a wider matrix.
    #[test]
    fn products_equal_sums_in_float64() {
        let mut rng = StdRng::seed_from_u64(3);
        let sizes = [
            [1, 1, 1],
            [3, 0, 20],
            [1, 300, 17],
            [6, 256, 16],
            [7, 257, 33],
            [13, 3, 300],
            [100, 70, 15],
            [97, 513, 64],
            [205, 31, 130],
            [2, 3100, 40],
            [40, 20, 1100],
        ];
        for [m, k, n] in sizes {
            for (lhs_transposed, rhs_transposed, add) in
                [(false, false, false), (false, true, true), (true, false, true), (true, true, false)]
            {
                let mut draw = |n: usize| (0..n).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
                let (a, b, before, row) = (draw(m * k), draw(k * n), draw(m * (n + 3)), n + 3);
                let of = |values, rows, columns, transposed| match transposed {
                    true => Matrix::rows(values, rows).transposed(),
                    false => Matrix::rows(values, columns),
                };
                let (lhs, rhs) = (of(&a, m, k, lhs_transposed), of(&b, k, n, rhs_transposed));
                let at = |matrix: &Matrix<'_>, i: usize, j: usize| {
                    f64::from(matrix.values[i * matrix.strides[0] + j * matrix.strides[1]])
                };
                let run = |parallel| {
                    let mut out = before.clone();
                    super::run(&mut out, row, add, lhs, rhs, [m, k, n], parallel);
                    out
                };
                let out = run(false);
                assert_eq!(out, run(true), "threads change nothing");
                for i in 0..m {
                    for j in 0..row {
                        let old = f64::from(before[i * row + j]);
                        let sum: f64 = (0..if j < n { k } else { 0 }).map(|p| at(&lhs, i, p) * at(&rhs, p, j)).sum();
                        let expected = if add || j >= n { old + sum } else { sum };
                        let error = (f64::from(out[i * row + j]) - expected).abs();
                        assert!(error < 1e-6 * (k as f64).sqrt().max(4.0), "{m} {k} {n}, {i} {j}: {error:e}");
                    }
                }
            }
        }
    }
}
