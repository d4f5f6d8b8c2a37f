//! Who stands where and who may look at whom: everything that distinguishes training from sampling.
//!
//! Both ways into the network build one [`AttentionPlan`]; the layers read it and know no mode.
//!
//! Shapes: B batch, L length, C keys (clean tokens), K queries (positions to decode), H hidden.

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::rotary::{AngleTables, RotaryAngles};
use crate::visibility::Visibility;

/// Positions of tokens in the sequence, `[B, S]`, and the smallest table length that holds them all.
#[derive(Clone, Debug)]
pub struct Positions {
    indices: Tensor<2, Int>,
    span: usize,
}

impl Positions {
    /// Positions from the host, one slice a row. Shorter rows are padded with position 0; what is computed there has
    /// no meaning.
    pub fn new(rows: &[Vec<usize>], device: &Device) -> Self {
        Self::padded(rows, 0, device)
    }

    /// As [`new`](Self::new), every row padded to at least `width` positions.
    pub fn padded(rows: &[Vec<usize>], width: usize, device: &Device) -> Self {
        let width = rows.iter().map(Vec::len).max().unwrap_or(0).max(width);
        let span = rows.iter().flatten().max().map_or(1, |last| last + 1);
        Self { indices: padded(rows, width, device, |&position| position as i32), span }
    }

    /// Positions `0..length` in each of `n_rows` rows.
    pub fn all(n_rows: usize, length: usize, device: &Device) -> Self {
        let indices = Tensor::<1, Int>::arange(0..length as i64, device).unsqueeze::<2>().expand([n_rows, length]);
        Self { indices, span: length }
    }

    /// Positions `range` in a single row, for a batch whose rows all stand there.
    pub(crate) fn range(range: std::ops::Range<usize>, device: &Device) -> Self {
        let span = range.end;
        Self { indices: Tensor::<1, Int>::arange(range.start as i64..range.end as i64, device).unsqueeze(), span }
    }

    /// The positions, `[B, S]`.
    pub fn indices(&self) -> &Tensor<2, Int> {
        &self.indices
    }

    /// One more than the largest position.
    pub fn span(&self) -> usize {
        self.span
    }
}

// The rows on the device, each filled up with zeros to `width`.
fn padded<T>(rows: &[Vec<T>], width: usize, device: &Device, to_int: impl Fn(&T) -> i32) -> Tensor<2, Int> {
    let mut values = Vec::with_capacity(rows.len() * width);
    for row in rows {
        values.extend(row.iter().map(&to_int));
        values.resize(values.len() + width - row.len(), 0);
    }
    Tensor::from_data(TensorData::new(values, [rows.len(), width]), device)
}

/// A split of every row into group 0 and group 1, `[B, L]`.
#[derive(Clone, Debug)]
pub struct Partition {
    groups: Tensor<2, Int>,
}

impl Partition {
    /// Groups already on the device, `[B, L]`, each 0 or 1.
    pub fn new(groups: Tensor<2, Int>) -> Self {
        Self { groups }
    }

    /// Groups from the host: `true` is group 1, the one that plays the masks. Rows have equal length.
    pub fn from_rows(rows: &[Vec<bool>], device: &Device) -> Self {
        let width = rows.first().map_or(0, Vec::len);
        Self { groups: padded(rows, width, device, |&in_group_one| i32::from(in_group_one)) }
    }

    /// The groups, `[B, L]`.
    pub fn groups(&self) -> &Tensor<2, Int> {
        &self.groups
    }
}

/// The tokens decoded so far, packed in any order, with their true positions.
#[derive(Clone, Debug)]
pub struct CleanTokens {
    tokens: Tensor<2, Int>,
    positions: Positions,
    // Tokens that count in each row; absent when every row is full, which spares the masks.
    lengths: Option<Tensor<2, Int>>,
}

