//! The network's part of the public samplers of images: the miscounted register, and dropout while sampling.

use std::cell::OnceCell;
use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Tensor};
use pgm_model::PartitionTransformer;

use crate::InferError;
use crate::sample::{CleanRow, NetworkQuirks};

/// Whether the network does something otherwise for one of the rows.
pub(super) fn has_quirks(rows: &[&CleanRow]) -> bool {
    rows.iter().any(|row| row.quirks != NetworkQuirks::default())
}

/// The network's hidden states `[B, K, H]` of rows at some positions.
pub(super) type Hidden = fn(&PartitionTransformer, &[&CleanRow], &[&[usize]], &Device) -> Tensor<3>;

/// A partition network with dropout, made on first use.
#[derive(Debug)]
pub(super) struct WithDropout {
    network: OnceCell<PartitionTransformer>,
    run: Hidden,
}

/// Dropout draws from the device's only generator.
static GENERATOR: Mutex<()> = Mutex::new(());

impl WithDropout {
    /// Not yet made; `run` runs it.
    pub(super) fn new(run: Hidden) -> Self {
        Self { network: OnceCell::new(), run }
    }

    /// Hidden states `[1, K, H]` of a row, with the dropout of a seed. So they do not depend on the rows beside it.
    fn hidden(
        &self,
        model: &PartitionTransformer,
        (row, positions): (&CleanRow, &[usize]),
        device: &Device,
        seed: u64,
    ) -> Result<Tensor<3>, InferError> {
        let model = self.network.get_or_init(|| model.clone().with_dropout());
        let _turn = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
        device.seed(seed);
        let hidden = (self.run)(model, &[row], &[positions], device);
        // A queue of a device may draw only now.
        device.sync().map_err(|error| InferError::Device(error.to_string()))?;
        Ok(hidden)
    }

    /// Hidden states `[B, K, H]` of some rows together, and which rows these are. Nothing sees the newest token of a row that
    /// hides it: the public samplers count a row's keys without the register, and so drop the last.
    pub(super) fn parts(
        &self,
        model: &PartitionTransformer,
        rows: &[&CleanRow],
        positions: &[&[usize]],
        device: &Device,
    ) -> Result<Vec<(Tensor<3>, Vec<usize>)>, InferError> {
        let seen = |row: &&CleanRow| {
            let mut row = (*row).clone();
            if row.quirks.hides_newest {
                row.positions.pop();
                row.tokens.pop();
                if let Some(sets) = &mut row.sets {
                    sets.pop();
                }
            }
            row
        };
        let seen: Vec<CleanRow> = rows.iter().map(seen).collect();
        let (mut parts, mut plain) = (Vec::new(), Vec::new());
        for (index, row) in seen.iter().enumerate() {
            match row.quirks.dropout {
                Some(seed) => {
                    let hidden = self.hidden(model, (row, positions[index]), device, seed)?;
                    parts.push((hidden, vec![index]));
                }
                None => plain.push(index),
            }
        }
        if !plain.is_empty() {
            let (some, at): (Vec<&CleanRow>, Vec<&[usize]>) =
                plain.iter().map(|&index| (&seen[index], positions[index])).unzip();
            parts.push(((self.run)(model, &some, &at, device), plain));
        }
        Ok(parts)
    }
}
