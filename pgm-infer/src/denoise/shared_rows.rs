//! Rows of an evaluation whose clean tokens are the same, as the samples of one prompt in their first step: they are encoded
//! once. Positions to decode do not see each other, so such rows are one row with the positions of all.

use crate::sample::CleanRow;

/// The distinct rows among those of an evaluation.
pub(super) struct SharedRows<'a> {
    /// One of each.
    pub(super) rows: Vec<&'a CleanRow>,
    /// The positions to decode of each, those of equal rows one after the other.
    pub(super) positions: Vec<Vec<usize>>,
    // Of each row of the evaluation: its distinct row, and where its positions begin there.
    places: Vec<(usize, usize)>,
}

impl<'a> SharedRows<'a> {
    /// The distinct rows; none where all are.
    pub(super) fn of(all: &[&'a CleanRow], positions: &[&[usize]]) -> Option<Self> {
        let mut shared = Self { rows: Vec::new(), positions: Vec::new(), places: Vec::with_capacity(all.len()) };
        for (&row, positions) in all.iter().zip(positions) {
            let known = shared.rows.iter().position(|known| is_same(known, row));
            let distinct = known.unwrap_or_else(|| {
                shared.rows.push(row);
                shared.positions.push(Vec::new());
                shared.rows.len() - 1
            });
            shared.places.push((distinct, shared.positions[distinct].len()));
            shared.positions[distinct].extend(*positions);
        }
        (shared.rows.len() < all.len()).then_some(shared)
    }

    /// Where the positions of each row of the evaluation begin, where those of the distinct rows begin at `start(row)`.
    pub(super) fn starts(&self, start: impl Fn(usize) -> usize) -> Vec<usize> {
        self.places.iter().map(|&(distinct, offset)| start(distinct) + offset).collect()
    }
}

// Most rows differ in their newest token, so that comes first.
fn is_same(a: &CleanRow, b: &CleanRow) -> bool {
    a.positions.len() == b.positions.len()
        && a.class == b.class
        && a.tokens.last() == b.tokens.last()
        && a.positions == b.positions
        && a.tokens == b.tokens
        && a.sets == b.sets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_are_one_row_with_all_their_positions() {
        let row = |positions: &[usize], tokens: &[u32], class| {
            CleanRow::new(9, positions.to_vec(), tokens.to_vec()).with_class(class)
        };
        let rows = [
            row(&[0, 3], &[5, 6], None),
            row(&[0, 3], &[5, 7], None),
            row(&[0, 3], &[5, 6], None),
            row(&[0, 3], &[5, 6], Some(1)),
            row(&[3, 0], &[6, 5], None),
            row(&[0, 3], &[5, 6], None),
        ];
        let rows: Vec<&CleanRow> = rows.iter().collect();
        let positions: Vec<&[usize]> = vec![&[1, 2], &[4], &[2], &[], &[8], &[7, 1]];
        let shared = SharedRows::of(&rows, &positions).unwrap();
        assert_eq!(shared.positions, [vec![1, 2, 2, 7, 1], vec![4], vec![], vec![8]]);
        assert_eq!(shared.rows.iter().map(|row| row.id).collect::<Vec<_>>(), [0, 1, 3, 4].map(|row| rows[row].id));
        assert_eq!(shared.starts(|distinct| 10 * distinct), [0, 10, 2, 20, 30, 3]);
        assert!(SharedRows::of(&rows[..2], &positions[..2]).is_none());
    }
}
