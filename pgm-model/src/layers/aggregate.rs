//! Aggregates of the encoder output, over the keys that a query sees. The GroupSwap may add them to its queries.
// B batch, C keys, K queries, S sets of keys, H hidden

use burn::tensor::{Int, Tensor, assert_shape};

use crate::attention_plan::{AttentionPlan, KeySets};
use crate::visibility::Visibility;

/// The aggregate of a set of keys, computed for each channel; 0 for an empty set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Mean,
    LogSumExp,
}

impl Aggregate {
    /// For each query, the aggregate of the keys that it sees.
    ///
    /// # Shapes
    /// encoder output `[B, C, H] -> [B, K, H]`
    pub(crate) fn forward(self, encoded: &Tensor<3>, plan: &AttentionPlan) -> Tensor<3> {
        match &plan.key_sets {
            KeySets::Labels(n_sets) => {
                let sets = LabelledSets::new(encoded, plan, *n_sets);
                sets.spread(match self {
                    Self::Mean => sets.mean(encoded),
                    Self::LogSumExp => sets.log_sum_exp(encoded),
                })
            }
            KeySets::Segments { n_keys, n_queries } => self.of_segments(encoded, n_keys, n_queries),
        }
    }

    // Each set reads only its own keys, so the cost is linear in the number of keys and queries.
    fn of_segments(self, encoded: &Tensor<3>, n_keys: &[usize], n_queries: &[usize]) -> Tensor<3> {
        let [_, _, width] = encoded.dims();
        assert_shape!(encoded, [1, _, width]);
        let mut start = 0;
        let mut of_queries = Vec::new();
        for (&n_keys, &n_queries) in n_keys.iter().zip(n_queries) {
            if n_queries > 0 {
                let aggregate = match n_keys {
                    0 => Tensor::zeros([1, 1, width], (&encoded.device(), encoded.dtype())),
                    _ => self.of_all(encoded.clone().narrow(1, start, n_keys)),
                };
                of_queries.push(aggregate.expand([1, n_queries, width]));
            }
            start += n_keys;
        }
        Tensor::cat(of_queries, 1) // [1, K, H]
    }

    // [1, C, H] -> [1, 1, H]
    fn of_all(self, keys: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Mean => keys.mean_dim(1),
            Self::LogSumExp => {
                // The shift is for numerical stability only, so no gradient flows through it.
                let shift = keys.clone().max_dim(1).detach(); // [1, 1, H]
                (keys - shift.clone()).exp().sum_dim(1).log() + shift
            }
        }
    }
}

// Sets of keys that are given by labels, as matrices of zeros and ones.
struct LabelledSets {
    // 1 where a key belongs to a set, `[B, S, C]`.
    members: Tensor<3>,
    // 1 where a query sees a set, `[B, K, S]`.
    seen: Tensor<3>,
}

impl LabelledSets {
    fn new(encoded: &Tensor<3>, plan: &AttentionPlan, n_sets: usize) -> Self {
        let ([n_rows, n_keys, _], device) = (encoded.dims(), encoded.device());
        let n_queries = plan.query_positions.indices().dims()[1];
        let [queries, keys] = Visibility::labels(plan.across.as_ref(), [n_rows, n_queries, n_keys], &device);
        let sets = Tensor::<1, Int>::arange(0..n_sets as i64, &device).reshape([1, n_sets, 1]);
        let is_of = |labels: Tensor<2, Int>| {
            let shape = [n_rows, n_sets, labels.dims()[1]];
            labels.unsqueeze_dim::<3>(1).expand(shape).equal(sets.clone().expand(shape)).float()
        };
        Self { members: is_of(keys), seen: is_of(queries).swap_dims(1, 2) }
    }

    // Gives each query the aggregate of its set: [B, S, H] -> [B, K, H].
    fn spread(&self, aggregates: Tensor<3>) -> Tensor<3> {
        self.seen.clone().matmul(aggregates)
    }

    // [B, C, H] -> [B, S, H]
    fn mean(&self, encoded: &Tensor<3>) -> Tensor<3> {
        let count = self.members.clone().sum_dim(2).clamp_min(1.0); // [B, S, 1]
        self.members.clone().matmul(encoded.clone()) / count
    }

