//! The decoded part of a row.

/// The tokens of one row that are known so far.
#[derive(Clone, Debug, Default)]
pub struct CleanRow {
    /// Tokens of the row, open ones included.
    pub length: usize,
    /// Positions that were given or are decoded, in the order in which they came.
    pub positions: Vec<usize>,
    /// Their tokens.
    pub tokens: Vec<u32>,
}
