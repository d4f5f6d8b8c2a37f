//! Who gives the logits: the partition model by either way in, or the masked baseline.

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_model::ops::is_flex;
use pgm_model::{CleanTokens, MaskedTransformer, Network, PackedRows, Partition, PartitionTransformer, Positions};

use crate::logits::in_host_memory;
use crate::sampler::{SampleRequest, SampleRow, SampleSettings};
use crate::{InferError, Logits};

/// What is decoded of one row so far.
#[derive(Clone, Debug, Default)]
pub struct CleanRow {
    /// Tokens of the row in all, open ones included.
    pub length: usize,
    /// Positions that are decoded or were given, in the order in which they came.
    pub positions: Vec<usize>,
    /// Their tokens.
    pub tokens: Vec<u32>,
}

/// Predicts the tokens at some positions from what is decoded so far.
pub trait Denoiser {
    /// Logits at `positions[row]` of each row; rows may ask for different numbers of positions.
    ///
    /// # Errors
    /// [`InferError::Device`] when the device fails, [`InferError::Request`] for what this cannot predict.
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits, InferError>;

    /// The class that is never drawn.
    fn mask_index(&self) -> usize;

    /// A row about to be sampled from this.
    ///
    /// # Errors
    /// [`InferError::Setting`] and [`InferError::Request`] for what cannot be done.
    fn row(&self, request: &SampleRequest, settings: &SampleSettings) -> Result<SampleRow, InferError> {
        SampleRow::new(request, settings)
    }
}

fn to_vecs(positions: &[&[usize]]) -> Vec<Vec<usize>> {
    positions.iter().map(|row| row.to_vec()).collect()
}

/// Runs rows of equal length together: a network that sees whole rows must not see another row's length.
fn by_length(
    rows: &[&CleanRow],
    positions: &[&[usize]],
    run: impl Fn(&[&CleanRow], &[&[usize]]) -> Tensor<3>,
) -> Result<Logits, InferError> {
    let mut lengths: Vec<usize> = rows.iter().map(|row| row.length).collect();
    lengths.sort_unstable();
    lengths.dedup();
    if lengths.len() == 1 {
        return Logits::new(run(rows, positions));
    }
    let n_positions = positions.iter().map(|row| row.len()).max().unwrap_or(0);
    let mut parts = Vec::new();
    let mut place = vec![0; rows.len()];
    let mut n_done = 0;
    for length in lengths {
        let members: Vec<usize> = (0..rows.len()).filter(|&row| rows[row].length == length).collect();
        let some_rows: Vec<&CleanRow> = members.iter().map(|&row| rows[row]).collect();
        let some_positions: Vec<&[usize]> = members.iter().map(|&row| positions[row]).collect();
        let some = run(&some_rows, &some_positions);
        let [n_some, n_some_positions, n_classes] = some.dims();
        parts.push(match n_positions - n_some_positions {
            0 => some,
            missing => {
                let filler = Tensor::zeros([n_some, missing, n_classes], (&some.device(), some.dtype()));
                Tensor::cat(vec![some, filler], 1)
            }
        });
        members.iter().enumerate().for_each(|(index, &row)| place[row] = (n_done + index) as i32);
        n_done += members.len();
    }
    let all = Tensor::cat(parts, 0);
    let place = Tensor::<1, Int>::from_data(TensorData::new(place, [rows.len()]), &all.device());
    Logits::new(all.select(0, place))
}

// A [B, L] tensor of tokens, `filler` where nothing is decoded. Rows have equal length.
fn dense(rows: &[&CleanRow], filler: u32, device: &Device) -> Tensor<2, Int> {
    let length = rows[0].length;
    let mut values = vec![filler as i32; rows.len() * length];
    for (index, row) in rows.iter().enumerate() {
        for (&position, &token) in row.positions.iter().zip(&row.tokens) {
            values[index * length + position] = token as i32;
        }
    }
    Tensor::from_data(TensorData::new(values, [rows.len(), length]), device)
}

