//! Matmul with AVX2 and FMA.
//!
//! A tile of the result, [`MR`] x [`NR`], stays in registers over [`KC`] steps of the inner dimension: 12 FMAs for 2 loads
//! and 6 broadcasts. That is the processor's peak while both factors are in L1 and L2. So the right factor is packed into
//! panels of `NR` columns. The left factor is packed only if its inner dimension is not contiguous. Each task sums over
//! the whole inner dimension in one order, so results do not depend on the number of tasks.
#![allow(unsafe_code)] // vector instructions and pointers

use std::arch::x86_64::*;
use std::cell::RefCell;

use crate::parallel::{for_each_task, n_threads};

/// Rows of a tile.
const MR: usize = 6;
/// Columns of a tile: two vectors.
const NR: usize = 16;
/// Steps of the inner dimension for which a tile stays in registers: a panel of them takes half of L1.
pub(super) const KC: usize = 256;
/// Rows that use a panel before the next panel is read: they stay in L2.
const MC: usize = 96;
/// Steps of the inner dimension whose panels are held at a time, a multiple of `KC`.
const HELD: usize = 12 * KC;
/// Columns of a task.
const COLUMNS: usize = 256;

/// Whether this processor has AVX2 and FMA but not AVX-512.
pub(super) fn is_best() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && !is_x86_feature_detected!("avx512f")
}

thread_local! {
    // Panels are kept between calls, because the system clears newly allocated memory.
    static PANELS: RefCell<Vec<Vector>> = const { RefCell::new(Vec::new()) };
}

// The unit of a panel, which aligns its memory.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Vector(#[allow(dead_code)] [f32; 8]);

#[derive(Clone, Copy)]
struct Matmul {
    out: *mut f32,
    row: usize,
    add: bool,
    lhs: *const f32,
    lhs_strides: [usize; 2],
    rhs: *const f32,
    rhs_strides: [usize; 2],
    k: usize,
}

// SAFETY: tasks write to parts of `out` that do not overlap, and only read the others.
unsafe impl Sync for Matmul {}

/// `out = lhs rhs`, or `out += lhs rhs` if `add`. Each pointer comes with its strides; sizes are m, k, n.
///
/// # Safety
/// The processor must have AVX2 and FMA, the three matrices must lie in their memory, and nobody else may use `out`.
pub(super) unsafe fn matmul(
    (out, row): (*mut f32, usize),
    add: bool,
    (lhs, lhs_strides): (*const f32, [usize; 2]),
    (rhs, rhs_strides): (*const f32, [usize; 2]),
    [m, k, n]: [usize; 3],
    parallel: bool,
) {
    let matmul = Matmul { out, row, add, lhs, lhs_strides, rhs, rhs_strides, k };
    let threads = if parallel { n_threads() } else { 1 };
    // Enough tasks to keep the threads equally busy; rows are cut only where there are too few columns for that.
    let wanted = n.div_ceil(COLUMNS).next_multiple_of(threads);
    let columns = n.div_ceil(wanted).next_multiple_of(NR).max(4 * NR);
    let n_columns = n.div_ceil(columns);
    let rows = m.div_ceil(threads.div_ceil(n_columns)).next_multiple_of(MC);
    let n_tasks = n_columns * m.div_ceil(rows);
    let task = |index: usize| {
        let (i, j) = (index / n_columns * rows, index % n_columns * columns);
        // SAFETY: the caller's promise; tasks differ in their rows or columns.
        unsafe { matmul.part(i..(i + rows).min(m), j..(j + columns).min(n)) };
    };
    match n_tasks {
        1 => task(0),
        _ => for_each_task(n_tasks, task),
    }
}

