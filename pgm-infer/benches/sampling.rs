//! Loading and sampling: `cargo bench -p pgm-infer --bench sampling`.
#![allow(missing_docs)] // functions that criterion's macros write

use std::hint::black_box;
use std::ops::ControlFlow;

use burn::tensor::{Device, Int, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use pgm_infer::denoise::{CleanRow, Denoiser, PartitionDenoiser};
use pgm_infer::sample::logits::PositionDraw;
use pgm_infer::{DrawSettings, Logits, SampleRequest, SampleSettings, StepView, sample};
use pgm_model::{AutoregressiveConfig, Cache, ModelConfig, Network, model_folder, presets};

// As in the commands.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn sampling(c: &mut Criterion) {
    let device = Device::flex();
    let config = presets::bytes_small();
    let network = Network::new(&config, &device).with_noise(0.05, 1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    model_folder::save(folder.path(), &config, &network).expect("the model is written");
    c.bench_function("load bytes-small", |bencher| {
        bencher.iter(|| black_box(model_folder::load(folder.path(), &device).expect("the model is read")));
    });

    // One more token for each of 16 rows, all at one place and each at its own.
    let causal = AutoregressiveConfig { backbone: config.backbone().clone(), n_blocks: 6 };
    let Network::Autoregressive(model) = &Network::new(&ModelConfig::Autoregressive(causal), &device).folded() else {
        unreachable!("an autoregressive model")
    };
    for (name, length) in [("at one place", [200; 16]), ("each at its own", std::array::from_fn(|row| 128 + 9 * row))] {
        let of_row = |n: usize| {
            let mut cache = Cache::new(1);
            model.forward_cached(Tensor::<2, Int>::ones([1, n], &device), &mut cache);
            cache
        };
        let cache = Cache::concat(&length.map(of_row));
        let tokens = Tensor::<2, Int>::ones([16, 1], &device);
        c.bench_function(&format!("autoregressive step, 16 rows {name}"), |bencher| {
            bencher.iter(|| black_box(model.forward_cached(tokens.clone(), &mut cache.clone())));
        });
    }

    let Network::Partition(model) = &network.folded() else { unreachable!("a partition model") };
    let denoiser = PartitionDenoiser::new(model, &device, config.backbone().mask_index);
    for steps in [8, 64] {
        let request = SampleRequest {
            length: 256,
            given: vec![(0, config.backbone().bos_index as u32)],
            seed: 1,
            ..SampleRequest::default()
        };
        let settings = SampleSettings { steps, ..SampleSettings::default() };
        c.bench_function(&format!("sample bytes-small, 256 tokens in {steps} steps"), |bencher| {
            bencher.iter(|| {
                let observe = &mut |_: &StepView| ControlFlow::Continue(());
                black_box(sample(&denoiser, std::slice::from_ref(&request), &settings, observe).expect("it samples"))
            });
        });
    }

    // A step of 16 rows that have decoded 128 tokens on average and decode 4 each; rows that differ are packed.
    let state = |n: usize| CleanRow::new(256, (0..n).collect(), vec![1; n]);
    let (alike, differing) = ([128; 16], std::array::from_fn(|row| 8 + 16 * row));
    let nearly = std::array::from_fn(|row| 128 + row % 2);
    for (name, counts) in [("alike", alike), ("nearly alike", nearly), ("of different lengths", differing)] {
        let rows: Vec<CleanRow> = counts.into_iter().map(state).collect();
        let positions = &[252, 253, 254, 255][..];
        let (rows, open): (Vec<&CleanRow>, Vec<&[usize]>) = rows.iter().map(|row| (row, positions)).unzip();
        c.bench_function(&format!("step of bytes-small, 16 rows {name}"), |bencher| {
            bencher.iter(|| black_box(denoiser.logits(&rows, &open).expect("it computes")));
        });
    }

    let (n, n_classes) = (32, 50_258);
    let values: Vec<f32> = (0..n * n_classes).map(|i| ((i * 7919) % 1000) as f32 / 100.0).collect();
    let logits = Logits::from_host(values, n, n_classes);
    let picks: Vec<PositionDraw> =
        (0..n).map(|index| PositionDraw { row: 0, index, uniform: index as f64 / n as f64 }).collect();
    for (name, settings) in [
        ("draw 32 tokens of 50258", DrawSettings::default()),
        ("draw 32 tokens of 50258, top-p 0.9", DrawSettings { top_p: 0.9, ..DrawSettings::default() }),
    ] {
        c.bench_function(name, |bencher| {
            bencher.iter(|| black_box(logits.draw(&picks, &[n_classes - 1], &settings).expect("it draws")));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = sampling
}
criterion_main!(benches);
