//! Sampling on a GPU device, where logits stay on the device and shapes are rounded up, against Flex.
//!
//! Run with `cargo test -p pgm-infer --features software-gpu --test gpu`, on any Vulkan or Metal driver, software ones
//! included, or with `--features cuda`.
#![cfg(any(feature = "software-gpu", feature = "cuda"))]

use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::{DType, Device};
use pgm_infer::denoise::NetworkHandle;
use pgm_infer::engine::{Engine, EngineOptions, Task, TaskInput};
use pgm_infer::{DrawSettings, SampleRequest, SampleSettings, SampledRow, SamplingPath, StepView};
use pgm_model::{
    AutoregressiveConfig, BackboneConfig, MaskedConfig, ModelConfig, Network, PartitionConfig, Projection, Queries,
    WeightDtype,
};

const VOCAB: usize = 600;

fn configs() -> [ModelConfig; 3] {
    let backbone = BackboneConfig { cond_dim: 8, ..BackboneConfig::new(VOCAB, 32, 2, 20) };
    [
        ModelConfig::Partition(PartitionConfig {
            backbone: backbone.clone(),
            encoder_blocks: 1,
            decoder_blocks: 1,
            queries: Queries::LearnFreqs,
            projection: Projection::Linear,
            sets: Default::default(),
        }),
        ModelConfig::Masked(MaskedConfig { backbone: backbone.clone(), n_blocks: 1 }),
        ModelConfig::Autoregressive(AutoregressiveConfig { backbone, n_blocks: 1 }),
    ]
}

fn run(config: &ModelConfig, weights: WeightDtype, draw: DrawSettings, device: &Device) -> Vec<SampledRow> {
    // The same numbers on both devices: they are drawn on the host.
    let network = Network::new(config, device).with_noise(0.5, 4).folded().with_weight_dtype(weights).unwrap();
    let bos = config.backbone().bos_index as u32;
    let requests = [(20, 1), (13, 2)].map(|(length, seed)| SampleRequest {
        length,
        given: vec![(0, bos)],
        seed,
        ..SampleRequest::default()
    });
    let settings = SampleSettings { steps: 5, draw, ..SampleSettings::default() };
    let observe = &mut |_: &StepView| ControlFlow::Continue(());
    NetworkHandle { network: &network, config, device }
        .generate(&requests, &settings, SamplingPath::Clean, observe)
        .unwrap()
        .rows
}

// Tokens are the same up to the first near-tie of a row; log-probabilities up to rounding.
fn assert_same(what: &str, a: &[SampledRow], b: &[SampledRow], tie: f64, rounding: f64) {
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.order, b.order, "{what}");
        for (index, &position) in a.order.iter().enumerate() {
            if a.tokens[position] != b.tokens[position] {
                assert!(a.margins[index].min(b.margins[index]) < tie, "{what}: draw {index} differs");
                break;
            }
            let difference = (a.log_probabilities[index] - b.log_probabilities[index]).abs();
            assert!(difference < rounding, "{what}: {difference}");
        }
    }
}

// The device, and what counts as a near-tie and as rounding there: float32 matmuls use tf32 on CUDA.
fn gpu() -> (Device, f64, f64) {
    #[cfg(feature = "cuda")]
    return (Device::cuda(0), 5e-2, 5e-2);
    #[cfg(not(feature = "cuda"))]
    (Device::wgpu(burn::tensor::DeviceKind::DefaultDevice), 1e-4, 1e-4)
}

#[test]
fn engines_on_two_devices_write_the_same_at_the_same_time() {
    let (gpu, tie, rounding) = gpu();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/byte-model");
    let engines =
        [Device::flex(), gpu].map(|device| Engine::open(&folder, &device, &EngineOptions::default()).unwrap());
    let rows: Vec<[Vec<SampledRow>; 2]> = std::thread::scope(|scope| {
        let ask = |engine: &'_ Engine, seed: u64| {
            let mut task = Task::new(TaskInput::Template("To be, or {12} to be".into(), 8));
            (task.settings.steps, task.seed, task.n) = (6, seed, 2);
            let answers = engine.generate(task, &mut |_| ControlFlow::Continue(())).unwrap();
            answers.into_iter().map(|answer| answer.sampled).collect::<Vec<_>>()
        };
        let asked = [0, 10, 20].map(|seed| engines.each_ref().map(|engine| scope.spawn(move || ask(engine, seed))));
        asked.into_iter().map(|pair| pair.map(|thread| thread.join().unwrap())).collect()
    });
    for [a, b] in &rows {
        assert_eq!(a.len(), 2);
        assert_same("two engines", a, b, tie, rounding);
    }
}

#[test]
fn a_gpu_writes_what_the_cpu_writes() {
    let (cpu, (gpu, tie, rounding)) = (Device::flex(), gpu());
    let plain = DrawSettings::default();
    let cut = DrawSettings { temperature: 0.8, top_k: 40, top_p: 0.9 };
    let greedy = DrawSettings { temperature: 0.0, ..plain };
    for (config, kind) in configs().iter().zip(["partition", "masked", "autoregressive"]) {
        for (draw, name) in [(plain, "plain"), (cut, "cut"), (greedy, "greedy")] {
            let [a, b] = [&cpu, &gpu].map(|device| run(config, WeightDtype::F32, draw, device));
            // Which classes top-k or top-p keeps may itself depend on a near-tie.
            assert_same(&format!("{kind}, {name}"), &a, &b, tie, rounding);
        }
    }
    if gpu.supports_dtype(DType::F16) {
        let [a, b] = [&cpu, &gpu].map(|device| run(&configs()[0], WeightDtype::F16, plain, device));
        // A matmul of half-precision inputs is rounded to half precision on the GPU, not on Flex.
        assert_same("f16", &a, &b, 5e-2, 5e-2);
    }
}