    // [B, C, H] -> [B, S, H]
    fn log_sum_exp(&self, encoded: &Tensor<3>) -> Tensor<3> {
        const OUTSIDE: f32 = -1e30;
        let [n_rows, n_keys, width] = encoded.dims();
        let n_sets = self.members.dims()[1];
        let members: Tensor<4> = self.members.clone().unsqueeze_dim(3); // [B, S, C, 1]
        let shape = [n_rows, n_sets, n_keys, width];
        let outside = members.equal_elem(0.0).expand(shape);
        let values = encoded.clone().unsqueeze_dim::<4>(1).expand(shape).mask_fill(outside.clone(), OUTSIDE);
        let alive = self.members.clone().max_dim(2); // [B, S, 1]
        // The shift is for numerical stability only, so no gradient flows through it.
        let shift = values.clone().max_dim(2).detach(); // [B, S, 1, H]
        let terms = (values - shift.clone()).exp().mask_fill(outside, 0.0);
        let sum = terms.sum_dim(2).squeeze_dim::<3>(2); // [B, S, H]
        let empty = alive.clone().neg() + 1.0;
        ((sum + empty).log() + shift.squeeze_dim::<3>(2)) * alive
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::attention_plan::CleanKeys;
    use crate::rotary::AngleTables;
    use crate::sequence::PackedRows;

    // Two plans of the same rows: packed, and with the sets given by labels.
    fn plans(n_keys: &[usize], n_queries: &[usize], device: &Device) -> [AttentionPlan; 2] {
        let positions = |lengths: &[usize]| -> Vec<Vec<usize>> { lengths.iter().map(|&n| (0..n).collect()).collect() };
        let (keys, queries) = (positions(n_keys), positions(n_queries));
        let tokens: Vec<Vec<u32>> = n_keys.iter().map(|&n| vec![1; n]).collect();
        fn slices<T>(rows: &[Vec<T>]) -> Vec<&[T]> {
            rows.iter().map(Vec::as_slice).collect()
        }
        let rows = PackedRows::new(&slices(&tokens), &slices(&keys), &slices(&queries), device);
        let tables = AngleTables::new(2, 16);
        let packed = CleanKeys::packed(&rows, &tables).packed_plan(&rows, &tables);
        let labelled = AttentionPlan { key_sets: KeySets::Labels(n_keys.len()), ..packed.clone() };
        [packed, labelled]
    }

    #[test]
    fn an_aggregate_of_packed_rows_and_its_gradient_equal_those_of_labelled_sets() {
        let (n_keys, n_queries, width) = ([3, 0, 1, 5, 2], [2, 3, 1, 0, 4], 7);
        let plain = Device::flex();
        let [packed, labelled] = plans(&n_keys, &n_queries, &plain);
        let n: usize = n_keys.iter().sum();
        let values: Vec<f32> = (0..n * width).map(|i| (i * 31 % 77) as f32 / 9.0 - 4.0).collect();
        let device = plain.autodiff();
        for aggregate in [Aggregate::Mean, Aggregate::LogSumExp] {
            let [(a, a_gradient), (b, b_gradient)] = [&packed, &labelled].map(|plan| {
                let data = TensorData::new(values.clone(), [1, n, width]);
                let encoded = Tensor::<3>::from_data(data, &device).require_grad();
                let out = aggregate.forward(&encoded, plan);
                let gradients = (out.clone() * out.clone()).sum().backward();
                let gradient = encoded.grad(&gradients).unwrap();
                (out.inner().try_into_vec_as::<f32>().unwrap(), gradient.try_into_vec_as::<f32>().unwrap())
            });
            assert_eq!(a.len(), 10 * width);
            assert!(a[2 * width..5 * width].iter().all(|&value| value == 0.0), "the second row is empty");
            let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5 * b.abs().max(1.0));
            assert!(a.len() == b.len() && close(&a, &b), "{aggregate:?}: {a:?} {b:?}");
            assert!(close(&a_gradient, &b_gradient), "{aggregate:?}: {a_gradient:?} {b_gradient:?}");
        }
    }
}
