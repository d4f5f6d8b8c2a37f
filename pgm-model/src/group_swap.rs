//! The one layer in which information crosses the groups (section 3 of the paper).
//!
//! Its queries are made of nothing but positions (and, in two variants, an aggregate of the other group), its output
//! replaces the stream: after it, the vector at position i describes the tokens of the *other* group.
//!
//! Shapes: B batch, C keys, K queries, S key sets, H hidden.

use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Int, Tensor};

use crate::conditioning::plain_norm;
use crate::config::{PartitionConfig, Projection, Queries};
use crate::ops::{cross_attention, linear, recomputed_linear};
use crate::plan::AttentionPlan;
use crate::rotary::AngleTables;
use crate::visibility::Visibility;

/// How queries are projected.
#[derive(Module, Debug)]
pub enum QueryProjection {
    /// One linear layer.
    Linear(Linear),
    /// Linear to 4 H, SiLU, linear.
    Mlp4(QueryMlp),
}

/// The two layers of [`QueryProjection::Mlp4`].
#[derive(Module, Debug)]
pub struct QueryMlp {
    up: Linear,
    down: Linear,
}

impl QueryProjection {
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Linear(layer) => linear(layer, x),
            Self::Mlp4(mlp) => linear(&mlp.down, silu(linear(&mlp.up, x))),
        }
    }
}

/// Attention from data-independent queries to the encoder output across the groups.
#[derive(Module, Debug)]
pub struct GroupSwap {
    base: Param<Tensor<2>>,
    norm: LayerNorm,
    projection: QueryProjection,
    kv: Linear,
    out: Linear,
    #[module(skip)]
    queries: Queries,
    n_heads: usize,
}

impl GroupSwap {
    /// A new layer.
    pub fn new(config: &PartitionConfig, device: &Device) -> Self {
        let width = config.backbone.hidden_size;
        let layer = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        Self {
            base: Initializer::Normal { mean: 0.0, std: 1.0 }.init([1, width], device),
            norm: LayerNormConfig::new(width).init(device),
            projection: match config.projection {
                Projection::Linear => QueryProjection::Linear(layer(width, width)),
                Projection::Mlp4 => {
                    QueryProjection::Mlp4(QueryMlp { up: layer(width, 4 * width), down: layer(4 * width, width) })
                }
            },
            kv: layer(width, 2 * width),
            out: layer(width, width),
            queries: config.queries,
            n_heads: config.backbone.n_heads,
        }
    }

    /// Keys and values of the encoder output, one behind the other; recomputed for the backward pass.
    ///
    /// # Shapes
    /// `[B, C, H] -> [B, C, 2 H]`
    pub(crate) fn keys_values(&self, encoded: &Tensor<3>) -> Tensor<3> {
        recomputed_linear(&self.kv, encoded.clone())
    }

    /// Queries that depend on positions alone, which the rows of a training step share, are projected once.
    ///
    /// # Shapes
    /// encoder output `[B, C, H]` and its [`keys_values`](Self::keys_values) `[B, C, 2 H] -> [B, K, H]`
    pub(crate) fn forward(
        &self,
        encoded: &Tensor<3>,
        kv: Tensor<3>,
        plan: &AttentionPlan,
        sinusoids: &AngleTables,
    ) -> Tensor<3> {
        let [n_rows, _, width] = encoded.dims();
        let positions = &plan.query_positions;
        let [n_rows_apart, n_queries] = positions.indices().dims(); // 1 or B
        let learned: Tensor<3> = self.base.val().unsqueeze_dim(0); // [1, 1, H]
        let positional = |x: Tensor<3>| {
            sinusoids.get(positions.span(), &positions.indices().device()).at(positions) + x // [1 or B, K, H]
        };
        let query = match self.queries {
            Queries::Learn => learned.expand([n_rows_apart, n_queries, width]),
            Queries::LearnFreqs => positional(learned),
            Queries::LearnFreqsMean => {
                let sets = KeySets::new(encoded, plan, n_queries);
                positional(learned) + sets.spread(sets.mean(encoded))
            }
            Queries::LearnFreqsLogSumExp => {
                let sets = KeySets::new(encoded, plan, n_queries);
                positional(learned) + sets.spread(sets.log_sum_exp(encoded))
            }
        };
        let q = self.projection.forward(plain_norm(&self.norm, query)).expand([n_rows, n_queries, width]);
        let angles = [&plan.queries, &plan.keys];
        let dtype = self.kv.weight.val().dtype();
        linear(&self.out, cross_attention(q, kv, angles, plan.across.as_ref(), self.n_heads, dtype))
    }
}

// The keys by who sees them: what a query may be told of is the set that it sees.
struct KeySets {
    // 1 where a key belongs to a set, `[B, S, C]`.
    members: Tensor<3>,
    // 1 where a query takes a set, `[B, K, S]`.
    chosen: Tensor<3>,
}

impl KeySets {
    fn new(encoded: &Tensor<3>, plan: &AttentionPlan, n_queries: usize) -> Self {
        let ([n_rows, n_keys, _], device) = (encoded.dims(), encoded.device());
        let [queries, keys] = Visibility::labels(plan.across.as_ref(), [n_rows, n_queries, n_keys], &device);
        let sets = Tensor::<1, Int>::arange(0..plan.n_sets as i64, &device).reshape([1, plan.n_sets, 1]);
        let is_of = |labels: Tensor<2, Int>| {
            let shape = [n_rows, plan.n_sets, labels.dims()[1]];
            labels.unsqueeze_dim::<3>(1).expand(shape).equal(sets.clone().expand(shape)).float()
        };
        Self { members: is_of(keys), chosen: is_of(queries).swap_dims(1, 2) }
    }

    // Each query takes its set's aggregate: [B, S, H] -> [B, K, H].
    fn spread(&self, aggregates: Tensor<3>) -> Tensor<3> {
        self.chosen.clone().matmul(aggregates)
    }

    // Mean over each set, 0 for an empty one: [B, C, H] -> [B, S, H].
    fn mean(&self, encoded: &Tensor<3>) -> Tensor<3> {
        let count = self.members.clone().sum_dim(2).clamp_min(1.0); // [B, S, 1]
        self.members.clone().matmul(encoded.clone()) / count
    }

    // Log-sum-exp over each set, 0 for an empty one: [B, C, H] -> [B, S, H].
    fn log_sum_exp(&self, encoded: &Tensor<3>) -> Tensor<3> {
        const OUTSIDE: f32 = -1e30;
        let [n_rows, n_keys, width] = encoded.dims();
        let n_sets = self.members.dims()[1];
        let members: Tensor<4> = self.members.clone().unsqueeze_dim(3); // [B, S, C, 1]
        let shape = [n_rows, n_sets, n_keys, width];
        let outside = members.equal_elem(0.0).expand(shape);
        let values = encoded.clone().unsqueeze_dim::<4>(1).expand(shape).mask_fill(outside.clone(), OUTSIDE);
        let alive = self.members.clone().max_dim(2); // [B, S, 1]
        // The shift only steadies the sum, so no gradient runs through it.
        let shift = values.clone().max_dim(2).detach(); // [B, S, 1, H]
        let terms = (values - shift.clone()).exp().mask_fill(outside, 0.0);
        let sum = terms.sum_dim(2).squeeze_dim::<3>(2); // [B, S, H]
        let empty = alive.clone().neg() + 1.0;
        ((sum + empty).log() + shift.squeeze_dim::<3>(2)) * alive
    }
}
