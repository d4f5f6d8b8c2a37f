//! Matmul with few rows of x, where the time is that of reading the weight.
//!
//! A step of sampling with cached tokens has a handful of rows, and a model of 126 million weights is 504 MB. A blocked
//! matmul reads a tile of columns at a time, whose rows are far apart, and has no use for low precision, because it
//! converts the weight into a buffer first. Here the weight is read once and in order: a task has a panel of [`PANEL`]
//! columns and reads [`STRIP`] rows of it side by side, while it prefetches the next ones. A panel's sums of all rows
//! stay in L1, those of a tile of columns in registers over a strip. Weights of low precision are widened in registers,
//! so they also take a half or a quarter of the time.
//!
//! The sums have the order of `gemm.rs` ([`depth`]), so the results are the same numbers as those of its matmul on most
//! processors with AVX-512 and on those with AVX2 alone, and elsewhere differ by rounding. They depend on no number of
//! threads. With AVX2 alone a row's do not depend on the rows beside it; elsewhere one row is summed in one go and several in
//! pieces of some hundred inputs, which rounds otherwise.
#![allow(unsafe_code)] // vector instructions and pointers

// N rows, I inputs, O outputs

use std::mem::MaybeUninit;
use std::ops::Range;

use burn::tensor::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use super::avx2;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Avx2, Avx512};
use super::lanes::{Lanes, Number, Portable};
use super::math::prefetch_to_l2;
use super::memory::written;
use crate::parallel::{for_each_task, n_threads};

/// The most rows of x.
const MOST_ROWS: usize = 32;
/// The most rows with float32 weights: for more a blocked matmul is as fast. Its arithmetic is faster, so weights that fit
/// into L2 are read here for fewer rows.
const F32_ROWS: usize = 16;
const F32_ROWS_IN_CACHE: usize = 8;
const IN_CACHE: usize = 1 << 18;

/// Columns of a task, at most: a page of float32 weights, so that few pages are open at a time.
const PANEL: usize = 1024;
/// Sums of a task, about: they stay in L1.
const SUMS: usize = 8 * PANEL;
/// Rows of the weight that are read side by side.
const STRIP: usize = 16;
/// Columns of the widest tile: there must be as many.
const WIDEST: usize = 128;
/// Weights, and multiplications, from which on several threads share the work.
const PARALLEL: [usize; 2] = [1 << 20, 1 << 21];

/// A weight `[I, O]`.
#[derive(Clone, Copy)]
pub(crate) enum Weight<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
    /// Numbers and their scales `[I / block, O]`.
    I8 {
        numbers: &'a [i8],
        scales: &'a [f32],
        block: usize,
    },
}

/// Whether [`matmul`] multiplies N, I, O of these sizes by float32 weights. It depends on nothing else, so that equal
/// inputs give equal results.
pub(crate) fn takes_f32(sizes @ [n_rows, inputs, outputs]: [usize; 3]) -> bool {
    let most_rows = if inputs * outputs < IN_CACHE { F32_ROWS_IN_CACHE } else { F32_ROWS };
    takes_low_precision(sizes) && n_rows <= most_rows
}

/// As [`takes_f32`] with weights of low precision.
pub(crate) fn takes_low_precision([n_rows, inputs, outputs]: [usize; 3]) -> bool {
    (1..=MOST_ROWS).contains(&n_rows) && inputs > 0 && outputs >= WIDEST
}

/// `x weight`, `[N, I], [I, O] -> [N, O]`, for sizes that it takes.
pub(crate) fn matmul(x: &[f32], weight: Weight<'_>, sizes: [usize; 3]) -> Vec<f32> {
    matmul_by(Instructions::best(), x, weight, sizes)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Instructions {
    fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                return Self::Avx512;
            }
            if avx2 && is_x86_feature_detected!("f16c") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }
}