impl CleanTokens {
    /// Clean tokens from the host, one row each; rows may differ in length and may be empty.
    ///
    /// # Panics
    /// When `tokens` and `positions` differ in shape, which is a programmer's error.
    pub fn new(tokens: &[Vec<u32>], positions: &[Vec<usize>], device: &Device) -> Self {
        Self::padded(tokens, positions, 1, device)
    }

    /// As [`new`](Self::new), every row padded to at least `width` tokens, which nothing sees: a device that tunes or
    /// compiles for each shape then meets few of them.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn padded(tokens: &[Vec<u32>], positions: &[Vec<usize>], width: usize, device: &Device) -> Self {
        let lengths: Vec<usize> = tokens.iter().map(Vec::len).collect();
        let position_counts: Vec<usize> = positions.iter().map(Vec::len).collect();
        assert_eq!(lengths, position_counts, "every clean token has one position");
        // At least one column, so that no tensor is empty: in an empty row that column is hidden from every query.
        let width = lengths.iter().copied().max().unwrap_or(0).max(width).max(1);
        let span = positions.iter().flatten().max().map_or(1, |last| last + 1);
        let ragged = lengths.iter().any(|&length| length != width);
        Self {
            tokens: padded(tokens, width, device, |&token| token as i32),
            positions: Positions { indices: padded(positions, width, device, |&position| position as i32), span },
            lengths: ragged.then(|| {
                let lengths: Vec<i32> = lengths.iter().map(|&length| length as i32).collect();
                Tensor::from_data(TensorData::new(lengths, [tokens.len(), 1]), device)
            }),
        }
    }

    /// Token ids, `[B, C]`; beyond a row's length they have no meaning.
    pub fn tokens(&self) -> &Tensor<2, Int> {
        &self.tokens
    }
}

/// Rows of any lengths one behind the other: no token fills them up, and a label says whose a token is.
///
/// It is worth it where attention takes the tokens of a label together, as on Flex; masked attention would look at the
/// tokens of all rows.
#[derive(Clone, Debug)]
pub struct PackedRows {
    tokens: Tensor<2, Int>,
    keys: Positions,
    queries: Positions,
    key_labels: Tensor<2, Int>,
    query_labels: Tensor<2, Int>,
    n_rows: usize,
}

impl PackedRows {
    /// Tokens, their positions, and the positions asked for, of each row.
    ///
    /// # Panics
    /// When a row's tokens and positions differ in number, which is a programmer's error.
    pub fn new(tokens: &[&[u32]], positions: &[&[usize]], queries: &[&[usize]], device: &Device) -> Self {
        let lengths = |rows: &[&[usize]]| rows.iter().map(|row| row.len()).collect::<Vec<_>>();
        assert!(tokens.iter().map(|row| row.len()).eq(lengths(positions)), "every clean token has one position");
        let labels = |rows: &[&[usize]]| -> Vec<usize> {
            lengths(rows).into_iter().enumerate().flat_map(|(row, length)| std::iter::repeat_n(row, length)).collect()
        };
        let (mut tokens, mut positions, mut key_labels) = (tokens.concat(), positions.concat(), labels(positions));
        // No tensor is empty: nobody sees this one.
        if tokens.is_empty() {
            (tokens, positions, key_labels) = (vec![0], vec![0], vec![queries.len()]);
        }
        let (n_keys, n_queries) = (tokens.len(), lengths(queries).into_iter().sum());
        let one_row = |values: Vec<usize>, width| padded(&[values], width, device, |&value| value as i32);
        Self {
            tokens: padded(&[tokens], n_keys, device, |&token| token as i32),
            keys: Positions::new(&[positions], device),
            query_labels: one_row(labels(queries), n_queries),
            queries: Positions::new(&[queries.concat()], device),
            key_labels: one_row(key_labels, n_keys),
            n_rows: queries.len(),
        }
    }

    /// Token ids of all rows, `[1, C]`.
    pub fn tokens(&self) -> &Tensor<2, Int> {
        &self.tokens
    }
}

