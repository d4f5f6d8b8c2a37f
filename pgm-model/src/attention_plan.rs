//! Positions and attention masks of queries and keys: all that distinguishes training from sampling.
//!
//! Each entry point of the network builds plans. The layers read them and need no mode flag.
// B batch, L length, C keys (clean tokens), K queries (positions to decode), d head width, R registers

use std::ops::Range;

use burn::tensor::{Int, Tensor, assert_shape};

use crate::rotary::{AngleTables, RotaryAngles};
use crate::sequence::{CleanTokens, PackedPositions, PackedRows, Partition, Positions};
use crate::visibility::{Visibility, set_labels};

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

/// Register tokens before a sequence: the first half belongs to group 1, the second half to group 0. Tokens come after
/// them, so their positions are larger by the number of registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers(pub(crate) usize);

impl Registers {
    /// Those of group 0, which stand before clean tokens.
    pub(crate) fn of_clean(self) -> Range<usize> {
        self.0 / 2..self.0
    }

    // The labels of registers and tokens, [B, L] -> [B, R + L]; a register has the label `of_register`.
    fn before(self, labels: Tensor<2, Int>, of_register: i32) -> Tensor<2, Int> {
        let front = Tensor::full([labels.dims()[0], self.0], of_register, &labels.device());
        if self.0 == 0 { labels } else { Tensor::cat(vec![front, labels], 1) }
    }

    // The groups of registers and tokens, [B, L] -> [B, R + L].
    fn before_groups(self, groups: &Tensor<2, Int>) -> Tensor<2, Int> {
        let ([n_rows, _], device) = (groups.dims(), groups.device());
        match self.0 {
            0 => groups.clone(),
            n => {
                let of_group = |group: i32| Tensor::<2, Int>::full([n_rows, n / 2], group, &device);
                Tensor::cat(vec![of_group(1), of_group(0), groups.clone()], 1)
            }
        }
    }
}

/// The two plans of a training step: every position is a key, and every token a query. The encoder attends within a group,
/// the decoder across the groups.
pub(crate) fn partition_plans(
    partition: &Partition,
    registers: Registers,
    tables: &AngleTables,
) -> (SelfAttentionPlan, AttentionPlan) {
    let groups = partition.groups();
    let (length, device) = (groups.dims()[1], groups.device());
    let of_keys = registers.before_groups(groups); // [B, R + L]
    let positions = Positions::all(1, registers.0 + length, &device);
    let angles = RotaryAngles::new(tables, &positions);
    let (query_positions, queries) = match registers.0 {
        0 => (positions, angles.clone()),
        n => {
            let positions = Positions::range(n..n + length, &device);
            (positions.clone(), RotaryAngles::new(tables, &positions))
        }
    };
    let across = AttentionPlan {
        keys: angles.clone(),
        queries,
        query_positions,
        across: Some(Visibility::across(groups.clone(), of_keys.clone().neg() + 1)),
        key_sets: KeySets::Labels(2),
    };
    let within = match partition.sets() {
        None => Visibility::within(of_keys),
        // Registers belong to the first set.
        Some(sets) => Visibility::within_sets(set_labels(of_keys, registers.before(sets.clone(), 0))),
    };
    (SelfAttentionPlan { angles, visibility: Some(within) }, across)
}

/// The two plans of a row whose tokens come in ordered sets, `[B, L]`: the encoder attends within a set and to earlier ones,
/// the decoder predicts a token from earlier sets alone. Registers stand before all sets.
pub(crate) fn any_order_plans(
    sets: &Tensor<2, Int>,
    registers: Registers,
    tables: &AngleTables,
) -> (SelfAttentionPlan, AttentionPlan) {
    let (length, device) = (sets.dims()[1], sets.device());
    let front = registers.of_clean();
    let positions = Positions::range(registers.0..registers.0 + length, &device);
    let key_positions = positions.clone().preceded_by(front.clone());
    let angles = RotaryAngles::new(tables, &key_positions);
    // A query of set s sees the keys of labels up to s, which are the tokens of the sets before s.
    let keys = Registers(front.len()).before(sets.clone() + 1, 0); // [B, R / 2 + L]
    let across = AttentionPlan {
        keys: angles.clone(),
        queries: RotaryAngles::new(tables, &positions),
        query_positions: positions,
        across: Some(Visibility::across_sets(sets.clone(), keys.clone())),
        key_sets: KeySets::Labels(1),
    };
    (SelfAttentionPlan { angles, visibility: Some(Visibility::within_sets(keys)) }, across)
}

