//! The clean tokens of one row, encoded set by set and kept.
// C clean tokens, K positions to decode, N new tokens, H hidden

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::grown::Grown;
use crate::attention_plan::{AttentionPlan, KeySets, Registers};
use crate::config::{PartitionConfig, Queries};
use crate::rotary::{AngleTables, RotaryAngles};
use crate::sequence::{Class, Positions};
use crate::visibility::{MAX_SETS, Visibility, set_labels};

/// Keys and values of every layer for the clean tokens of one row.
///
/// [`extend`](crate::PartitionTransformer::extend) encodes new tokens against those that are here already, which stay as
/// they are. Tokens come in sets: a token sees its own set and earlier ones. So a row that is extended set by set equals
/// one that is extended once by all its sets.
///
/// A clone shares the memory until one of the two is extended.
#[derive(Clone, Debug, Default)]
pub struct EncodedRow {
    pub(super) class: Class,
    // Of the registers (if they are encoded), then of the tokens.
    pub(super) positions: Vec<usize>,
    pub(super) places: Vec<usize>,
    pub(super) n_registers: usize,
    /// Rotary angles, `[1, C, d]`.
    pub(super) angles: Grown,
    /// Keys, then values, of each encoder block.
    pub(super) encoder: Vec<Grown>,
    /// Encoder output; only where the GroupSwap reads an aggregate of it.
    pub(super) output: Grown,
    /// Keys, then values, of the GroupSwap.
    pub(super) swap: Grown,
    /// Keys, then values, of each decoder block.
    pub(super) decoder: Vec<Grown>,
}

/// New clean tokens of a row.
#[derive(Clone, Copy, Debug)]
pub struct NewTokens<'a> {
    /// Token ids.
    pub tokens: &'a [u32],
    /// Their positions in the sequence.
    pub positions: &'a [usize],
    /// The set that each belongs to, ascending, later than all sets that the row has, below [`MAX_SETS`]. Registers belong to
    /// the row's first set; if they were encoded before any token, that is set 0.
    pub sets: &'a [usize],
}

impl EncodedRow {
    /// A row without tokens, of this class if the network is class-conditional.
    pub fn new(class: Class) -> Self {
        Self { class, ..Self::default() }
    }

    /// The number of clean tokens.
    pub fn n_tokens(&self) -> usize {
        self.positions.len() - self.n_registers
    }

    /// Keeps the first `n_tokens` tokens, in the order in which they were encoded. Whoever cuts a set in two leaves tokens that
    /// have seen those that are gone.
    pub fn truncate(&mut self, n_tokens: usize) {
        let len = self.n_registers + n_tokens;
        self.positions.truncate(len);
        self.places.truncate(len);
        let fixed = [&mut self.angles, &mut self.output, &mut self.swap];
        self.encoder.iter_mut().chain(&mut self.decoder).chain(fixed).for_each(|grown| grown.truncate(len));
    }

    /// Bytes that a token takes: keys and values of every encoder block, the GroupSwap and every decoder block, and the encoder
    /// output where an aggregate of it is read. Memory is taken for half as many tokens again, rounded up to 32.
    pub fn bytes_per_token(config: &PartitionConfig) -> usize {
        let output = matches!(config.queries, Queries::LearnFreqsMean | Queries::LearnFreqsLogSumExp);
        let vectors = 2 * (config.encoder_blocks + 1 + config.decoder_blocks) + usize::from(output);
        vectors * config.backbone.hidden_size * size_of::<f32>()
    }

    /// Bytes of memory on the device, rotary angles left out.
    pub fn n_bytes(&self) -> usize {
        let fixed = [&self.output, &self.swap];
        self.encoder.iter().chain(&self.decoder).chain(fixed).map(Grown::n_bytes).sum()
    }

    /// Notes new tokens, behind the registers if these are new, and returns how many vectors are new and what they see.
    pub(super) fn begin(
        &mut self,
        new: &NewTokens<'_>,
        registers: Registers,
        tables: &AngleTables,
        device: &Device,
    ) -> Extension {
        let n_known = self.positions.len();
        if self.n_registers == 0 {
            let front = registers.of_clean();
            self.n_registers = front.len();
            self.places.extend(front.clone().map(|_| new.sets.first().copied().unwrap_or(0)));
            self.positions.extend(front);
        }
        let n_front = self.positions.len() - n_known;
        self.positions.extend(new.positions.iter().map(|position| position + registers.0));
        self.places.extend(new.sets);
        let added = &self.places[n_known..];
        assert!(self.places.is_sorted() && self.places.last().is_none_or(|&last| last < MAX_SETS), "sets in order");
        assert!(n_known == 0 || added.first().is_none_or(|&first| first > self.places[n_known - 1]), "a later set");
        let (n_new, is_one_set) = (added.len(), added.first() == added.last());
        let sees = (n_new > 0).then(|| {
            let queries = angles(&self.positions[n_known..], tables, device);
            self.angles.append(queries.table());
            let labels = |places: &[usize]| {
                let places: Vec<i32> = places.iter().map(|&place| place as i32).collect();
                let n = places.len();
                let places = Tensor::<2, Int>::from_data(TensorData::new(places, [1, n]), device);
                set_labels(Tensor::zeros([1, n], device), places)
            };
            let of_sets = || Visibility::across_sets(labels(&self.places[n_known..]), labels(&self.places));
            Sees { queries, keys: self.key_angles(tables, device), visibility: (!is_one_set).then(of_sets) }
        });
        Extension { n_front, n_new, sees }
    }

    // Angles of all tokens; without tokens they are not read.
    fn key_angles(&self, tables: &AngleTables, device: &Device) -> RotaryAngles {
        self.angles.get().map_or_else(|| angles(&[0], tables, device), RotaryAngles::of)
    }

    /// The plan of queries at `positions`, which see every token of the row.
    pub(super) fn plan(
        &self,
        positions: &[usize],
        registers: Registers,
        tables: &AngleTables,
        device: &Device,
    ) -> AttentionPlan {
        let queries: Vec<usize> = positions.iter().map(|position| position + registers.0).collect();
        let query_positions = Positions::new(&[queries], device);
        AttentionPlan {
            keys: self.key_angles(tables, device),
            queries: RotaryAngles::new(tables, &query_positions),
            query_positions,
            across: None,
            key_sets: KeySets::Labels(1),
        }
    }
}

/// The new vectors of a row.
pub(super) struct Extension {
    /// New registers, which stand before the new tokens.
    pub(super) n_front: usize,
    /// New registers and tokens.
    pub(super) n_new: usize,
    /// What they see; `None` where nothing is new.
    pub(super) sees: Option<Sees>,
}

/// What the new vectors of a row see.
pub(super) struct Sees {
    /// Their angles.
    pub(super) queries: RotaryAngles,
    /// The angles of all vectors of the row.
    pub(super) keys: RotaryAngles,
    /// Which of these they see; `None` when they see all.
    pub(super) visibility: Option<Visibility>,
}

fn angles(positions: &[usize], tables: &AngleTables, device: &Device) -> RotaryAngles {
    RotaryAngles::new(tables, &Positions::new(&[positions.to_vec()], device))
}
