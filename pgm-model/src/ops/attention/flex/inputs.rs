//! The inputs of attention, as the queries and keys of groups: the tokens of one label in one row.

// B rows, S tokens, Q queries, C keys, h heads, d head width, H = h d

use burn_flex::FlexTensor;

use super::loops::{self, Vectors};
use crate::ops::attention::settings::AttentionSettings;
use crate::ops::flex::memory::Uninit;
use crate::ops::flex::tensor::{ints, side_by_side, values};
use crate::visibility::MAX_SETS;

/// Vectors within `[B, S, row]`: all heads side by side from column `first` on.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    pub(super) row: usize,
    pub(super) first: usize,
}

pub(super) struct AttentionInputs {
    queries: FlexTensor,
    // Whether all rows have the same queries, and the tensor those of one row.
    shared_queries: bool,
    /// Keys and values, if they are not in the queries' tensor.
    pub(super) keys: Option<FlexTensor>,
    /// Where queries, keys and values begin.
    pub(super) columns: [Columns; 3],
    /// Angles of queries and keys.
    pub(super) angles: [Angles; 2],
    labels: [Vec<i64>; 2],
    pub(super) n_rows: usize,
    pub(super) n_queries: usize,
    pub(super) n_keys: usize,
    pub(super) n_heads: usize,
    pub(super) head_width: usize,
    causal: bool,
    ordered: bool,
}

/// Cosines, then sines, `[B or 1, S, d]`.
pub(super) struct Angles {
    table: FlexTensor,
    // Whether all rows have the same angles.
    shared: bool,
}

impl Angles {
    fn new(table: &FlexTensor) -> Self {
        Self { table: table.to_contiguous(), shared: table.layout().shape()[0] == 1 }
    }

    /// The cosines and sines of a row's tokens, `[S, d]`.
    pub(super) fn of_row(&self, row: usize, n_tokens: usize, head_width: usize) -> &[f32] {
        let first = if self.shared { 0 } else { row * n_tokens };
        &values(&self.table)[first * head_width..][..n_tokens * head_width]
    }
}

/// The tokens of one label in one row, or those of all sets of one group in the order of the sets.
pub(super) struct Group {
    pub(super) row: usize,
    pub(super) queries: Vec<usize>,
    pub(super) keys: Vec<usize>,
    // The number of keys that each query sees, which never falls; empty where all see as many.
    n_visible: Vec<usize>,
}

impl Group {
    // Puts tokens into the order of their sets.
    fn order(&mut self, query_labels: &[i64], key_labels: &[i64]) {
        self.queries.sort_by_key(|&query| query_labels[query]);
        self.keys.sort_by_key(|&key| key_labels[key]);
        let n_seen = |&query: &usize| self.keys.partition_point(|&key| key_labels[key] <= query_labels[query]);
        self.n_visible = self.queries.iter().map(n_seen).collect();
    }
}

/// The number of keys that scratch memory has room for. It is a power of two, so that it takes few different values: an
/// allocator finds memory of a known size again.
pub(super) fn key_capacity(groups: &[Group]) -> usize {
    groups.iter().map(|group| group.keys.len()).max().unwrap_or(0).next_power_of_two()
}

// A label for every token; one label for all if there are none.
fn labels_of(labels: &FlexTensor, n_tokens: usize, labelled: bool) -> Vec<i64> {
    if !labelled {
        return vec![0; n_tokens];
    }
    let labels = ints(labels);
    assert_eq!(labels.len(), n_tokens, "a label for every token");
    labels
}

impl AttentionInputs {
    pub(super) fn of_self(
        qkv: &FlexTensor,
        angles: &FlexTensor,
        labels: &FlexTensor,
        settings: AttentionSettings,
    ) -> Self {
        let [n_rows, n_tokens, row] = qkv.layout().shape().dims();
        let width = row / 3;
        let labels = labels_of(labels, n_rows * n_tokens, settings.labelled);
        Self {
            queries: qkv.to_contiguous(),
            shared_queries: false,
            keys: None,
            columns: [0, 1, 2].map(|index| Columns { row, first: index * width }),
            angles: [Angles::new(angles), Angles::new(angles)],
            labels: [labels.clone(), labels],
            n_rows,
            n_queries: n_tokens,
            n_keys: n_tokens,
            n_heads: settings.n_heads,
            head_width: width / settings.n_heads,
            causal: settings.causal,
            ordered: settings.ordered,
        }
    }

    pub(super) fn of_cross(
        [q, kv]: [&FlexTensor; 2],
        angles: [&FlexTensor; 2],
        [q_labels, k_labels]: [&FlexTensor; 2],
        settings: AttentionSettings,
    ) -> Self {
        let [n_rows, n_queries, width] = q.layout().shape().dims();
        let [_, n_keys, row] = kv.layout().shape().dims();
        let labels = [(q_labels, n_queries), (k_labels, n_keys)];
        let shared_queries = n_rows > 1 && q.layout().strides()[0] == 0;
        Self {
            queries: side_by_side(&if shared_queries { q.narrow(0, 0, 1) } else { q.clone() }),
            shared_queries,
            keys: Some(side_by_side(kv)),
            columns: [Columns { row: width, first: 0 }, Columns { row, first: 0 }, Columns { row, first: width }],
            angles: angles.map(Angles::new),
            labels: labels.map(|(labels, n)| labels_of(labels, n_rows * n, settings.labelled)),
            n_rows,
            n_queries,
            n_keys,
            n_heads: settings.n_heads,
            head_width: width / settings.n_heads,
            causal: false,
            ordered: settings.ordered,
        }
    }