impl Matmul {
    // Computes these rows and columns of the result.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn part(&self, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>) {
        let n_panels = columns.len().div_ceil(NR);
        let n_left = if self.lhs_strides[1] == 1 { 0 } else { MC * KC };
        let n_right = n_panels * NR * HELD.min(self.k);
        PANELS.with_borrow_mut(|memory| {
            memory.clear();
            memory.reserve((n_left + n_right).div_ceil(8));
            let left = memory.as_mut_ptr().cast::<f32>();
            // SAFETY: both parts lie in the reserved memory; the rest is the caller's promise.
            unsafe {
                let right = left.add(n_left);
                for held in (0..self.k).step_by(HELD) {
                    let inputs = held..(held + HELD).min(self.k);
                    self.fill_panels(inputs.clone(), columns.clone(), right);
                    for i in rows.clone().step_by(MC) {
                        let rows = i..(i + MC).min(rows.end);
                        for p in inputs.clone().step_by(KC) {
                            let right = right.add((p - held) * n_panels * NR);
                            self.block(rows.clone(), p..(p + KC).min(inputs.end), columns.clone(), left, right);
                        }
                    }
                }
            }
        });
    }

    // Copies the right side into panels: for every KC inputs all columns, 16 by 16.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn fill_panels(&self, inputs: std::ops::Range<usize>, columns: std::ops::Range<usize>, panels: *mut f32) {
        let (n_columns, [row, column]) = (columns.len(), self.rhs_strides);
        let n_panels = n_columns.div_ceil(NR);
        for p in inputs.clone().step_by(KC) {
            let n_inputs = KC.min(inputs.end - p);
            // SAFETY: the panels follow each other in memory; the right side holds the inputs and columns.
            unsafe {
                let panels = panels.add((p - inputs.start) * n_panels * NR);
                let from = self.rhs.add(p * row + columns.start * column);
                let panel = |index: usize| panels.add(index * NR * n_inputs);
                let n_full = n_columns / NR;
                if column == 1 {
                    // A few rows at a time, each read in one go.
                    for first in (0..n_inputs).step_by(8) {
                        for index in 0..n_full {
                            for input in first..(first + 8).min(n_inputs) {
                                let (from, to) = (from.add(input * row + index * NR), panel(index).add(input * NR));
                                _mm256_store_ps(to, _mm256_loadu_ps(from));
                                _mm256_store_ps(to.add(8), _mm256_loadu_ps(from.add(8)));
                            }
                        }
                    }
                } else {
                    for index in 0..n_full {
                        let from = from.add(index * NR * column);
                        let n_squares = if row == 1 { n_inputs / 8 } else { 0 };
                        for square in 0..n_squares {
                            for half in [0, 8] {
                                let to = panel(index).add(square * 8 * NR + half);
                                transpose(from.add(half * column + square * 8), column, to);
                            }
                        }
                        for input in n_squares * 8..n_inputs {
                            for j in 0..NR {
                                *panel(index).add(input * NR + j) = *from.add(input * row + j * column);
                            }
                        }
                    }
                }
                for index in n_full..n_panels {
                    for input in 0..n_inputs {
                        for j in 0..NR {
                            let at = index * NR + j;
                            let value = if at < n_columns { *from.add(input * row + at * column) } else { 0.0 };
                            *panel(index).add(input * NR + j) = value;
                        }
                    }
                }
            }
        }
    }

    // Computes at most MC rows of the result over at most KC inputs.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn block(
        &self,
        rows: std::ops::Range<usize>,
        inputs: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
        left: *mut f32,
        right: *const f32,
    ) {
        let (n_inputs, [row, column]) = (inputs.len(), self.lhs_strides);
        let (add, copied) = (self.add || inputs.start > 0, column != 1);
        // SAFETY: tiles lie within the rows and columns; a tile that would not is computed in a buffer and copied.
        unsafe {
            if copied {
                for (tile, i) in rows.clone().step_by(MR).enumerate() {
                    let from = self.lhs.add(i * row + inputs.start * column);
                    let n_rows = MR.min(rows.end - i);
                    for input in 0..n_inputs {
                        for i in 0..n_rows {
                            *left.add((tile * n_inputs + input) * MR + i) = *from.add(input * column + i * row);
                        }
                    }
                }
            }
            for (panel, j) in columns.clone().step_by(NR).enumerate() {
                let right = right.add(panel * NR * n_inputs);
                let n_columns = NR.min(columns.end - j);
                for (tile, i) in rows.clone().step_by(MR).enumerate() {
                    let n_rows = MR.min(rows.end - i);
                    let to = self.out.add(i * self.row + j);
                    let (lhs, strides) = match copied {
                        true => (left.cast_const().add(tile * n_inputs * MR), [1, MR]),
                        false => (self.lhs.add(i * row + inputs.start), [row, 1]),
                    };
                    if n_columns == NR {
                        compute_tile(n_rows, n_inputs, (lhs, strides), right, (to, self.row), add);
                        continue;
                    }
                    let mut buffer = [0.0; MR * NR];
                    for at in (0..n_rows * NR).filter(|at| add && at % NR < n_columns) {
                        buffer[at] = *to.add(at / NR * self.row + at % NR);
                    }
                    compute_tile(n_rows, n_inputs, (lhs, strides), right, (buffer.as_mut_ptr(), NR), add);
                    for at in (0..n_rows * NR).filter(|at| at % NR < n_columns) {
                        *to.add(at / NR * self.row + at % NR) = buffer[at];
                    }
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn compute_tile(
    n_rows: usize,
    n_inputs: usize,
    lhs: (*const f32, [usize; 2]),
    rhs: *const f32,
    out: (*mut f32, usize),
    add: bool,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match n_rows {
            1 => tile::<1>(n_inputs, lhs, rhs, out, add),
            2 => tile::<2>(n_inputs, lhs, rhs, out, add),
            3 => tile::<3>(n_inputs, lhs, rhs, out, add),
            4 => tile::<4>(n_inputs, lhs, rhs, out, add),
            5 => tile::<5>(n_inputs, lhs, rhs, out, add),
            _ => tile::<MR>(n_inputs, lhs, rhs, out, add),
        }
    }
}

// A tile of `M` rows and 16 columns over `n_inputs`. One stride of the left side is 1, so that the compiler folds the
// other into addresses.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const M: usize>(
    n_inputs: usize,
    (lhs, [row, column]): (*const f32, [usize; 2]),
    rhs: *const f32,
    (out, out_row): (*mut f32, usize),
    add: bool,
) {
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    // SAFETY: the caller's promise: M rows of both sides, 16 columns, `rhs` aligned to a vector.
    unsafe {
        for i in 0..M {
            _mm_prefetch::<_MM_HINT_T0>(out.add(i * out_row).cast());
        }
        let mut step = |lhs: *const f32, row: usize, rhs: *const f32| {
            let rhs = [_mm256_load_ps(rhs), _mm256_load_ps(rhs.add(8))];
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = _mm256_set1_ps(*lhs.add(i * row));
                sums[0] = _mm256_fmadd_ps(x, rhs[0], sums[0]);
                sums[1] = _mm256_fmadd_ps(x, rhs[1], sums[1]);
            }
        };
        if column == 1 {
            for input in 0..n_inputs {
                step(lhs.add(input), row, rhs.add(input * NR));
            }
        } else {
            for input in 0..n_inputs {
                step(lhs.add(input * MR), 1, rhs.add(input * NR));
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            for (half, mut sum) in sums.into_iter().enumerate() {
                let to = out.add(i * out_row + half * 8);
                if add {
                    sum = _mm256_add_ps(sum, _mm256_loadu_ps(to));
                }
                _mm256_storeu_ps(to, sum);
            }
        }
    }
}

// Transposes 8 by 8 numbers: rows that are `row` apart become columns of a panel.
#[target_feature(enable = "avx2,fma")]
unsafe fn transpose(from: *const f32, row: usize, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let rows: [__m256; 8] = std::array::from_fn(|i| _mm256_loadu_ps(from.add(i * row)));
        let pairs: [[__m256; 2]; 4] = std::array::from_fn(|i| {
            let [a, b] = [rows[2 * i], rows[2 * i + 1]];
            [_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)]
        });
        // Columns c and c + 4 of four rows.
        let fours = |first: [__m256; 2], second: [__m256; 2]| {
            let [low, high] = [0, 1].map(|half: usize| (first[half], second[half]));
            [
                _mm256_shuffle_ps::<0x44>(low.0, low.1),
                _mm256_shuffle_ps::<0xee>(low.0, low.1),
                _mm256_shuffle_ps::<0x44>(high.0, high.1),
                _mm256_shuffle_ps::<0xee>(high.0, high.1),
            ]
        };
        let (upper, lower) = (fours(pairs[0], pairs[1]), fours(pairs[2], pairs[3]));
        for column in 0..4 {
            let (upper, lower) = (upper[column], lower[column]);
            _mm256_storeu_ps(to.add(column * NR), _mm256_permute2f128_ps::<0x20>(upper, lower));
            _mm256_storeu_ps(to.add((column + 4) * NR), _mm256_permute2f128_ps::<0x31>(upper, lower));
        }
    }
}
