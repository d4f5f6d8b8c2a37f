//! A dropped engine has freed its memory. The only test of its program, so that no other test allocates.
#![cfg(feature = "flex")]

use std::alloc::System;
use std::ops::ControlFlow;

use pgm_infer::engine::{Engine, EngineOptions, Task, TaskInput};
use pgm_model::{BackboneConfig, ModelConfig};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

mod common;
use common::{VOCAB, model, partition_config};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn held() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

#[test]
fn a_dropped_engine_has_given_its_memory_back() {
    let backbone = BackboneConfig { cond_dim: 8, ..BackboneConfig::new(VOCAB, 128, 2, 24) };
    let config = ModelConfig::Partition(pgm_model::PartitionConfig { backbone, ..partition_config() });
    // The first round also allocates what the process keeps: thread pools and tables.
    let rounds: Vec<[usize; 3]> = (0..6)
        .map(|_| {
            let before = held();
            let engine = Engine::new(model(&config), &EngineOptions::default()).unwrap();
            let task = Task { n: 5, ..Task::new(TaskInput::Prompt("w1 w2".into())) };
            // More samples than the batch has places, without end.
            let mut endless = Task { n: 20, ..task.clone() };
            endless.settings.steps = 1 << 20;
            assert_eq!(engine.generate(task, &mut |_| ControlFlow::Continue(())).unwrap().len(), 5);
            let mut unfinished = engine.events(endless).unwrap();
            assert!(unfinished.next().is_some());
            let open = held();
            drop(engine);
            drop(unfinished);
            [before, open, held()]
        })
        .collect();
    for [before, open, after] in &rounds[1..] {
        let (weights, left) = (open - before, after.saturating_sub(*before));
        assert!(weights > 1_000_000 && left < 1000, "before, open, after: {rounds:?}");
    }
}
