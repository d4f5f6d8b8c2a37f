//! An output that several tasks write side by side.
#![allow(unsafe_code)] // slices of one vector for several threads

use std::marker::PhantomData;

/// A vector of which each task writes its own part.
pub(crate) struct SharedOutput<'a> {
    start: *mut f32,
    len: usize,
    numbers: PhantomData<&'a mut [f32]>,
}

// SAFETY: `slice` requires that no two tasks have the same numbers.
unsafe impl Sync for SharedOutput<'_> {}

impl<'a> SharedOutput<'a> {
    pub(crate) fn new(numbers: &'a mut [f32]) -> Self {
        Self { start: numbers.as_mut_ptr(), len: numbers.len(), numbers: PhantomData }
    }

    /// # Safety
    /// No other task reads or writes the range.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, n: usize) -> &mut [f32] {
        assert!(start + n <= self.len, "a range outside the output");
        // SAFETY: the range lies in the numbers, and the caller promises that no other task uses it.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), n) }
    }
}
