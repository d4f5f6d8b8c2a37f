//! The memory that a training step keeps for its backward pass, in numbers per token, as docs/performance.md counts it.
//! It is the only test of its program, so that no other test allocates.
#![cfg(feature = "flex")]

use std::alloc::System;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, GradientCheckpointingStrategy, Int, Tensor, TensorData};
use pgm_model::{
    BackboneConfig, LossTarget, MaskedConfig, ModelConfig, Network, Partition, PartitionConfig, Projection, Queries,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const HIDDEN: usize = 128;
const SHAPE: [usize; 2] = [4, 128];

fn held() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

struct Checkpointed;

impl ModuleMapper for Checkpointed {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|weight| weight.with_gradient_checkpointing_strategy(GradientCheckpointingStrategy::Balanced))
    }
}

// Memory that the loss keeps, in vectors of the hidden width per token.
fn kept(config: &ModelConfig, checkpointing: bool) -> f64 {
    let plain = Device::flex();
    let device = plain.clone().autodiff();
    let device = if checkpointing { device.gradient_checkpointing() } else { device };
    let mut network = Network::new(config, &plain).train().fork(&device);
    if checkpointing {
        network = network.map(&mut Checkpointed);
    }
    let n = SHAPE[0] * SHAPE[1];
    let ints = |of: fn(i32) -> i32| {
        Tensor::<2, Int>::from_data(TensorData::new((0..n as i32).map(of).collect(), SHAPE), &device)
    };
    let (tokens, groups) = (ints(|i| i * 7 % 60), ints(|i| (i * 7 % 3) & 1));
    let target = LossTarget { targets: tokens.clone(), weights: Tensor::ones(SHAPE, &device), mask_index: 63 };
    let loss = || match &network {
        Network::Partition(model) => model.loss_partition(tokens.clone(), &Partition::new(groups.clone()), &target),
        Network::Masked(model) => model.loss(tokens.clone(), &target),
        Network::Autoregressive(_) | Network::MaskGit(_) => unreachable!("no such network in this test"),
    };
    drop(loss()); // the first call also allocates permanent buffers
    let before = held();
    let loss = loss();
    let bytes = held() - before;
    drop(loss);
    bytes as f64 / (n * HIDDEN * size_of::<f32>()) as f64
}

#[test]
fn a_step_keeps_what_the_count_says() {
    let backbone = BackboneConfig { cond_dim: 8, ..BackboneConfig::new(64, HIDDEN, 4, SHAPE[1]) };
    let partition = |encoder_blocks, decoder_blocks| {
        let (queries, projection) = (Queries::LearnFreqs, Projection::Linear);
        let backbone = backbone.clone();
        ModelConfig::Partition(PartitionConfig {
            backbone,
            encoder_blocks,
            decoder_blocks,
            queries,
            projection,
            sets: Default::default(),
        })
    };
    let masked = |n_blocks| ModelConfig::Masked(MaskedConfig { backbone: backbone.clone(), n_blocks });
    let close = |found: f64, count: f64| (found - count).abs() < 0.3;
    // A decoder's norms are recomputed without checkpointing, too.
    for (checkpointing, of_encoder, of_decoder, of_swap) in [(false, 18.0, 16.0, 4.0), (true, 12.0, 9.0, 2.0)] {
        let [least, more_encoder, more_decoder] =
            [(1, 1), (2, 1), (1, 2)].map(|(encoder, decoder)| kept(&partition(encoder, decoder), checkpointing));
        let (encoder, decoder) = (more_encoder - least, more_decoder - least);
        assert!(close(encoder, of_encoder), "an encoder block keeps {encoder}");
        assert!(close(decoder, of_decoder), "a decoder block keeps {decoder}");
        // The encoder's output, keys and values, the attention's output, and the steps to one row's queries.
        let swap = least - kept(&masked(2), checkpointing) + encoder - decoder;
        assert!(close(swap, of_swap + 3.0 / SHAPE[0] as f64), "a GroupSwap with what is around it keeps {swap}");
        let [whole, masked] = [&partition(3, 3), &masked(6)].map(|config| kept(config, checkpointing));
        assert!(whole < masked, "a partition model keeps {whole}, a masked one {masked}");
    }
}
