//! Positions in chunks, so that logits of all of them never exist together.

use std::ops::Range;

/// Positions whose logits are computed at once: 50 MiB of float32 for a vocabulary of 50,000.
pub(crate) const CHUNK: usize = 256;

/// The ranges of at most `chunk` positions that make up `0..n`.
pub(crate) fn chunks(n: usize, chunk: usize) -> impl Iterator<Item = Range<usize>> {
    (0..n).step_by(chunk).map(move |start| start..n.min(start + chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_all_positions_once() {
        assert_eq!(chunks(7, 3).collect::<Vec<_>>(), [0..3, 3..6, 6..7]);
        assert!(chunks(3, 3).eq(std::iter::once(0..3)));
        assert_eq!(chunks(0, 3).count(), 0);
    }
}