/// Logits of a partition or masked network on the device, `[B, K, V]`, for rows of equal length; rows that ask for fewer
/// positions than the longest are padded. The gradient flows where `device` records one.
///
/// # Panics
/// For an autoregressive network, which predicts from what comes before only: a programmer's error.
pub fn logits_at(
    network: &Network,
    mask_index: usize,
    rows: &[&CleanRow],
    positions: &[&[usize]],
    device: &Device,
) -> Tensor<3> {
    match network {
        Network::Partition(model) => from_clean(model, rows, positions, device),
        Network::Masked(model) => {
            model.forward_at(dense(rows, mask_index as u32, device), &Positions::new(&to_vecs(positions), device))
        }
        Network::Autoregressive(_) => panic!("an autoregressive network predicts only from what comes before"),
    }
}

/// As [`logits_at`], before the head: `[B, K, H]`.
///
/// # Panics
/// As [`logits_at`].
pub fn hidden_at(
    network: &Network,
    mask_index: usize,
    rows: &[&CleanRow],
    positions: &[&[usize]],
    device: &Device,
) -> Tensor<3> {
    match network {
        Network::Partition(model) => {
            let (clean, queries) = clean_and_queries(rows, positions, device);
            let n_positions = positions.iter().map(|row| row.len()).max().unwrap_or(0);
            let hidden = model.decode_hidden(&model.encode(&clean), &queries);
            if hidden.dims()[1] == n_positions { hidden } else { hidden.narrow(1, 0, n_positions) }
        }
        Network::Masked(model) => {
            model.hidden_at(dense(rows, mask_index as u32, device), &Positions::new(&to_vecs(positions), device))
        }
        Network::Autoregressive(_) => panic!("an autoregressive network predicts only from what comes before"),
    }
}

fn from_clean(model: &PartitionTransformer, rows: &[&CleanRow], positions: &[&[usize]], device: &Device) -> Tensor<3> {
    let (clean, queries) = clean_and_queries(rows, positions, device);
    let n_positions = positions.iter().map(|row| row.len()).max().unwrap_or(0);
    let logits = model.forward_clean(&clean, &queries);
    if logits.dims()[1] == n_positions { logits } else { logits.narrow(1, 0, n_positions) }
}

// Clean tokens and positions, padded to a common width.
fn clean_and_queries(rows: &[&CleanRow], positions: &[&[usize]], device: &Device) -> (CleanTokens, Positions) {
    let tokens: Vec<Vec<u32>> = rows.iter().map(|row| row.tokens.clone()).collect();
    let clean: Vec<Vec<usize>> = rows.iter().map(|row| row.positions.clone()).collect();
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
    let n_clean = width_for(longest(&mut clean.iter().map(Vec::len)), device);
    let n_positions = longest(&mut positions.iter().map(|row| row.len()));
    let queries = Positions::padded(&to_vecs(positions), width_for(n_positions, device), device);
    (CleanTokens::padded(&tokens, &clean, n_clean, device), queries)
}

// How wide to make a row of `n` tokens. On the CPU just as wide; elsewhere kernels are compiled and tuned for each shape,
// so there are few: powers of two up to 64, then multiples of 64.
fn width_for(n: usize, device: &Device) -> usize {
    if in_host_memory(device) { n } else { rounded(n) }
}

fn rounded(n: usize) -> usize {
    if n <= 64 { n.next_power_of_two() } else { n.next_multiple_of(64) }
}

/// The partition model's sampling path: only clean tokens are processed, and rows that differ in their number are joined
/// where that is faster.
#[derive(Debug)]
pub struct PartitionDenoiser<'a> {
    /// The network.
    pub model: &'a PartitionTransformer,
    /// Where it lives.
    pub device: &'a Device,
    /// The class that is never drawn.
    pub mask_index: usize,
}

