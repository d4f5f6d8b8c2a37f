//! Guided logits: those of a row with its class against those of the same row without it.
//!
//! Shapes: N positions, V classes.

use burn::tensor::{FloatDType, Int, Tensor, TensorData};

use super::chunk_size::{chunk_size, in_host_memory};
use super::reading::{PositionDraw, PositionQuery, PositionReading, Wait};
use super::{Logits, Part, device, host};
use crate::InferError;

/// A row whose logits are guided: `(1 + weight) * its own - weight * those of the row without its class`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GuidedRow {
    /// The row without the class.
    pub without_class: usize,
    /// How much the class counts.
    pub weight: f32,
}

// A query at a position of a guided row.
struct GuidedQuery {
    // Its number among all queries.
    member: usize,
    // Part and place in it of the position with the class, and without.
    with_class: (usize, usize),
    without_class: (usize, usize),
    weight: f32,
}

impl Logits<'_> {
    /// Answers the queries of guided rows.
    pub(super) async fn read_guided(
        &self,
        queries: &[PositionQuery<'_>],
        excluded: &[usize],
        wait: Wait,
        readings: &mut [PositionReading],
    ) -> Result<(), InferError> {
        let place = |row: usize, index: usize| (self.rows[row].0, self.rows[row].1 + index);
        let guided = |(member, query): (usize, &PositionQuery<'_>)| {
            let GuidedRow { without_class, weight } = self.guide(query.draw.row)?;
            let PositionDraw { row, index, .. } = query.draw;
            let (with_class, without_class) = (place(row, index), place(without_class, index));
            Some(GuidedQuery { member, with_class, without_class, weight })
        };
        let mut members: Vec<GuidedQuery> = queries.iter().enumerate().filter_map(guided).collect();
        // Positions of the same parts are computed together.
        let parts = |query: &GuidedQuery| (query.with_class.0, query.without_class.0);
        members.sort_by_key(parts);
        for members in members.chunk_by(|a, b| parts(a) == parts(b)) {
            for chunk in members.chunks(self.guided_chunk(members[0].with_class.0)) {
                let of_chunk: Vec<(usize, PositionQuery<'_>)> =
                    chunk.iter().enumerate().map(|(row, query)| (row, queries[query.member])).collect();
                let found = self.read_chunk(chunk, &of_chunk, excluded, wait).await?;
                chunk.iter().zip(found).for_each(|(query, reading)| readings[query.member] = reading);
            }
        }
        Ok(())
    }

    // Positions that are computed together; each stands twice.
    fn guided_chunk(&self, part: usize) -> usize {
        match &self.parts[part] {
            Part::Host { .. } => 64,
            Part::Device(logits) => chunk_size(&logits.device()) / 2,
            Part::Hidden(hidden) => chunk_size(&hidden.device()) / 2,
        }
    }

    async fn read_chunk(
        &self,
        chunk: &[GuidedQuery],
        queries: &[(usize, PositionQuery<'_>)],
        excluded: &[usize],
        wait: Wait,
    ) -> Result<Vec<PositionReading>, InferError> {
        let weights: Vec<f32> = chunk.iter().map(|query| query.weight).collect();
        let with: Vec<usize> = chunk.iter().map(|query| query.with_class.1).collect();
        let without: Vec<usize> = chunk.iter().map(|query| query.without_class.1).collect();
        let parts = [chunk[0].with_class.0, chunk[0].without_class.0].map(|part| &self.parts[part]);
        let (with, without) = match parts {
            [Part::Hidden(a), Part::Hidden(b)] => {
                let hidden = Tensor::cat(vec![rows_of_hidden(a, &with), rows_of_hidden(b, &without)], 0); // [2 N, H]
                let logits = (self.head)(hidden.unsqueeze_dim(0));
                let [_, n, n_classes] = logits.dims();
                let logits = logits.reshape([n, n_classes]);
                (logits.clone().narrow(0, 0, n / 2), logits.narrow(0, n / 2, n / 2))
            }
            [Part::Device(a), Part::Device(b)] => (rows_of(a, &with), rows_of(b, &without)),
            [Part::Host { values: a, n_classes }, Part::Host { values: b, .. }] => {
                let mut with = rows_of_host(a, *n_classes, &with);
                combine_host(&mut with, &rows_of_host(b, *n_classes, &without), &weights, *n_classes);
                return Ok(host::read(&with, *n_classes, queries, excluded));
            }
            _ => unreachable!("all parts are of one kind"),
        };
        let (n_classes, device) = (with.dims()[1], with.device());
        if in_host_memory(&device) {
            let (mut with, without) = (wait.read(with).await?, wait.read(without).await?);
            combine_host(&mut with, &without, &weights, n_classes);
            return Ok(host::read(&with, n_classes, queries, excluded));
        }
        let padded = [&weights[..], &vec![0.0; with.dims()[0] - weights.len()]].concat();
        device::read(&combine(with, without, &padded), queries, excluded, wait).await
    }
}

// Hidden states `[N, H]` at these places of `[B, K, H]`.
fn rows_of_hidden(hidden: &Tensor<3>, places: &[usize]) -> Tensor<2> {
    let [n_rows, n_positions, width] = hidden.dims();
    rows_of(&hidden.clone().reshape([n_rows * n_positions, width]), places)
}

// On a GPU the last place stands for padding: kernels are compiled and tuned for each shape, so there are few shapes.
fn rows_of(all: &Tensor<2>, places: &[usize]) -> Tensor<2> {
    let device = all.device();
    let mut index: Vec<i32> = places.iter().map(|&place| place as i32).collect();
    if !in_host_memory(&device) {
        index.resize(index.len().next_multiple_of(64), 0);
    }
    let n = index.len();
    all.clone().select(0, Tensor::<1, Int>::from_data(TensorData::new(index, [n]), &device))
}

fn rows_of_host(values: &[f32], n_classes: usize, places: &[usize]) -> Vec<f32> {
    places.iter().flat_map(|place| &values[place * n_classes..][..n_classes]).copied().collect()
}

// `(1 + w) a - w b` of `n_classes` logits at each position. A class that is impossible with the class label stays so.
fn combine_host(with_class: &mut [f32], without_class: &[f32], weights: &[f32], n_classes: usize) {
    let rows = with_class.chunks_exact_mut(n_classes).zip(without_class.chunks_exact(n_classes));
    for ((with_class, without_class), &weight) in rows.zip(weights) {
        for (logit, &other) in with_class.iter_mut().zip(without_class) {
            if *logit != f32::NEG_INFINITY {
                *logit = (1.0 + weight) * *logit - weight * other;
            }
        }
    }
}

// The same on a device, of `[N, V]` and N weights.
fn combine(with_class: Tensor<2>, without_class: Tensor<2>, weights: &[f32]) -> Tensor<2> {
    let (dims, device) = (with_class.dims(), with_class.device());
    let (with_class, without_class) = (with_class.cast(FloatDType::F32), without_class.cast(FloatDType::F32));
    let weights = Tensor::<2>::from_data(TensorData::new(weights.to_vec(), [weights.len(), 1]), &device).expand(dims);
    let impossible = with_class.clone().equal_elem(f32::NEG_INFINITY);
    let combined = (weights.clone() + 1.0) * with_class - weights * without_class;
    combined.mask_fill(impossible, f32::NEG_INFINITY)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Device;

    use super::super::finish;
    use super::*;
    use crate::sample::draw::DrawSettings;

    // Three rows with two positions and five classes; row 2 is row 0 without its class.
    fn values() -> Vec<f32> {
        (0..30).map(|index| ((index * 7) % 11) as f32 / 3.0).collect()
    }

    fn read(logits: &Logits<'_>) -> Vec<PositionReading> {
        let query = |(row, index)| PositionQuery {
            draw: PositionDraw { row, index, uniform: 0.4 },
            settings: DrawSettings::default(),
            stats: true,
            n_alternatives: 4,
            allowed: None,
        };
        let queries = [(0, 1), (1, 0), (0, 0), (1, 1)].map(query);
        finish(logits.read(&queries, &[4], Wait::Blocking)).unwrap()
    }

    #[test]
    fn guided_logits_are_extrapolated_from_the_row_without_its_class_in_every_kind_of_part() {
        let device = Device::flex();
        let guided = vec![Some(GuidedRow { without_class: 2, weight: 1.5 })];
        let mut expected = values();
        for class in 0..10 {
            expected[class] = 2.5 * expected[class] - 1.5 * expected[20 + class];
        }
        let expected = read(&Logits::from_host(expected, 2, 5));
        assert_ne!(expected, read(&Logits::from_host(values(), 2, 5)));
        assert_eq!(read(&Logits::from_host(values(), 2, 5).guided(guided.clone())), expected);
        let tensor = Tensor::<3>::from_data(TensorData::new(values(), [3, 2, 5]), &device);
        let hidden = Logits::from_hidden(tensor.clone(), Box::new(|hidden| hidden));
        assert_eq!(read(&hidden.guided(guided.clone())), expected);
        // The row without its class in another part than the row.
        let parts = vec![(tensor.clone().narrow(0, 0, 1), vec![0]), (tensor.clone().narrow(0, 1, 2), vec![1, 2])];
        assert_eq!(read(&Logits::from_parts(parts, Box::new(|hidden| hidden)).guided(guided.clone())), expected);
        let packed = tensor.clone().reshape([1, 6, 5]);
        let packed = Logits::from_packed(packed, [2, 2, 2].into_iter(), Box::new(|hidden| hidden));
        assert_eq!(read(&packed.guided(guided)), expected);

        let combined = combine(tensor.clone().reshape([6, 5]), tensor.reshape([6, 5]).flip([0]), &[0.5; 6]);
        let mut of_host = values();
        let flipped: Vec<f32> = values().chunks_exact(5).rev().flatten().copied().collect();
        combine_host(&mut of_host, &flipped, &[0.5; 6], 5);
        let combined = combined.try_into_vec_as::<f32>().unwrap();
        assert!(combined.iter().zip(&of_host).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn a_token_that_is_impossible_with_the_class_stays_impossible() {
        let infinity = f32::NEG_INFINITY;
        let values = vec![1.0, infinity, 0.5, 0.0, infinity, 2.0];
        let guided = vec![Some(GuidedRow { without_class: 1, weight: 2.0 })];
        let logits = Logits::from_host(values, 1, 3).guided(guided);
        let draw = |uniform| PositionDraw { row: 0, index: 0, uniform };
        let drawn = logits.draw(&[draw(0.0), draw(0.99), draw(0.999)], &[], &DrawSettings::default()).unwrap();
        assert_eq!(drawn.iter().map(|token| token.class).collect::<Vec<_>>(), [0, 0, 2], "3 against -2.5");
    }
}