    pub(super) fn width(&self) -> usize {
        self.n_heads * self.head_width
    }

    /// The number of elements of the queries' tensor, each row by itself.
    pub(super) fn queries_len(&self) -> usize {
        self.n_rows * self.n_queries * self.columns[0].row
    }

    /// The factor of the queries, `1 / sqrt(d)`.
    pub(super) fn scale(&self) -> f32 {
        1.0 / (self.head_width as f32).sqrt()
    }

    /// Where the vector of a query and head begins in the output.
    pub(super) fn output_start(&self, row: usize, query: usize, head: usize) -> usize {
        (row * self.n_queries + query) * self.width() + head * self.head_width
    }

    /// One head's vectors of a row's queries in the output or in something of its shape.
    pub(super) fn output_vectors<'a>(&self, values: &'a [f32], row: usize, head: usize) -> Vectors<'a> {
        Vectors { values: &values[self.output_start(row, 0, head)..], stride: self.width(), size: self.head_width }
    }

    /// The groups of all rows.
    pub(super) fn groups(&self) -> Vec<Group> {
        (0..self.n_rows).flat_map(|row| self.groups_of(row)).collect()
    }

    // A query without keys, and a key without queries, are in no group: their outputs and gradients stay 0.
    fn groups_of(&self, row: usize) -> Vec<Group> {
        let [query_labels, key_labels] = &self.labels;
        let query_labels = &query_labels[row * self.n_queries..][..self.n_queries];
        let key_labels = &key_labels[row * self.n_keys..][..self.n_keys];
        let mut groups: Vec<Group> = Vec::new();
        let mut labels: Vec<i64> = Vec::new();
        // Tokens of one label often follow each other.
        let mut last = 0;
        let mut find = |labels: &[i64], label: i64| {
            if labels.get(last) != Some(&label) {
                last = labels.iter().position(|&known| known == label)?;
            }
            Some(last)
        };
        let n_sets = if self.ordered { MAX_SETS as i64 } else { 1 };
        for (query, &label) in query_labels.iter().enumerate() {
            let label = label / n_sets;
            let index = find(&labels, label).unwrap_or_else(|| {
                labels.push(label);
                groups.push(Group { row, queries: Vec::new(), keys: Vec::new(), n_visible: Vec::new() });
                groups.len() - 1
            });
            groups[index].queries.push(query);
        }
        for (key, &label) in key_labels.iter().enumerate() {
            if let Some(index) = find(&labels, label / n_sets) {
                groups[index].keys.push(key);
            }
        }
        groups.retain(|group| !group.keys.is_empty());
        if self.ordered {
            groups.iter_mut().for_each(|group| group.order(query_labels, key_labels));
        }
        groups
    }

    /// The number of the group's keys that its first `n` queries see.
    pub(super) fn n_visible(&self, group: &Group, n: usize) -> usize {
        if self.causal { n } else { group.n_visible.get(n - 1).copied().unwrap_or(group.keys.len()) }
    }

    /// Hides the keys that a query does not see from it. Returns whether it sees any.
    pub(super) fn hide(&self, group: &Group, query: usize, scores: &mut [f32]) -> bool {
        let n = self.n_visible(group, query + 1);
        scores[n..].fill(f32::NEG_INFINITY);
        n > 0
    }

    /// Some queries of a group, rotated and scaled, at the beginning of `out`.
    pub(super) fn rotated_queries<'a>(
        &self,
        group: &Group,
        head: usize,
        queries: &[usize],
        out: &'a mut Uninit,
    ) -> &'a [f32] {
        let row = if self.shared_queries { 0 } else { group.row };
        let vectors = self.vectors(&self.queries, self.columns[0], row * self.n_queries, head);
        let angles = self.angles[0].of_row(group.row, self.n_queries, self.head_width);
        loops::rotate(vectors, queries, angles, self.scale(), &mut out[..queries.len() * self.head_width])
    }

    /// The keys of a group, rotated, at the beginning of `out`.
    pub(super) fn rotated_keys<'a>(&self, group: &Group, head: usize, out: &'a mut Uninit) -> &'a [f32] {
        let vectors = self.vectors(self.keys(), self.columns[1], group.row * self.n_keys, head);
        let angles = self.angles[1].of_row(group.row, self.n_keys, self.head_width);
        loops::rotate(vectors, &group.keys, angles, 1.0, &mut out[..group.keys.len() * self.head_width])
    }

    /// The values of a group at the beginning of `out`.
    pub(super) fn gathered_values<'a>(&self, group: &Group, head: usize, out: &'a mut Uninit) -> &'a [f32] {
        let vectors = self.vectors(self.keys(), self.columns[2], group.row * self.n_keys, head);
        loops::gather(vectors, &group.keys, &mut out[..group.keys.len() * self.head_width])
    }

    fn keys(&self) -> &FlexTensor {
        self.keys.as_ref().unwrap_or(&self.queries)
    }

    // One head's vectors of the tokens from `first` on.
    fn vectors<'a>(&self, all: &'a FlexTensor, columns: Columns, first: usize, head: usize) -> Vectors<'a> {
        let start = first * columns.row + columns.first + head * self.head_width;
        Vectors { values: &values(all)[start..], stride: columns.row, size: self.head_width }
    }
}
