//! The GroupSwap, the only layer in which information crosses the groups.
//!
//! Its queries are built from positions; two variants add an aggregate of the other group. Its output replaces the
//! residual stream: after it, the vector at position i describes the tokens of the *other* group.
// B batch, C keys, K queries, H hidden

use burn::module::{Initializer, Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor, assert_shape};

use super::aggregate::Aggregate;
use super::norm::plain_norm;
use super::row_keys::{RowKeys, attend_rows};
use crate::attention_plan::AttentionPlan;
use crate::config::{PartitionConfig, Projection, Queries};
use crate::ops::{cross_attention, linear, recomputed_linear};
use crate::rotary::AngleTables;

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

/// Cross-attention between the groups: queries that are built from positions, and keys from the encoder output.
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

    /// Keys, then values, of the encoder output; recomputed in the backward pass.
    ///
    /// # Shapes
    /// `[B, C, H] -> [B, C, 2 H]`
    pub(crate) fn keys_values(&self, encoded: &Tensor<3>) -> Tensor<3> {
        recomputed_linear(&self.kv, encoded.clone())
    }

    /// The layer, given `kv` from [`keys_values`](Self::keys_values). Queries that all rows share are projected once.
    ///
    /// # Shapes
    /// encoder output `[B, C, H]`, kv `[B, C, 2 H] -> [B, K, H]`
    pub(crate) fn forward(
        &self,
        encoded: &Tensor<3>,
        kv: Tensor<3>,
        plan: &AttentionPlan,
        sinusoids: &AngleTables,
    ) -> Tensor<3> {
        let [n_rows, n_keys, width] = encoded.dims();
        assert_shape!(kv, [n_rows, n_keys, 2 * width]);
        let n_queries = plan.query_positions.indices().dims()[1];
        let query = self.raw_queries(Some(encoded), plan, sinusoids);
        let q = self.projection.forward(plain_norm(&self.norm, query)); // [1 or B, K, H]
        // Not copied for each row: a training step would keep the copies.
        let q = q.expand([n_rows, n_queries, width]);
        let angles = [&plan.queries, &plan.keys];
        let dtype = self.kv.weight.val().dtype();
        linear(&self.out, cross_attention(q, kv, angles, plan.across.as_ref(), self.n_heads, dtype)) // [B, K, H]
    }

    /// As [`forward`](Self::forward) for the positions to decode of packed rows, each with its own keys. A row is given with
    /// its encoder output, which only an aggregate reads.
    ///
    /// # Shapes
    /// encoder output of a row `[1, C, H]`, `-> [1, K, H]`
    pub(crate) fn forward_rows(
        &self,
        rows: &[(Option<Tensor<3>>, &AttentionPlan)],
        keys: Vec<RowKeys<'_>>,
        sinusoids: &AngleTables,
    ) -> Tensor<3> {
        let queries = rows.iter().map(|(encoded, plan)| self.raw_queries(encoded.as_ref(), plan, sinusoids));
        let queries = Tensor::cat(queries.collect(), 1);
        let q = self.projection.forward(plain_norm(&self.norm, queries)); // [1, K, H]
        let dtype = self.kv.weight.val().dtype();
        linear(&self.out, attend_rows(&q, keys.into_iter(), self.n_heads, dtype))
    }

    /// Whether queries hold an aggregate of the encoder output.
    pub(crate) fn reads_encoder_output(&self) -> bool {
        matches!(self.queries, Queries::LearnFreqsMean | Queries::LearnFreqsLogSumExp)
    }

    // Queries before their norm and projection, [1 or B, K, H]. Without an encoder output the aggregate is that of no keys.
    fn raw_queries(&self, encoded: Option<&Tensor<3>>, plan: &AttentionPlan, sinusoids: &AngleTables) -> Tensor<3> {
        let positions = &plan.query_positions;
        let [n_query_rows, n_queries] = positions.indices().dims();
        let learned: Tensor<3> = self.base.val().unsqueeze_dim(0); // [1, 1, H]
        let positional = |x: Tensor<3>| {
            sinusoids.get(positions.span(), &positions.indices().device()).at(positions) + x // [1 or B, K, H]
        };
        let aggregate = |aggregate: Aggregate, queries: Tensor<3>| match encoded {
            Some(encoded) => queries + aggregate.forward(encoded, plan),
            None => queries,
        };
        match self.queries {
            Queries::Learn => {
                let width = learned.dims()[2];
                learned.expand([n_query_rows, n_queries, width])
            }
            Queries::LearnFreqs => positional(learned),
            Queries::LearnFreqsMean => aggregate(Aggregate::Mean, positional(learned)),
            Queries::LearnFreqsLogSumExp => aggregate(Aggregate::LogSumExp, positional(learned)),
        }
    }
}