#[derive(Clone, Copy)]
struct Matmul<'a> {
    x: &'a [f32],
    sizes: [usize; 3],
    // Inputs that are summed up before they are added to the output.
    depth: usize,
    // Scales, and how many inputs of an output share one.
    scales: &'a [f32],
    block: usize,
    out: *mut f32,
}

// SAFETY: tasks write to columns of `out` that do not overlap, and only read the others.
unsafe impl Sync for Matmul<'_> {}

// Inputs that one sum adds up, as in the matmuls of `gemm.rs`: 256 in `avx2.rs`. The `gemm` crate cuts them into parts of
// equal size of at most 512 where L1 has a common size, and does not cut them for a single row.
fn depth([n_rows, inputs, _]: [usize; 3]) -> usize {
    #[cfg(target_arch = "x86_64")]
    if avx2::is_best() {
        return avx2::KC;
    }
    if n_rows == 1 { inputs } else { inputs.div_ceil(inputs.div_ceil(512)) }
}

fn matmul_by(instructions: Instructions, x: &[f32], weight: Weight<'_>, sizes: [usize; 3]) -> Vec<f32> {
    let [n_rows, inputs, outputs] = sizes;
    assert!(takes_low_precision(sizes) && x.len() == n_rows * inputs, "few rows and many outputs");
    let (n, scales, block) = match weight {
        Weight::F32(numbers) => (numbers.len(), &[][..], inputs),
        Weight::F16(numbers) => (numbers.len(), &[][..], inputs),
        Weight::Bf16(numbers) => (numbers.len(), &[][..], inputs),
        Weight::I8 { numbers, scales, block } => {
            assert!(block > 0 && scales.len() >= inputs.div_ceil(block) * outputs, "a scale for each block");
            (numbers.len(), scales, block)
        }
    };
    assert_eq!(n, inputs * outputs, "the weight's size");
    written(n_rows * outputs, |out| {
        let matmul = Matmul { x, sizes, depth: depth(sizes), scales, block, out: out.as_mut_ptr().cast() };
        let most = (SUMS / n_rows.next_multiple_of(8) / 64 * 64).clamp(WIDEST, PANEL);
        let width = outputs.div_ceil(n_threads()).next_multiple_of(64).clamp(WIDEST, most);
        let n_panels = outputs.div_ceil(width);
        let panel = |index: usize| {
            let matmul = &matmul;
            let columns = index * width..((index + 1) * width).min(outputs);
            // SAFETY: the processor has the instructions. The assertions say that x, the weight and its scales have the sizes;
            // tasks differ in their columns.
            unsafe {
                match weight {
                    Weight::F32(numbers) => matmul.panel(instructions, numbers, columns),
                    Weight::F16(numbers) => matmul.panel(instructions, numbers, columns),
                    Weight::Bf16(numbers) => matmul.panel(instructions, numbers, columns),
                    Weight::I8 { numbers, .. } => matmul.panel(instructions, numbers, columns),
                }
            }
        };
        if n >= PARALLEL[0] || n * n_rows >= PARALLEL[1] {
            for_each_task(n_panels, panel);
        } else {
            (0..n_panels).for_each(panel);
        }
        // SAFETY: the panels cover the columns, and each was written.
        unsafe { out.assume_init_mut() }
    })
}

