//! Matmul in float32.
//!
//! The `gemm` crate computes it with AVX-512 and on processors that are not x86, `avx2.rs` with AVX2 alone. With few
//! rows, as in sampling, `avx2.rs` takes half the crate's time; with many rows both take the same. The result does not depend
//! on the number of threads.
#![allow(unsafe_code)] // pointers into the output

#[cfg(target_arch = "x86_64")]
use super::avx2;
use super::memory::Uninit;

/// A matmul of at least this many multiplications uses several threads.
const PARALLEL: usize = 1 << 21;

/// A matrix within a slice, with the distances between its rows and between its columns.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// A matrix whose rows are contiguous and `row` numbers apart.
    pub(crate) fn rows(values: &'a [f32], row: usize) -> Self {
        Self { values, strides: [row, 1] }
    }

    pub(crate) fn transposed(self) -> Self {
        Self { values: self.values, strides: [self.strides[1], self.strides[0]] }
    }

    fn holds(&self, [rows, columns]: [usize; 2]) -> bool {
        (rows - 1) * self.strides[0] + (columns - 1) * self.strides[1] < self.values.len()
    }
}

/// `out = lhs rhs` for `lhs [m, k]` and `rhs [k, n]`, on all threads where that pays.
pub(crate) fn assign<'a>(out: &'a mut Uninit, lhs: Matrix<'_>, rhs: Matrix<'_>, sizes: [usize; 3]) -> &'a mut [f32] {
    assign_whole(out, lhs, rhs, sizes, pays(sizes))
}

/// As [`assign`] on this thread.
pub(crate) fn assign_here<'a>(
    out: &'a mut Uninit,
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    sizes: [usize; 3],
) -> &'a mut [f32] {
    assign_whole(out, lhs, rhs, sizes, false)
}

/// As [`assign`] into the first columns of rows that are `row` numbers apart; numbers between the rows stay as they are.
pub(crate) fn assign_columns(out: &mut Uninit, row: usize, lhs: Matrix<'_>, rhs: Matrix<'_>, sizes: [usize; 3]) {
    let n = out.len();
    // SAFETY: the pointer and the length are those of a slice that is borrowed alone.
    unsafe { run((out.as_mut_ptr().cast(), n), row, false, lhs, rhs, sizes, pays(sizes)) };
}

/// `out += lhs rhs` for contiguous `out [m, n]`, on all threads where that pays.
pub(crate) fn add(out: &mut [f32], lhs: Matrix<'_>, rhs: Matrix<'_>, sizes: [usize; 3]) {
    // SAFETY: the pointer and the length are those of a slice that is borrowed alone, and its numbers are written.
    unsafe { run((out.as_mut_ptr(), out.len()), sizes[2], true, lhs, rhs, sizes, pays(sizes)) };
}

/// As [`add`] on this thread.
pub(crate) fn add_here(out: &mut [f32], lhs: Matrix<'_>, rhs: Matrix<'_>, sizes: [usize; 3]) {
    // SAFETY: the pointer and the length are those of a slice that is borrowed alone, and its numbers are written.
    unsafe { run((out.as_mut_ptr(), out.len()), sizes[2], true, lhs, rhs, sizes, false) };
}

fn pays(sizes: [usize; 3]) -> bool {
    sizes.into_iter().fold(1, usize::saturating_mul) >= PARALLEL
}

fn assign_whole<'a>(
    out: &'a mut Uninit,
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    sizes: [usize; 3],
    parallel: bool,
) -> &'a mut [f32] {
    let [m, _, n] = sizes;
    assert_eq!(out.len(), m * n, "the output's size");
    // SAFETY: the pointer and the length are those of a slice that is borrowed alone. `run` writes all m n numbers.
    unsafe {
        run((out.as_mut_ptr().cast(), out.len()), n, false, lhs, rhs, sizes, parallel);
        out.assume_init_mut()
    }
}

/// # Safety
/// The pointer and the length are those of memory that nobody else uses; if `add`, its numbers are written.
unsafe fn run(
    (out, len): (*mut f32, usize),
    row: usize,
    add: bool,
    lhs: Matrix<'_>,
    rhs: Matrix<'_>,
    [m, k, n]: [usize; 3],
    #[cfg_attr(not(feature = "threads"), allow(unused_variables))] parallel: bool,
) {
    if m == 0 || n == 0 {
        return;
    }
    assert!(row >= n && (m - 1) * row + n <= len);
    if k == 0 {
        for i in 0..if add { 0 } else { m } {
            // SAFETY: the assertion says that the row lies in the memory.
            unsafe { out.add(i * row).write_bytes(0, n) };
        }
        return;
    }
    assert!(lhs.holds([m, k]) && rhs.holds([k, n]));
    #[cfg(target_arch = "x86_64")]
    if avx2::is_best() {
        let (lhs, rhs) = ((lhs.values.as_ptr(), lhs.strides), (rhs.values.as_ptr(), rhs.strides));
        // SAFETY: the processor has the instructions; the assertions say that the three matrices lie in their memory.
        return unsafe { avx2::matmul((out, row), add, lhs, rhs, [m, k, n], parallel) };
    }
    let stride = |stride: usize| stride as isize;
    #[cfg(feature = "threads")]
    let parallelism = if parallel { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    #[cfg(not(feature = "threads"))]
    let parallelism = gemm::Parallelism::None;
    // SAFETY: as above.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out,
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
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    // Sizes around those of tiles, panels and blocks, in every layout, into a part of a wider matrix.
    #[test]
    fn matmuls_equal_sums_in_float64() {
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
                    // SAFETY: the memory is a vector's.
                    unsafe { super::run((out.as_mut_ptr(), out.len()), row, add, lhs, rhs, [m, k, n], parallel) };
                    out
                };
                let out = run(false);
                assert_eq!(out, run(true), "the threads change nothing");
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
