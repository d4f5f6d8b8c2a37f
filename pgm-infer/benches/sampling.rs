//! Loading and sampling: `cargo bench -p pgm-infer --bench sampling`.
#![allow(missing_docs)] // what criterion's macros make

use std::hint::black_box;
use std::ops::ControlFlow;

use burn::tensor::Device;
use criterion::{Criterion, criterion_group, criterion_main};
use pgm_infer::denoiser::PartitionDenoiser;
use pgm_infer::logits::Pick;
use pgm_infer::{DrawSettings, Logits, Request, Settings, StepView, sample};
use pgm_model::{Network, checkpoint, presets};

// As in the commands.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn sampling(c: &mut Criterion) {
    let device = Device::flex();
    let config = presets::bytes_small();
    let network = Network::new(&config, &device).with_noise(0.05, 1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    checkpoint::save(folder.path(), &config, &network).expect("the model is written");
    c.bench_function("load bytes-small", |bencher| {
        bencher.iter(|| black_box(checkpoint::load(folder.path(), &device).expect("the model is read")));
    });

    let Network::Partition(model) = &network.folded() else { unreachable!("a partition model") };
    let denoiser = PartitionDenoiser { model, device: &device, mask_index: config.backbone().mask_index };
    for steps in [8, 64] {
        let request = Request { length: 256, given: vec![(0, config.backbone().bos_index as u32)], seed: 1 };
        let settings = Settings { steps, ..Settings::default() };
        c.bench_function(&format!("sample bytes-small, 256 tokens in {steps} steps"), |bencher| {
            bencher.iter(|| {
                let observe = &mut |_: &StepView| ControlFlow::Continue(());
                black_box(sample(&denoiser, std::slice::from_ref(&request), &settings, observe).expect("it samples"))
            });
        });
    }

    let (n, n_classes) = (32, 50_258);
    let values: Vec<f32> = (0..n * n_classes).map(|i| ((i * 7919) % 1000) as f32 / 100.0).collect();
    let logits = Logits::from_host(values, n, n_classes);
    let picks: Vec<Pick> = (0..n).map(|index| Pick { row: 0, index, uniform: index as f64 / n as f64 }).collect();
    for (name, settings) in [
        ("draw 32 tokens of 50258", DrawSettings::default()),
        ("draw 32 tokens of 50258, top-p 0.9", DrawSettings { top_p: 0.9, ..DrawSettings::default() }),
    ] {
        c.bench_function(name, |bencher| {
            bencher.iter(|| black_box(logits.draw(&picks, n_classes - 1, &settings).expect("it draws")));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = sampling
}
criterion_main!(benches);
