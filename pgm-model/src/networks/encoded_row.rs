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
    /// The set that each belongs to, ascending, later than all sets that the row has, below [`MAX_SETS`].
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

    /// Drops the tokens whose index `keep` refuses. What the others have seen of them stays in their encodings.
    pub fn retain(&mut self, keep: impl Fn(usize) -> bool, device: &Device) {
        let n_registers = self.n_registers;
        let kept = (0..self.positions.len()).filter(|&index| index < n_registers || keep(index - n_registers));
        let kept: Vec<usize> = kept.collect();
        if kept.len() == self.positions.len() {
            return;
        }
        let at_kept = |values: &[usize]| kept.iter().map(|&index| values[index]).collect::<Vec<_>>();
        (self.positions, self.places) = (at_kept(&self.positions), at_kept(&self.places));
        let indices: Vec<i32> = kept.iter().map(|&index| index as i32).collect();
        let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [kept.len()]), device);
        for grown in self.all_mut() {
            grown.select(&indices);
        }
    }

    /// Bytes that a token takes: keys and values of every encoder block, the GroupSwap and every decoder block, and the encoder
    /// output where an aggregate of it is read. Room for more tokens takes up to half as much again.
    pub fn bytes_per_token(config: &PartitionConfig) -> usize {
        let output = matches!(config.queries, Queries::LearnFreqsMean | Queries::LearnFreqsLogSumExp);
        let vectors = 2 * (config.encoder_blocks + 1 + config.decoder_blocks) + usize::from(output);
        vectors * config.backbone.hidden_size * size_of::<f32>()
    }

    /// Bytes of memory on the device.
    pub fn n_bytes(&self) -> usize {
        let fixed = [&self.output, &self.swap];
        self.encoder.iter().chain(&self.decoder).chain(fixed).map(Grown::n_bytes).sum()
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Grown> {
        self.encoder.iter_mut().chain(&mut self.decoder).chain([&mut self.output, &mut self.swap])
    }

    /// Notes new tokens, behind the registers if these are new, and returns how many vectors are new and what they see.
    pub(super) fn begin(&mut self, new: &NewTokens<'_>, registers: Registers, tables: &AngleTables) -> Extension {
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
        Extension {
            n_front,
            n_new: added.len(),
            is_one_set: added.first() == added.last(),
            positions: self.positions.clone(),
            places: self.places.clone(),
            tables: tables.clone(),
        }
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
            keys: angles(&self.positions, tables, device),
            queries: RotaryAngles::new(tables, &query_positions),
            query_positions,
            across: None,
            key_sets: KeySets::Labels(1),
        }
    }
}

/// What the new tokens of a row see.
pub(super) struct Extension {
    /// New registers, which stand before the new tokens.
    pub(super) n_front: usize,
    /// New registers and tokens.
    pub(super) n_new: usize,
    is_one_set: bool,
    positions: Vec<usize>,
    places: Vec<usize>,
    tables: AngleTables,
}

impl Extension {
    /// Angles of the new vectors and of all.
    pub(super) fn angles(&self, device: &Device) -> [RotaryAngles; 2] {
        let first = self.positions.len() - self.n_new;
        [&self.positions[first..], &self.positions[..]].map(|positions| angles(positions, &self.tables, device))
    }

    /// Which vectors the new ones see; `None` when they see all.
    pub(super) fn visibility(&self, device: &Device) -> Option<Visibility> {
        let labels = |places: &[usize]| {
            let places: Vec<i32> = places.iter().map(|&place| place as i32).collect();
            let n = places.len();
            let places = Tensor::<2, Int>::from_data(TensorData::new(places, [1, n]), device);
            set_labels(Tensor::zeros([1, n], device), places)
        };
        let first = self.places.len() - self.n_new;
        (!self.is_one_set).then(|| Visibility::across_sets(labels(&self.places[first..]), labels(&self.places)))
    }
}

fn angles(positions: &[usize], tables: &AngleTables, device: &Device) -> RotaryAngles {
    // An empty tensor is not a valid input; without keys the angles are not read.
    let positions = if positions.is_empty() { vec![0] } else { positions.to_vec() };
    RotaryAngles::new(tables, &Positions::new(&[positions], device))
}
