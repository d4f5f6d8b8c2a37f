//! Memory that is written before it is read.
//!
//! Zeroing a new vector first would cost as much as an elementwise operation. So loops write to `MaybeUninit`, and what
//! they return, the same memory as `&mut [f32]`, proves that every element was written.
#![allow(unsafe_code)] // written memory becomes numbers

use std::mem::MaybeUninit;

use super::math;
use crate::parallel::prelude::*;

/// Rows of one task.
pub(crate) const ROWS: usize = 32;
/// The most numbers that one thread writes without the others.
pub(crate) const ALONE: usize = 1 << 14;

/// Numbers that may not be written yet.
pub(crate) type Uninit = [MaybeUninit<f32>];

/// Scratch memory for `n` numbers.
pub(crate) fn scratch(n: usize) -> Box<Uninit> {
    Box::new_uninit_slice(n)
}

/// Writes a value to each element `i` of memory: `write_each!(out, |i| value)`.
///
/// A macro and not a function: a loop in a function compiled for an instruction set uses that set, a closure that is too large
/// to be inlined does not.
macro_rules! write_each {
    ($out:expr, |$index:pat_param| $value:expr) => {{
        let out: &mut $crate::ops::flex::memory::Uninit = $out;
        for ($index, slot) in out.iter_mut().enumerate() {
            slot.write($value);
        }
        // SAFETY: the loop wrote every element.
        #[allow(unsafe_code)]
        unsafe {
            out.assume_init_mut()
        }
    }};
}
pub(crate) use write_each;

/// Writes chunks of `size` numbers; `write(i, chunk)` returns chunk i as numbers.
#[inline(always)]
pub(crate) fn write_chunks(
    out: &mut Uninit,
    size: usize,
    mut write: impl FnMut(usize, &mut Uninit) -> &mut [f32],
) -> &mut [f32] {
    assert!(out.len().is_multiple_of(size.max(1)), "whole chunks");
    for (i, chunk) in out.chunks_exact_mut(size.max(1)).enumerate() {
        write_whole(chunk, |chunk| write(i, chunk));
    }
    // SAFETY: every element lies in a chunk, and each chunk was written.
    unsafe { out.assume_init_mut() }
}

/// A vector of `n` numbers; `write` returns the memory that it gets as numbers.
pub(crate) fn written(n: usize, write: impl FnOnce(&mut Uninit) -> &mut [f32]) -> Vec<f32> {
    let mut values = Vec::new();
    append(&mut values, n, write);
    values
}

/// Appends `n` numbers to a vector; `write` returns the memory that it gets as numbers.
pub(crate) fn append(values: &mut Vec<f32>, n: usize, write: impl FnOnce(&mut Uninit) -> &mut [f32]) {
    values.reserve_exact(n);
    write_whole(&mut values.spare_capacity_mut()[..n], write);
    // SAFETY: the n elements behind the old end were written.
    unsafe { values.set_len(values.len() + n) };
}

/// Rows of `width` numbers, on all threads. Each chunk of rows has a state of its own: `write(state, row, out)` returns
/// the row as numbers. The states come back in the order of the rows.
pub(crate) fn write_rows<S: Send>(
    n_rows: usize,
    width: usize,
    state: impl Fn() -> S + Sync,
    write: impl for<'a> Fn(&mut S, usize, &'a mut Uninit) -> &'a mut [f32] + Sync,
) -> (Vec<f32>, Vec<S>) {
    let n = n_rows * width;
    let mut values: Vec<f32> = Vec::with_capacity(n);
    let out = &mut values.spare_capacity_mut()[..n];
    let write_chunk = |chunk: usize, out: &mut Uninit| {
        let mut state = state();
        for (row, out) in (chunk * ROWS..).zip(out.chunks_exact_mut(width)) {
            write_whole(out, |out| write(&mut state, row, out));
        }
        state
    };
    // A few numbers are written faster than another thread wakes up.
    let states = if n_rows <= ROWS || n <= ALONE {
        out.chunks_mut(ROWS * width).enumerate().map(|(chunk, out)| write_chunk(chunk, out)).collect()
    } else {
        out.par_chunks_mut(ROWS * width).enumerate().map(|(chunk, out)| write_chunk(chunk, out)).collect()
    };
    // SAFETY: chunks are whole rows, and each row was written.
    unsafe { values.set_len(n) };
    (values, states)
}

/// The sum of vectors of `width` numbers, in order.
pub(crate) fn total(vectors: &[Vec<f32>], width: usize) -> Vec<f32> {
    let mut total = vec![0.0; width];
    for vector in vectors {
        math::add(vector, &mut total);
    }
    total
}

/// Sums of vectors of `width` numbers, one for each of some sets of consecutive rows.
pub(crate) struct SetSums {
    width: usize,
    // The sets in order, each with its sum.
    sums: Vec<(usize, Vec<f32>)>,
}

impl SetSums {
    pub(crate) fn new(width: usize) -> Self {
        Self { width, sums: Vec::new() }
    }

    /// The sum of a set, which is the last one or a new one.
    pub(crate) fn of(&mut self, set: usize) -> &mut [f32] {
        if self.sums.last().is_none_or(|(last, _)| *last != set) {
            self.sums.push((set, vec![0.0; self.width]));
        }
        &mut self.sums.last_mut().expect("just added").1
    }

    /// The sums of `n_sets` sets over all parts, in order, one behind the other.
    pub(crate) fn total(parts: &[Self], n_sets: usize, width: usize) -> Vec<f32> {
        let mut total = vec![0.0; n_sets * width];
        for (set, sum) in parts.iter().flat_map(|part| &part.sums) {
            math::add(sum, &mut total[set * width..][..width]);
        }
        total
    }
}

/// Writes to memory and checks that `write` returns all of it.
#[inline(always)]
pub(crate) fn write_whole(out: &mut Uninit, write: impl FnOnce(&mut Uninit) -> &mut [f32]) {
    let (start, n) = (out.as_ptr().cast::<f32>(), out.len());
    let written = write(out);
    assert!(std::ptr::eq(written.as_ptr(), start) && written.len() == n, "all of the memory is written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_states_come_in_order() {
        let (values, rows) = write_rows(70, 3, Vec::new, |rows, row, out| {
            rows.push(row);
            write_each!(out, |i| (row * 3 + i) as f32)
        });
        assert_eq!(values, (0..210).map(|i| i as f32).collect::<Vec<_>>());
        assert_eq!(rows.concat(), (0..70).collect::<Vec<_>>());
    }

    #[test]
    fn rows_come_in_order_on_one_thread_and_on_several() {
        for (n_rows, width) in [(1, 1), (33, 1), (31, 1000), (70, 1000), (1000, 3), (1000, 100)] {
            let (values, rows) = write_rows(n_rows, width, Vec::new, |rows, row, out| {
                rows.push(row);
                write_each!(out, |i| (row * width + i) as f32)
            });
            assert_eq!(values, (0..n_rows * width).map(|i| i as f32).collect::<Vec<_>>());
            assert_eq!(rows.concat(), (0..n_rows).collect::<Vec<_>>());
        }
    }

    #[test]
    #[should_panic = "all of the memory is written"]
    fn memory_that_is_not_written_as_a_whole_is_refused() {
        written(3, |out| write_each!(&mut out[..2], |_| 0.0));
    }
}
