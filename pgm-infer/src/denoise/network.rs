//! Any network: its hidden states and logits at chosen positions, and its denoiser.
//!
//! Shapes: B rows, K positions, H hidden, V vocabulary.

use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor};
use pgm_model::{Class, ModelConfig, Network, Positions};

use super::causal::CausalDenoiser;
use super::mask_git::MaskGitDenoiser;
use super::masked::{HeadPositions, MaskedDenoiser};
use super::partition::{FullDenoiser, PartitionDenoiser, hidden_from_clean};
use super::rows::{dense, to_vecs};
use crate::InferError;
use crate::sample::{CleanRow, Denoiser, SampleOutput, SampleRequest, SampleSettings, StepView, sample};

/// Hidden states of a network, `[B, K, H]`, for rows of equal length; rows with fewer positions than
/// the longest are padded. The gradient flows if `device` records one.
///
/// [`Network::logits`] makes logits of them; [`logit_chunks`](crate::denoise::logit_chunks) does so for some hundred
/// positions at a time.
///
/// # Panics
/// For an autoregressive network, which sees only the tokens before a position.
pub fn hidden_at(
    network: &Network,
    mask_index: usize,
    rows: &[&CleanRow],
    positions: &[&[usize]],
    device: &Device,
) -> Tensor<3> {
    match network {
        Network::Partition(model) => {
            let hidden = hidden_from_clean(model, rows, positions, device);
            let n_positions = positions.iter().map(|row| row.len()).max().unwrap_or(0);
            if hidden.dims()[1] == n_positions { hidden } else { hidden.narrow(1, 0, n_positions) }
        }
        Network::Masked(model) => {
            model.hidden_at(dense(rows, mask_index as u32, device), &Positions::new(&to_vecs(positions), device))
        }
        Network::MaskGit(model) => {
            let codes = dense(rows, mask_index as u32, device);
            let classes: Vec<Class> = rows.iter().map(|row| row.class).collect();
            model.hidden_at(codes, Some(&classes), &Positions::new(&to_vecs(positions), device))
        }
        Network::Autoregressive(_) => panic!("an autoregressive network sees only the tokens before a position"),
    }
}

/// As [`hidden_at`], with the head: `[B, K, V]`.
///
/// # Panics
/// As [`hidden_at`].
pub fn logits_at(
    network: &Network,
    mask_index: usize,
    rows: &[&CleanRow],
    positions: &[&[usize]],
    device: &Device,
) -> Tensor<3> {
    network.logits(hidden_at(network, mask_index, rows, positions, device))
}

/// Which path of a partition model is sampled; the baselines have only one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SamplingPath {
    /// Only clean tokens are processed.
    #[default]
    Clean,
    /// The training path over the full length.
    Full,
}

/// A network with its configuration and its device, as sampling needs them.
#[derive(Clone, Copy, Debug)]
pub struct NetworkHandle<'a> {
    /// The network.
    pub network: &'a Network,
    /// Its configuration.
    pub config: &'a ModelConfig,
    /// Its device.
    pub device: &'a Device,
}

impl<'a> NetworkHandle<'a> {
    /// The network's denoiser.
    pub fn denoiser(&self, path: SamplingPath) -> Box<dyn Denoiser + 'a> {
        let Self { network, config, device } = *self;
        let mask_index = config.backbone().mask_index;
        match (network, path) {
            (Network::Autoregressive(model), _) => Box::new(CausalDenoiser::new(model, device, mask_index)),
            (Network::Masked(model), _) => {
                Box::new(MaskedDenoiser::new(model, device, mask_index, HeadPositions::Decoded))
            }
            (Network::MaskGit(model), _) => Box::new(MaskGitDenoiser::new(model, device, config)),
            (Network::Partition(model), SamplingPath::Clean) => Box::new(PartitionDenoiser::of(model, device, config)),
            (Network::Partition(model), SamplingPath::Full) => Box::new(FullDenoiser::of(model, device, config)),
        }
    }

    /// Samples requests together; see [`sample`].
    ///
    /// # Errors
    /// As [`sample`].
    pub fn generate(
        &self,
        requests: &[SampleRequest],
        settings: &SampleSettings,
        path: SamplingPath,
        observe: &mut dyn FnMut(&StepView) -> ControlFlow<()>,
    ) -> Result<SampleOutput, InferError> {
        sample(self.denoiser(path).as_ref(), requests, settings, observe)
    }
}
