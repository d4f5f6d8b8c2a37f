//! What a partition model has encoded of each row, kept between evaluations by the row's id.

use std::collections::HashMap;

use burn::tensor::Device;
use pgm_model::{EncodedRow, NewTokens, PartitionTransformer};

use crate::InferError;
use crate::sample::{CleanRow, RowId};

/// Bytes that are kept unless a caller says otherwise.
pub(crate) const DEFAULT_CACHE_BYTES: usize = 2 << 30;

/// Evaluations after which a row that has no part in them is dropped.
const IDLE_EVALUATIONS: u64 = 64;

/// Encoded rows, bounded in bytes. What is kept of a row is a function of its tokens and their sets: where a set has lost a
/// token, it and all later ones are encoded again. So a row that was dropped is encoded again when it comes back, and nothing
/// changes but the time.
#[derive(Debug)]
pub(super) struct KeptRows {
    rows: HashMap<RowId, KeptRow>,
    n_evaluations: u64,
    max_bytes: usize,
}

/// A token of a row: its position, its id, its set.
type Token = (usize, u32, usize);

#[derive(Clone, Debug)]
struct KeptRow {
    tokens: Vec<Token>,
    encoded: EncodedRow,
    last_used: u64,
}

impl Default for KeptRows {
    fn default() -> Self {
        Self { rows: HashMap::new(), n_evaluations: 0, max_bytes: DEFAULT_CACHE_BYTES }
    }
}

/// The tokens of a row that are not encoded yet, by parts.
#[derive(Default)]
struct Missing {
    tokens: Vec<u32>,
    positions: Vec<usize>,
    sets: Vec<usize>,
}

impl Missing {
    fn of(tokens: &[Token]) -> Self {
        Self {
            tokens: tokens.iter().map(|token| token.1).collect(),
            positions: tokens.iter().map(|token| token.0).collect(),
            sets: tokens.iter().map(|token| token.2).collect(),
        }
    }

    fn as_new(&self) -> NewTokens<'_> {
        NewTokens { tokens: &self.tokens, positions: &self.positions, sets: &self.sets }
    }
}

impl KeptRows {
    pub(super) fn set_max_bytes(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
    }

    /// Bytes on the device.
    pub(super) fn n_bytes(&self) -> usize {
        self.rows.values().map(|row| row.encoded.n_bytes()).sum()
    }

    /// The rows, encoded. What they have encoded before is used again; rows that begin with the same tokens are encoded
    /// together.
    ///
    /// # Errors
    /// [`InferError::Request`] for a row whose sets are not in order.
    pub(super) fn encode(
        &mut self,
        model: &PartitionTransformer,
        device: &Device,
        rows: &[&CleanRow],
    ) -> Result<Vec<EncodedRow>, InferError> {
        let all = rows.iter().map(|row| tokens_of(row)).collect::<Result<Vec<Vec<Token>>, _>>()?;
        // Whether a row has nothing encoded.
        let mut begins: Vec<bool> = Vec::with_capacity(rows.len());
        let mut encoded: Vec<EncodedRow> = Vec::with_capacity(rows.len());
        let mut missing: Vec<Missing> = Vec::with_capacity(rows.len());
        // The row that encodes for this one.
        let mut leaders: Vec<usize> = Vec::with_capacity(rows.len());
        // Taken out, so that nothing is kept if the device fails.
        for (index, (row, tokens)) in rows.iter().zip(&all).enumerate() {
            let kept = self.rows.remove(&row.id);
            let (kept, n_known) = kept.map_or((EncodedRow::new(row.class), 0), |kept| kept.keep(tokens, row));
            let is_same = |&other: &usize| begins[other] && rows[other].class == row.class && all[other] == *tokens;
            let leader = (n_known == 0).then(|| (0..index).find(is_same)).flatten();
            begins.push(n_known == 0);
            leaders.push(leader.unwrap_or(index));
            encoded.push(kept);
            missing.push(if leader.is_some() { Missing::default() } else { Missing::of(&tokens[n_known..]) });
        }
        let mut leading: Vec<(&mut EncodedRow, NewTokens<'_>)> = encoded
            .iter_mut()
            .zip(&missing)
            .enumerate()
            .filter(|(index, _)| leaders[*index] == *index)
            .map(|(_, (encoded, missing))| (encoded, missing.as_new()))
            .collect();
        let new: Vec<NewTokens<'_>> = leading.iter().map(|(_, new)| *new).collect();
        let mut leading: Vec<&mut EncodedRow> = leading.iter_mut().map(|(encoded, _)| &mut **encoded).collect();
        model.extend(&mut leading, &new, device);
        for (index, &leader) in leaders.iter().enumerate().filter(|(index, leader)| index != *leader) {
            encoded[index] = encoded[leader].clone();
        }
        Ok(encoded)
    }

    /// Keeps what was encoded of the rows, as much as there is room for; rows that were not used for longest
    /// are dropped first.
    pub(super) fn keep(&mut self, rows: &[&CleanRow], encoded: Vec<EncodedRow>) {
        self.n_evaluations += 1;
        for (row, encoded) in rows.iter().zip(encoded) {
            let tokens = tokens_of(row).expect("the tokens that were encoded");
            self.rows.insert(row.id, KeptRow { tokens, encoded, last_used: self.n_evaluations });
        }
        // Rows that are finished, most of all.
        self.rows.retain(|_, row| row.last_used + IDLE_EVALUATIONS > self.n_evaluations);
        let mut n_bytes = self.n_bytes();
        while n_bytes > self.max_bytes {
            let Some((&oldest, _)) = self.rows.iter().min_by_key(|(_, row)| row.last_used) else { break };
            n_bytes -= self.rows.remove(&oldest).map_or(0, |row| row.encoded.n_bytes());
        }
    }
}

impl KeptRow {
    // Keeps the sets that the row still has, up to the first that is another. Also returns how many of its tokens these are.
    fn keep(mut self, tokens: &[Token], row: &CleanRow) -> (EncodedRow, usize) {
        let mut n_known = self.tokens.iter().zip(tokens).take_while(|(kept, token)| kept == token).count();
        // A set is kept whole: it must end in both.
        let set_at = |tokens: &[Token], index: usize| tokens.get(index).map(|token| token.2);
        while n_known > 0 {
            let last = Some(tokens[n_known - 1].2);
            if set_at(&self.tokens, n_known) != last && set_at(tokens, n_known) != last {
                break;
            }
            n_known -= 1;
        }
        if n_known == 0 {
            return (EncodedRow::new(row.class), 0);
        }
        self.encoded.truncate(n_known);
        (self.encoded, n_known)
    }
}

fn tokens_of(row: &CleanRow) -> Result<Vec<Token>, InferError> {
    let tokens = row
        .positions
        .iter()
        .zip(&row.tokens)
        .enumerate()
        .map(|(index, (&position, &token))| (position, token, row.sets.as_ref().map_or(0, |sets| sets[index])));
    let tokens: Vec<Token> = tokens.collect();
    if !tokens.is_sorted_by_key(|token| token.2) {
        return Err(InferError::Request("the sets of a row's clean tokens must not fall".to_string()));
    }
    Ok(tokens)
}