/// The keys of a sampling step: the registers of group 0, then the clean tokens.
#[derive(Clone, Debug)]
pub(crate) struct CleanKeys {
    angles: RotaryAngles,
    // A query sees the keys of its own label, `[B, C]`; `None` when every query sees every key.
    labels: Option<Tensor<2, Int>>,
    // The set of each key, `[B, C]`; `None` when the keys of a row are one set.
    sets: Option<Tensor<2, Int>>,
    n_rows: usize,
    registers: Registers,
    // Keys of each packed row; `None` for rows of a batch.
    packed: Option<Vec<usize>>,
}

impl CleanKeys {
    /// Keys in a batch of rows. Padding carries a label that no query has.
    pub(crate) fn new(clean: &CleanTokens, registers: Registers, tables: &AngleTables) -> Self {
        let ([n_rows, n_tokens], device) = (clean.tokens().dims(), clean.tokens().device());
        let n_front = registers.of_clean().len();
        let shape = [n_rows, n_front + n_tokens];
        // 0 for a token, which is the label of all queries; 1 for padding.
        let labels: Option<Tensor<2, Int>> = clean.lengths().map(|lengths| {
            let column = Tensor::<1, Int>::arange(0..shape[1] as i64, &device).unsqueeze::<2>(); // [1, C]
            let n_keys = lengths.clone() + n_front as i32;
            column.expand(shape).greater_equal(n_keys.expand(shape)).int() // [B, C]
        });
        let positions = clean.positions().behind(registers.0).preceded_by(registers.of_clean());
        // Registers belong to the first set.
        let sets = clean.sets().map(|sets| Registers(n_front).before(sets.clone(), 0));
        Self { angles: RotaryAngles::new(tables, &positions), labels, sets, n_rows, registers, packed: None }
    }

    /// Keys of packed rows, labelled by row.
    pub(crate) fn packed(rows: &PackedRows, tables: &AngleTables) -> Self {
        Self::of_packed(rows.keys(), Registers(0), tables)
    }

    /// As [`packed`](Self::packed), with group 0's registers before each row's tokens. Also returns gather indices: for each
    /// key, its index into `cat(registers, tokens of all rows)`.
    pub(crate) fn packed_behind(
        rows: &PackedRows,
        registers: Registers,
        tables: &AngleTables,
    ) -> (Self, Tensor<1, Int>) {
        let (keys, index) = rows.keys().behind(registers.0, registers.of_clean());
        (Self::of_packed(&keys, registers, tables), index)
    }

    fn of_packed(keys: &PackedPositions, registers: Registers, tables: &AngleTables) -> Self {
        let angles = RotaryAngles::new(tables, &keys.positions);
        let packed = Some(keys.lengths.clone());
        Self { angles, labels: Some(keys.labels.clone()), sets: None, n_rows: 1, registers, packed }
    }

    /// The row of each key, `[1, C]`, of packed rows.
    pub(crate) fn labels(&self) -> Option<&Tensor<2, Int>> {
        self.labels.as_ref()
    }

    /// The plan of the encoder: each token sees the tokens of its row, those of later sets excepted.
    pub(crate) fn within(&self) -> SelfAttentionPlan {
        let visibility = match (self.labels.clone(), self.sets.clone()) {
            (labels, None) => labels.map(Visibility::within),
            (labels, Some(sets)) => {
                let labels = labels.unwrap_or_else(|| sets.zeros_like());
                Some(Visibility::within_sets(set_labels(labels, sets)))
            }
        };
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
        let n_front = self.registers.of_clean().len();
        let of_rows = rows.keys().lengths.iter().map(|length| length + n_front);
        let n_keys = self.packed.clone().filter(|n_keys| of_rows.eq(n_keys.iter().copied()));
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
        let positions = positions.behind(self.registers.0);
        AttentionPlan {
            keys: self.angles.clone(),
            queries: RotaryAngles::new(tables, &positions),
            query_positions: positions,
            across: labels.zip(self.labels.clone()).map(|(queries, keys)| Visibility::across(queries, keys)),
            key_sets,
        }
    }
}