impl Matmul<'_> {
    // # Safety
    // The processor has the instructions; the weight has I rows of O numbers; nobody else writes these columns.
    unsafe fn panel<T: Number>(&self, instructions: Instructions, weight: &[T], columns: Range<usize>) {
        // SAFETY: the caller's promise.
        unsafe {
            match instructions {
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx512 => self.panel_avx512(weight, columns),
                #[cfg(target_arch = "x86_64")]
                Instructions::Avx2 => self.panel_avx2(weight, columns),
                Instructions::Portable => self.panel_portable(weight, columns),
            }
        }
    }

    // A tile's sums take most of the registers: 32 with AVX-512, else 16.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn panel_avx512<T: Number>(&self, weight: &[T], columns: Range<usize>) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.sizes[0] {
                1 => self.columns::<Avx512, T, 1, 8>(weight, columns),
                2 => self.columns::<Avx512, T, 2, 4>(weight, columns),
                3..=4 => self.columns::<Avx512, T, 4, 4>(weight, columns),
                5..=6 | 9..=12 => self.columns::<Avx512, T, 6, 2>(weight, columns),
                _ => self.columns::<Avx512, T, 8, 2>(weight, columns),
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn panel_avx2<T: Number>(&self, weight: &[T], columns: Range<usize>) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.sizes[0] {
                1 => self.columns::<Avx2, T, 1, 8>(weight, columns),
                2 => self.columns::<Avx2, T, 2, 4>(weight, columns),
                3..=4 => self.columns::<Avx2, T, 4, 2>(weight, columns),
                _ => self.columns::<Avx2, T, 6, 2>(weight, columns),
            }
        }
    }

    unsafe fn panel_portable<T: Number>(&self, weight: &[T], columns: Range<usize>) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.sizes[0] {
                1 => self.columns::<Portable, T, 1, 4>(weight, columns),
                _ => self.columns::<Portable, T, 4, 1>(weight, columns),
            }
        }
    }

    // Some columns of the output. Rows are taken R at a time, and columns in tiles of C vectors. Where they are not whole, the
    // last group repeats a row, and the last tile begins earlier: what is computed again is not written.
    #[inline(always)]
    unsafe fn columns<L: Lanes, T: Number, const R: usize, const C: usize>(&self, weight: &[T], columns: Range<usize>) {
        let ([n_rows, inputs, outputs], tile) = (self.sizes, C * L::COUNT);
        let (n_tiles, n_groups) = (columns.len().div_ceil(tile), n_rows.div_ceil(R));
        let first_column = |index: usize| (columns.start + index * tile).min(outputs - tile);
        let mut sums = [const { MaybeUninit::<f32>::uninit() }; 2 * SUMS];
        let mut x = [0.0_f32; STRIP * (MOST_ROWS + 8)];
        for start in (0..inputs).step_by(self.depth) {
            let end = (start + self.depth).min(inputs);
            let mut input = start;
            while input < end {
                // A strip has one scale for each column.
                let n = STRIP.min(end - input).min(self.block - input % self.block);
                for (group, x) in x.chunks_exact_mut(STRIP * R).enumerate().take(n_groups) {
                    for r in 0..R {
                        let row = &self.x[(group * R + r).min(n_rows - 1) * inputs..][input..input + n];
                        for (i, value) in row.iter().enumerate() {
                            x[i * R + r] = *value;
                        }
                    }
                }
                for index in 0..n_tiles {
                    let column = first_column(index);
                    let scales =
                        if T::SCALED { &self.scales[input / self.block * outputs + column..][..tile] } else { &[] };
                    let from = &weight[input * outputs + column..];
                    assert!(from.len() >= (n - 1) * outputs + tile);
                    for group in 0..n_groups {
                        let at = (index * n_groups + group) * R * tile;
                        let sums = &mut sums[at..at + R * tile];
                        let strip = Strip { x: &x[group * STRIP * R..][..n * R], weight: from, row: outputs, scales };
                        // SAFETY: the slices have the sizes, and the first strip wrote the sums.
                        unsafe { strip.add::<L, R, C>(sums, input > start, group == 0) };
                    }
                }
                input += n;
            }
            for index in 0..n_tiles {
                let column = first_column(index);
                let (from, to) = (columns.start + index * tile, (columns.start + (index + 1) * tile).min(columns.end));
                for row in 0..n_rows {
                    let at = ((index * n_groups + row / R) * R + row % R) * tile + from - column;
                    // SAFETY: the strips wrote the sums. The output has the row, and these columns are this task's.
                    unsafe {
                        let sums = sums[at..at + to - from].assume_init_ref();
                        let out = self.out.add(row * outputs + from);
                        if start == 0 {
                            out.copy_from_nonoverlapping(sums.as_ptr(), sums.len());
                        } else {
                            for (i, sum) in sums.iter().enumerate() {
                                *out.add(i) += sum;
                            }
                        }
                    }
                }
            }
        }
    }
}

