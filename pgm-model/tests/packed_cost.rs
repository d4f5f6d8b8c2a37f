//! The cost of packed rows, in bytes that a forward pass allocates. Alone in its program, where nothing else allocates.
#![cfg(feature = "flex")]

use std::alloc::System;

use burn::tensor::Device;
use pgm_model::{BackboneConfig, ModelConfig, Network, PackedRows, PartitionConfig, Projection, Queries};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const N_TOKENS: usize = 7;

// Bytes that decoding of `n_rows` rows allocates.
fn allocated(queries: Queries, n_rows: usize) -> usize {
    let device = Device::flex();
    let backbone = BackboneConfig { cond_dim: 5, ..BackboneConfig::new(19, 16, 2, 2 * N_TOKENS) };
    let (encoder_blocks, decoder_blocks, projection) = (1, 1, Projection::Linear);
    let config =
        PartitionConfig { backbone, encoder_blocks, decoder_blocks, queries, projection, sets: Default::default() };
    let Network::Partition(model) = Network::new(&ModelConfig::Partition(config), &device).with_noise(0.4, 3) else {
        unreachable!()
    };
    let tokens = vec![&[1, 2, 3, 4, 5, 6, 7][..]; n_rows];
    let (clean, open) = (vec![&[0, 2, 4, 6, 8, 10, 12][..]; n_rows], vec![&[1, 3, 5][..]; n_rows]);
    let rows = PackedRows::new(&tokens, &clean, &open, &device);
    let run = || drop(model.forward_packed(&rows).into_data());
    run(); // the first call also allocates permanent buffers
    let before = ALLOCATOR.stats().bytes_allocated;
    run();
    ALLOCATOR.stats().bytes_allocated - before
}

#[test]
fn the_cost_of_packed_rows_is_linear_in_their_number_for_every_kind_of_query() {
    for queries in [Queries::Learn, Queries::LearnFreqs, Queries::LearnFreqsMean, Queries::LearnFreqsLogSumExp] {
        let [few, many] = [50, 200].map(|n_rows| allocated(queries, n_rows));
        let growth = many as f64 / few as f64;
        assert!(growth < 4.4, "{queries:?}: four times the rows allocate {growth:.1} times the bytes ({few}, {many})");
    }
}