/// What the layers need to know about positions and visibility.
#[derive(Clone, Debug)]
pub struct AttentionPlan {
    /// Rotary angles of the keys, which are also the encoder's queries.
    pub keys: RotaryAngles,
    /// Rotary angles of the decoder's queries.
    pub queries: RotaryAngles,
    /// Positions of the decoder's queries, `[1 or B, K]`.
    pub query_positions: Positions,
    /// Visibility of the keys from the queries; absent when every query sees every key.
    pub across: Option<Visibility>,
    /// Labels of `across` in all: the keys of each are a set, whose aggregate the GroupSwap may add to its queries.
    pub n_sets: usize,
}

impl AttentionPlan {
    /// Training: every position is a key and a query; the encoder looks within a group, the decoder across.
    pub(crate) fn partition(partition: &Partition, tables: &AngleTables) -> Self {
        let groups = partition.groups.clone();
        let positions = Positions::all(1, groups.dims()[1], &groups.device());
        let angles = RotaryAngles::new(tables, &positions);
        Self {
            keys: angles.clone(),
            queries: angles,
            query_positions: positions,
            across: Some(Visibility::across(groups.clone(), groups.neg() + 1)),
            n_sets: 2,
        }
    }
}

/// The keys of a sampling step: only clean tokens are keys.
#[derive(Clone, Debug)]
pub(crate) struct CleanKeys {
    pub(crate) angles: RotaryAngles,
    // A query sees the keys of its own label; absent when every query sees every key.
    labels: Option<Tensor<2, Int>>,
    n_rows: usize,
    n_sets: usize,
}

impl CleanKeys {
    /// One row of keys for each row of queries; padding carries a label that no query has.
    pub(crate) fn new(clean: &CleanTokens, tables: &AngleTables) -> Self {
        let ([n_rows, n_keys], device) = (clean.tokens.dims(), clean.tokens.device());
        // 0 for a token, 1 for padding; queries are labelled 0.
        let labels: Option<Tensor<2, Int>> = clean.lengths.as_ref().map(|lengths| {
            let column = Tensor::<1, Int>::arange(0..n_keys as i64, &device).unsqueeze::<2>();
            column.expand([n_rows, n_keys]).greater_equal(lengths.clone().expand([n_rows, n_keys])).int()
        }); // [B, C]
        Self { angles: RotaryAngles::new(tables, &clean.positions), labels, n_rows, n_sets: 1 }
    }

    /// The keys of packed rows: a token sees those of its row.
    pub(crate) fn packed(rows: &PackedRows, tables: &AngleTables) -> Self {
        let angles = RotaryAngles::new(tables, &rows.keys);
        Self { angles, labels: Some(rows.key_labels.clone()), n_rows: 1, n_sets: rows.n_rows }
    }

    /// Visibility of the keys among themselves.
    pub(crate) fn within(&self) -> Option<Visibility> {
        self.labels.clone().map(Visibility::within)
    }

    /// The plan of queries at `positions`, which see every key of their row.
    pub(crate) fn plan(&self, positions: &Positions, tables: &AngleTables) -> AttentionPlan {
        let n_queries = positions.indices.dims()[1];
        let zeros = |labels: &Tensor<2, Int>| Tensor::zeros([self.n_rows, n_queries], &labels.device());
        let queries = self.labels.as_ref().map(zeros);
        self.plan_of(positions, queries, tables)
    }

    /// The plan of the queries of packed rows.
    pub(crate) fn packed_plan(&self, rows: &PackedRows, tables: &AngleTables) -> AttentionPlan {
        self.plan_of(&rows.queries, Some(rows.query_labels.clone()), tables)
    }

    fn plan_of(&self, positions: &Positions, labels: Option<Tensor<2, Int>>, tables: &AngleTables) -> AttentionPlan {
        AttentionPlan {
            keys: self.angles.clone(),
            queries: RotaryAngles::new(tables, positions),
            query_positions: positions.clone(),
            across: labels.zip(self.labels.clone()).map(|(queries, keys)| Visibility::across(queries, keys)),
            n_sets: self.n_sets,
        }
    }
}
