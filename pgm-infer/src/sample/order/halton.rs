//! Halton's order: the cells of a grid, evenly spread at any moment (Halton-MaskGIT, arXiv 2503.17076).

use rand::{Rng, RngExt};

use super::order_trait::{Order, OrderContext};
use super::start::OrderStart;
use crate::sample::grid::TokenGrid;

/// Decodes the cells of the row's grid along Halton's sequence.
pub(super) struct Halton {
    queue: Vec<usize>,
    n_taken: usize,
}

impl Halton {
    /// The order of one row. A row without a grid is one line. With `roll` the sequence starts at a random cell and wraps
    /// around.
    pub(super) fn new(start: &OrderStart<'_>, roll: bool) -> Self {
        let grid = start.grid.unwrap_or(TokenGrid { start: 0, rows: 1, columns: start.length, channels: 1 });
        let mut cells = halton_cells(grid.rows, grid.columns);
        if roll && !cells.is_empty() {
            let offset = start.independent_rng().random_range(0..cells.len());
            cells.rotate_left(offset);
        }
        let is_open = |position: &usize| start.open.binary_search(position).is_ok();
        let tokens = |(row, column)| (0..grid.channels).map(move |channel| grid.position(row, column) + channel);
        let mut queue: Vec<usize> = cells.into_iter().flat_map(tokens).filter(is_open).collect();
        // Open tokens beside the grid come last.
        queue.extend(start.open.iter().filter(|position| grid.index(**position).is_none()));
        Self { queue, n_taken: 0 }
    }
}

impl Order for Halton {
    fn candidates(&mut self, context: &OrderContext<'_>, _rng: &mut dyn Rng) -> Vec<usize> {
        let rest = &self.queue[self.n_taken..];
        let taken = rest[..context.n_to_decode.min(rest.len())].to_vec();
        self.n_taken += taken.len();
        taken
    }
}

/// The cells `(row, column)` of a grid in the order of Halton's sequence: point i = 1, 2, .. lies in row
/// `floor(phi_2(i) rows)` and column `floor(phi_3(i) columns)`, where `phi_b` mirrors the digits of i in base b at the point.
/// A cell counts when it is first hit.
pub fn halton_cells(rows: usize, columns: usize) -> Vec<(usize, usize)> {
    let mut hit = vec![false; rows * columns];
    let mut cells = Vec::with_capacity(rows * columns);
    // Every cell holds a whole interval of this many in each base, so each is hit once among all pairs of intervals.
    let n_points = intervals(rows, 2) * intervals(columns, 3);
    for i in 1..=n_points {
        if cells.len() == rows * columns {
            break;
        }
        let (row, column) = (mirrored(i, 2, rows as u64), mirrored(i, 3, columns as u64));
        if !std::mem::replace(&mut hit[row * columns + column], true) {
            cells.push((row, column));
        }
    }
    cells
}

// The smallest power of the base of which each of `n` equal cells holds a whole interval.
fn intervals(n: usize, base: u64) -> u64 {
    let mut power = 1;
    while power < n as u64 {
        power *= base;
    }
    power * base
}

// floor(phi_b(i) n), exactly.
fn mirrored(mut i: u64, base: u64, n: u64) -> usize {
    let (mut numerator, mut denominator) = (0_u64, 1_u64);
    while i > 0 {
        numerator = numerator * base + i % base;
        denominator *= base;
        i /= base;
    }
    (u128::from(numerator) * u128::from(n) / u128::from(denominator)) as usize
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::super::tests::context;
    use super::*;

    fn start<'a>(open: &'a [usize], grid: Option<TokenGrid>, rng: &'a mut StdRng) -> OrderStart<'a> {
        OrderStart { length: 1 + open.len(), open, grid, seed: 4, rng }
    }

    #[test]
    fn cells_come_in_the_published_order() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../../tests/golden/schedules.json")).unwrap();
        for side in [4, 8, 16, 32] {
            let expected: Vec<(usize, usize)> =
                serde_json::from_value(golden[format!("halton_order_{side}")].clone()).unwrap();
            assert_eq!(halton_cells(side, side), expected, "{side} x {side}");
        }
    }

    #[test]
    fn every_cell_of_any_grid_is_hit_once() {
        for (rows, columns) in [(0, 3), (1, 1), (1, 17), (17, 1), (2, 3), (5, 7), (9, 27), (33, 29), (28, 28)] {
            let mut cells = halton_cells(rows, columns);
            cells.sort_unstable();
            let all: Vec<_> = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))).collect();
            assert_eq!(cells, all, "{rows} x {columns}");
        }
    }

    #[test]
    fn the_order_keeps_the_sequence_of_the_open_cells_and_rolls_by_an_offset() {
        let mut rng = StdRng::seed_from_u64(1);
        let grid = TokenGrid { start: 1, rows: 4, columns: 5, channels: 1 };
        let take = |mut order: Halton, open: &[usize]| {
            order.candidates(&context(open, &[], open.len()), &mut StdRng::seed_from_u64(0))
        };
        let all: Vec<usize> = (1..21).collect();
        let plain = take(Halton::new(&start(&all, Some(grid), &mut rng), false), &all);
        let cells = halton_cells(4, 5).into_iter().map(|(row, column)| grid.position(row, column));
        assert_eq!(plain, cells.collect::<Vec<_>>());
        // The half of the picture that is open, and one token beside the picture.
        let open: Vec<usize> = (1..21).filter(|position| position % 2 == 0).chain([21]).collect();
        let half = take(Halton::new(&start(&open, Some(grid), &mut rng), false), &open);
        let expected: Vec<usize> = plain.iter().copied().filter(|position| position % 2 == 0).chain([21]).collect();
        assert_eq!(half, expected);

        let rolled = take(Halton::new(&start(&all, Some(grid), &mut rng), true), &all);
        let offset = plain.iter().position(|position| *position == rolled[0]).unwrap();
        let mut expected = plain;
        expected.rotate_left(offset);
        assert_eq!(rolled, expected);
        assert_eq!(rng, StdRng::seed_from_u64(1), "the row's own stream has not moved");

        // The channels of a pixel are decoded one after the other.
        let pixels = TokenGrid { start: 1, rows: 2, columns: 2, channels: 3 };
        let all: Vec<usize> = (1..13).collect();
        let order = take(Halton::new(&start(&all, Some(pixels), &mut rng), false), &all);
        assert!(order.chunks(3).all(|cell| cell[0] % 3 == 1 && cell[1] == cell[0] + 1 && cell[2] == cell[0] + 2));
    }
}