impl Denoiser for PartitionDenoiser<'_> {
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits, InferError> {
        let counts = || positions.iter().map(|row| row.len());
        let shapes = || rows.iter().map(|row| row.positions.len()).zip(counts());
        // Flex's attention takes the tokens of a row together where several are joined; then none is padded.
        if is_flex(self.device) && counts().any(|n| n > 0) && shapes().any(|shape| Some(shape) != shapes().next()) {
            let tokens: Vec<&[u32]> = rows.iter().map(|row| row.tokens.as_slice()).collect();
            let clean: Vec<&[usize]> = rows.iter().map(|row| row.positions.as_slice()).collect();
            let joined = PackedRows::new(&tokens, &clean, positions, self.device);
            return Logits::joined(self.model.forward_packed(&joined), counts());
        }
        Logits::new(from_clean(self.model, rows, positions, self.device))
    }

    fn mask_index(&self) -> usize {
        self.mask_index
    }
}

/// The partition model's training path over the full length: slow, the yardstick of the other one.
#[derive(Debug)]
pub struct FullDenoiser<'a> {
    /// The network.
    pub model: &'a PartitionTransformer,
    /// Where it lives.
    pub device: &'a Device,
    /// The class that is never drawn.
    pub mask_index: usize,
}

impl FullDenoiser<'_> {
    fn equal_rows(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Tensor<3> {
        let tokens = dense(rows, 0, self.device);
        let length = tokens.dims()[1];
        let groups: Vec<Vec<bool>> = rows
            .iter()
            .map(|row| {
                let mut open = vec![true; length];
                row.positions.iter().for_each(|&position| open[position] = false);
                open
            })
            .collect();
        let all = self.model.forward_partition(tokens, &Partition::from_rows(&groups, self.device));
        let n_classes = all.dims()[2];
        let n_positions = positions.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut index = Vec::with_capacity(rows.len() * n_positions);
        for (row, positions) in positions.iter().enumerate() {
            index.extend(positions.iter().map(|position| (row * length + position) as i32));
            index.resize((row + 1) * n_positions, 0);
        }
        let index = Tensor::from_data(TensorData::new(index, [rows.len() * n_positions]), self.device);
        let chosen = all.reshape([rows.len() * length, n_classes]).select(0, index);
        chosen.reshape([rows.len(), n_positions, n_classes])
    }
}

impl Denoiser for FullDenoiser<'_> {
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits, InferError> {
        by_length(rows, positions, |rows, positions| self.equal_rows(rows, positions))
    }

    fn mask_index(&self) -> usize {
        self.mask_index
    }
}

/// Where the masked baseline runs its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HeadPositions {
    /// At the positions that this step decodes: the same law at less cost.
    #[default]
    Decoded,
    /// At every position that is still masked, as MDLM's sampler does, which draws everywhere and keeps what moves.
    Masked,
}

/// The masked baseline: the network over the full length.
#[derive(Debug)]
pub struct MaskedDenoiser<'a> {
    /// The network.
    pub model: &'a MaskedTransformer,
    /// Where it lives.
    pub device: &'a Device,
    /// The mask token, also the class that is never drawn.
    pub mask_index: usize,
    /// Where the head runs.
    pub head_at: HeadPositions,
}

impl MaskedDenoiser<'_> {
    fn equal_rows(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Tensor<3> {
        let tokens = dense(rows, self.mask_index as u32, self.device);
        let mut wanted = to_vecs(positions);
        let n_positions = wanted.iter().map(Vec::len).max().unwrap_or(0);
        if self.head_at == HeadPositions::Masked {
            for (row, wanted) in rows.iter().zip(&mut wanted) {
                let mut is_open = vec![true; row.length];
                row.positions.iter().chain(wanted.iter()).for_each(|&position| is_open[position] = false);
                // Rows with fewer positions to decode are filled from the rest, which is computed anyway.
                wanted.extend((0..row.length).filter(|&position| is_open[position]));
            }
        }
        let logits = self.model.forward_at(tokens, &Positions::new(&wanted, self.device));
        logits.narrow(1, 0, n_positions)
    }
}

impl Denoiser for MaskedDenoiser<'_> {
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits, InferError> {
        by_length(rows, positions, |rows, positions| self.equal_rows(rows, positions))
    }

    fn mask_index(&self) -> usize {
        self.mask_index
    }
}
