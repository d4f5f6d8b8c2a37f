//! Positions and attention masks of queries and keys: all that distinguishes training from sampling.
//!
//! Each entry point of the network builds plans. The layers read them and need no mode flag.
// B batch, L length, C keys (clean tokens), K queries (positions to decode), d head width

use burn::tensor::{Int, Tensor, assert_shape};

use crate::rotary::{AngleTables, RotaryAngles};
use crate::sequence::{CleanTokens, PackedRows, Partition, Positions};
use crate::visibility::Visibility;

/// Angles and mask of self-attention.
#[derive(Clone, Debug)]
pub struct SelfAttentionPlan {
    /// Rotary angles of the tokens, `[1 or B, C, d]`.
    pub angles: RotaryAngles,
    /// Which tokens see each other; `None` when every token sees every token.
    pub visibility: Option<Visibility>,
}

/// Angles and mask of cross-attention from the positions to decode to the encoder output.
#[derive(Clone, Debug)]
pub struct AttentionPlan {
    /// Rotary angles of the keys, `[1 or B, C, d]`.
    pub keys: RotaryAngles,
    /// Rotary angles of the queries, `[1 or B, K, d]`.
    pub queries: RotaryAngles,
    /// Positions of the queries, `[1 or B, K]`.
    pub query_positions: Positions,
    /// Which keys a query sees; `None` when every query sees every key.
    pub across: Option<Visibility>,
    /// How the keys are divided into the sets whose aggregates the GroupSwap may add to its queries.
    pub key_sets: KeySets,
}

/// The keys that a query sees, as a set with an aggregate (mean or log-sum-exp).
#[derive(Clone, Debug)]
pub enum KeySets {
    /// The keys of each label of [`AttentionPlan::across`]; the labels are `0..n`.
    Labels(usize),
    /// One set of consecutive keys for each packed row, seen by consecutive queries.
    Segments {
        /// Keys of each set.
        n_keys: Vec<usize>,
        /// Queries of each set.
        n_queries: Vec<usize>,
    },
}

/// The two plans of a training step: every position is a key and a query. The encoder attends within a group, the decoder
/// across the groups.
pub(crate) fn partition_plans(partition: &Partition, tables: &AngleTables) -> (SelfAttentionPlan, AttentionPlan) {
    let groups = partition.groups();
    let positions = Positions::all(1, groups.dims()[1], &groups.device());
    let angles = RotaryAngles::new(tables, &positions);
    let across = AttentionPlan {
        keys: angles.clone(),
        queries: angles.clone(),
        query_positions: positions,
        across: Some(Visibility::across(groups.clone(), groups.clone().neg() + 1)),
        key_sets: KeySets::Labels(2),
    };
    (SelfAttentionPlan { angles, visibility: Some(Visibility::within(groups.clone())) }, across)
}

/// The keys of a sampling step: the clean tokens.
#[derive(Clone, Debug)]
pub(crate) struct CleanKeys {
    angles: RotaryAngles,
    // A query sees the keys of its own label, `[B, C]`; `None` when every query sees every key.
    labels: Option<Tensor<2, Int>>,
    n_rows: usize,
    // Keys of each packed row; `None` for rows of a batch.
    packed: Option<Vec<usize>>,
}

impl CleanKeys {
    /// Keys in a batch of rows. Padding carries a label that no query has.
    pub(crate) fn new(clean: &CleanTokens, tables: &AngleTables) -> Self {
        let (shape, device) = (clean.tokens().dims(), clean.tokens().device());
        // 0 for a token, which is the label of all queries; 1 for padding.
        let labels: Option<Tensor<2, Int>> = clean.lengths().map(|lengths| {
            let column = Tensor::<1, Int>::arange(0..shape[1] as i64, &device).unsqueeze::<2>(); // [1, C]
            column.expand(shape).greater_equal(lengths.clone().expand(shape)).int() // [B, C]
        });
        let angles = RotaryAngles::new(tables, clean.positions());
        Self { angles, labels, n_rows: shape[0], packed: None }
    }

    /// Keys of packed rows, labelled by row.
    pub(crate) fn packed(rows: &PackedRows, tables: &AngleTables) -> Self {
        let keys = rows.keys();
        let angles = RotaryAngles::new(tables, &keys.positions);
        Self { angles, labels: Some(keys.labels.clone()), n_rows: 1, packed: Some(keys.lengths.clone()) }
    }

    /// The plan of the encoder: each token sees the tokens of its row.
    pub(crate) fn within(&self) -> SelfAttentionPlan {
        let visibility = self.labels.clone().map(Visibility::within);
        SelfAttentionPlan { angles: self.angles.clone(), visibility }
    }

    /// The plan of queries at `positions`, `[B, K]`, which see every key of their row.
    ///
    /// # Panics
    /// When `positions` has another number of rows than the keys.
    pub(crate) fn plan(&self, positions: &Positions, tables: &AngleTables) -> AttentionPlan {
        assert_shape!(positions.indices(), [self.n_rows, _]);
        assert!(self.packed.is_none(), "packed rows are decoded as packed rows");
        let n_queries = positions.indices().dims()[1];
        let queries = self.labels.as_ref().map(|keys| Tensor::zeros([self.n_rows, n_queries], &keys.device()));
        self.plan_of(positions, queries, KeySets::Labels(1), tables)
    }

    /// The plan of the queries of packed rows.
    ///
    /// # Panics
    /// When the keys are not those of `rows`.
    pub(crate) fn packed_plan(&self, rows: &PackedRows, tables: &AngleTables) -> AttentionPlan {
        let queries = rows.queries();
        let n_keys = self.packed.clone().filter(|n_keys| *n_keys == rows.keys().lengths);
        let n_keys = n_keys.expect("the rows that were encoded");
        let sets = KeySets::Segments { n_keys, n_queries: queries.lengths.clone() };
        self.plan_of(&queries.positions, Some(queries.labels.clone()), sets, tables)
    }

    fn plan_of(
        &self,
        positions: &Positions,
        labels: Option<Tensor<2, Int>>,
        key_sets: KeySets,
        tables: &AngleTables,
    ) -> AttentionPlan {
        AttentionPlan {
            keys: self.angles.clone(),
            queries: RotaryAngles::new(tables, positions),
            query_positions: positions.clone(),
            across: labels.zip(self.labels.clone()).map(|(queries, keys)| Visibility::across(queries, keys)),
            key_sets,
        }
    }
}
