//! Whole training steps: `cargo bench -p pgm-train --bench steps`.
//!
//! `pgm-train bench` measures the same at any size.
#![allow(missing_docs)] // functions that criterion's macros write

use std::time::Duration;

use burn::tensor::Device;
use criterion::{Criterion, criterion_group, criterion_main};
use pgm_model::{BackboneConfig, ModelConfig, PartitionConfig, Projection, Queries};
use pgm_train::StepOptions;
use pgm_train::bench::{BenchPhase, measure};

// As in the commands.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn steps(c: &mut Criterion) {
    let device = Device::flex();
    let model = ModelConfig::Partition(PartitionConfig {
        backbone: BackboneConfig::new(1024, 128, 4, 128),
        encoder_blocks: 2,
        decoder_blocks: 2,
        queries: Queries::default(),
        projection: Projection::default(),
        sets: Default::default(),
    });
    let masked = model.masked_baseline();
    for (name, config) in [("partition", &model), ("masked", &masked)] {
        for (phase, word) in [(BenchPhase::Forward, "forward"), (BenchPhase::Train, "train")] {
            c.bench_function(&format!("{name}, {word}: H 128, 2 + 2 blocks, L 128, V 1024, batch 8"), |bencher| {
                bencher.iter_custom(|n| {
                    let seconds =
                        measure(config, 8, phase, StepOptions::default(), n as usize, &device).expect("it runs");
                    Duration::from_secs_f64(seconds.iter().sum())
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = steps
}
criterion_main!(benches);