// A few rows of a tile of the weight, and the numbers of x that they are multiplied by.
struct Strip<'a, T> {
    // `[n, R]`
    x: &'a [f32],
    weight: &'a [T],
    // Numbers from a row of the weight to the next.
    row: usize,
    scales: &'a [f32],
}

impl<T: Number> Strip<'_, T> {
    // Adds to the sums `[R, C]` of vectors, or sets them.
    //
    // # Safety
    // The processor has the instructions, the slices have the sizes, and the sums are written if `add`.
    #[inline(always)]
    unsafe fn add<L: Lanes, const R: usize, const C: usize>(
        &self,
        sums: &mut [MaybeUninit<f32>],
        add: bool,
        prefetch: bool,
    ) {
        let n = self.x.len() / R;
        let (x, weight, sums) = (self.x.as_ptr(), self.weight.as_ptr(), sums.as_mut_ptr().cast::<f32>());
        // The rows of the next strip follow those of this one; a prefetch behind the last row has no effect.
        let ahead = if prefetch { n * self.row } else { 0 };
        // SAFETY: the caller's promise.
        unsafe {
            let mut totals = [[L::splat(0.0); C]; R];
            if add {
                for (r, totals) in totals.iter_mut().enumerate() {
                    for (c, total) in totals.iter_mut().enumerate() {
                        *total = L::load(sums.add((r * C + c) * L::COUNT));
                    }
                }
            }
            let mut scales = [L::splat(1.0); C];
            if T::SCALED {
                for (c, scale) in scales.iter_mut().enumerate() {
                    *scale = L::load(self.scales.as_ptr().add(c * L::COUNT));
                }
            }
            for i in 0..n {
                let from = weight.add(i * self.row);
                let mut numbers = [L::splat(0.0); C];
                for (c, (number, scale)) in numbers.iter_mut().zip(&scales).enumerate() {
                    let wide = T::widen::<L>(from.add(c * L::COUNT));
                    *number = if T::SCALED { L::mul(wide, *scale) } else { wide };
                    if (c * L::COUNT * size_of::<T>()).is_multiple_of(64) {
                        prefetch_to_l2(from.wrapping_add(ahead + c * L::COUNT));
                    }
                }
                for (r, totals) in totals.iter_mut().enumerate() {
                    let x = L::splat(*x.add(i * R + r));
                    for (total, number) in totals.iter_mut().zip(&numbers) {
                        *total = L::fma(x, *number, *total);
                    }
                }
            }
            for (r, totals) in totals.iter().enumerate() {
                for (c, total) in totals.iter().enumerate() {
                    L::store(sums.add((r * C + c) * L::COUNT), *total);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::ops::flex::gemm::{self, Matrix};

    fn supported() -> Vec<Instructions> {
        let mut all = vec![Instructions::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if Instructions::best() == Instructions::Avx512 {
                all.push(Instructions::Avx512);
            }
            if Instructions::best() != Instructions::Portable && is_x86_feature_detected!("f16c") {
                all.push(Instructions::Avx2);
            }
        }
        all
    }

    // Rows around those of groups, inputs around those of strips and sums, columns around those of tiles and panels.
    const SIZES: [[usize; 3]; 14] = [
        [1, 1, 128],
        [1, 70, 131],
        [1, 1100, 640],
        [2, 33, 300],
        [3, 64, 515],
        [4, 128, 129],
        [5, 96, 1030],
        [6, 17, 258],
        [8, 600, 200],
        [9, 40, 1025],
        [12, 31, 191],
        [16, 515, 160],
        [17, 32, 513],
        [32, 100, 777],
    ];

    #[test]
    fn few_rows_of_each_type_of_weight_equal_sums_in_float64() {
        let mut rng = StdRng::seed_from_u64(5);
        for sizes in SIZES {
            let [n_rows, inputs, outputs] = sizes;
            let mut draw = |n: usize| (0..n).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
            let (x, w, block) = (draw(n_rows * inputs), draw(inputs * outputs), 32);
            let scales: Vec<f32> = draw(inputs.div_ceil(block) * outputs).iter().map(|scale| scale / 127.0).collect();
            let f16s: Vec<f16> = w.iter().map(|&w| f16::from_f32(w)).collect();
            let bf16s: Vec<bf16> = w.iter().map(|&w| bf16::from_f32(w)).collect();
            let i8s: Vec<i8> = w.iter().map(|&w| (w * 127.0) as i8).collect();
            let scaled = |i: usize| f32::from(i8s[i]) * scales[i / outputs / block * outputs + i % outputs];
            let cases: [(Weight<'_>, Vec<f32>); 4] = [
                (Weight::F32(&w), w.clone()),
                (Weight::F16(&f16s), f16s.iter().map(|w| w.to_f32()).collect()),
                (Weight::Bf16(&bf16s), bf16s.iter().map(|w| w.to_f32()).collect()),
                (Weight::I8 { numbers: &i8s, scales: &scales, block }, (0..w.len()).map(scaled).collect()),
            ];
            for (case, (weight, wide)) in cases.into_iter().enumerate() {
                for instructions in supported() {
                    let out = matmul_by(instructions, &x, weight, sizes);
                    assert_eq!(out.len(), n_rows * outputs);
                    for (at, out) in out.iter().enumerate() {
                        let (row, column) = (at / outputs, at % outputs);
                        let term = |i: usize| f64::from(x[row * inputs + i]) * f64::from(wide[i * outputs + column]);
                        let error = (f64::from(*out) - (0..inputs).map(term).sum::<f64>()).abs();
                        let what = format!("{instructions:?}, weight {case}, {sizes:?}, {row} {column}");
                        // One long sum without FMA rounds twice for each input; a wrong term is off by more than 1e-2.
                        assert!(error < 4e-6 * (inputs as f64).sqrt().max(4.0), "{what}: {error:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn few_rows_equal_a_blocked_matmul_to_the_bit_and_do_not_depend_on_each_other() {
        let mut rng = StdRng::seed_from_u64(6);
        // Inputs of one sum on every processor.
        for sizes in SIZES.into_iter().filter(|[_, inputs, _]| *inputs <= 256) {
            let [n_rows, inputs, outputs] = sizes;
            let mut draw = |n: usize| (0..n).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
            let (x, w) = (draw(n_rows * inputs), draw(inputs * outputs));
            let out = matmul(&x, Weight::F32(&w), sizes);
            let (lhs, rhs) = (Matrix::rows(&x, inputs), Matrix::rows(&w, outputs));
            let blocked = written(n_rows * outputs, |out| gemm::assign(out, lhs, rhs, sizes));
            if cfg!(target_arch = "x86_64") {
                assert_eq!(out, blocked, "{sizes:?}");
            }
            let last = matmul(&x[(n_rows - 1) * inputs..], Weight::F32(&w), [1, inputs, outputs]);
            assert_eq!(last, out[(n_rows - 1) * outputs..], "{sizes:?}");
        }
    }

    #[test]
    fn infinities_and_nan_stay_in_their_rows_and_columns() {
        let (n_rows, inputs, outputs) = (3, 20, 150);
        let mut x = vec![1.0; n_rows * inputs];
        let mut w = vec![0.5; inputs * outputs];
        (x[inputs + 3], w[7 * outputs + 140]) = (f32::NAN, f32::INFINITY);
        for instructions in supported() {
            let out = matmul_by(instructions, &x, Weight::F32(&w), [n_rows, inputs, outputs]);
            for (at, out) in out.iter().enumerate() {
                match (at / outputs, at % outputs) {
                    (1, _) => assert!(out.is_nan()),
                    (_, 140) => assert_eq!(*out, f32::INFINITY),
                    _ => assert_eq!(*out, 10.0),
                }
            }
        }
    }
}
