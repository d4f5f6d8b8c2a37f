//! What a row has encoded is kept between steps: exact for models with ordered sets, bounded in memory.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use burn::tensor::Device;
use pgm_infer::denoise::{CleanRow, FullDenoiser, PartitionDenoiser, logits_at};
use pgm_infer::engine::{Engine, EngineOptions, StepMetrics, Task, TaskInput};
use pgm_infer::sample::order::OrderKind;
use pgm_infer::sample::{Guidance, Refresh, SampleRow, advance};
use pgm_infer::{Denoiser, SampleRequest, SampleSettings, SampledRow, Schedule, sample};
use pgm_model::{
    BackboneConfig, ImageConfig, ModelConfig, Network, PartitionConfig, PartitionTransformer, Projection, Queries, Sets,
};

mod common;

const VOCAB: usize = 29;

fn config(image: Option<ImageConfig>) -> ModelConfig {
    let backbone = match image {
        Some(image) => BackboneConfig::for_codes(VOCAB - 2, 24, 3, image),
        None => BackboneConfig { cond_dim: 8, ..BackboneConfig::new(VOCAB, 24, 3, 16) },
    };
    ModelConfig::Partition(PartitionConfig {
        backbone,
        encoder_blocks: 2,
        decoder_blocks: 1,
        queries: Queries::LearnFreqsMean,
        projection: Projection::Linear,
        sets: Sets::Mix,
    })
}

fn network(config: &ModelConfig) -> PartitionTransformer {
    match Network::new(config, &Device::flex()).with_noise(0.4, 5) {
        Network::Partition(model) => model,
        _ => unreachable!(),
    }
}

fn requests(config: &ModelConfig) -> Vec<SampleRequest> {
    let bos = config.backbone().bos_index as u32;
    let row = |length, seed, given: &[(usize, u32)]| SampleRequest {
        length,
        given: [&[(0, bos)], given].concat(),
        seed,
        class: config.image().map(|image| seed as usize % image.n_classes),
        ..SampleRequest::default()
    };
    if config.image().is_some() {
        return vec![row(17, 1, &[]), row(17, 2, &[(3, 4)]), row(17, 2, &[])];
    }
    // Three samples of one prompt among them.
    let prompt = [(1, 4), (2, 9), (9, 1)];
    vec![row(16, 1, &prompt), row(5, 2, &[(3, 4)]), row(16, 3, &prompt), row(23, 4, &[(7, 1)]), row(16, 5, &prompt)]
}

fn settings(refresh: Refresh, order: OrderKind) -> SampleSettings {
    SampleSettings { steps: 9, order, refresh, ..SampleSettings::default() }
}

fn run(denoiser: &dyn Denoiser, requests: &[SampleRequest], settings: &SampleSettings) -> Vec<SampledRow> {
    sample(denoiser, requests, settings, &mut |_| ControlFlow::Continue(())).unwrap().rows
}

// Tokens are the same unless a draw was a near-tie.
fn assert_same(what: &str, a: &[SampledRow], b: &[SampledRow]) {
    for (row, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.order, b.order, "{what}, row {row}");
        if let Some(first) = a.order.iter().position(|&position| a.tokens[position] != b.tokens[position]) {
            let margin = a.margins[first].min(b.margins[first]);
            assert!(margin < 1e-5, "{what}, row {row}: draw {first} differs at margin {margin:e}");
            continue;
        }
        for (x, y) in a.log_probabilities.iter().zip(&b.log_probabilities) {
            assert!((x - y).abs() < 1e-4, "{what}, row {row}: {x} against {y}");
        }
    }
}

#[test]
fn kept_rows_write_what_the_training_path_writes_from_the_same_sets() {
    let images = ImageConfig { registers: 2, ..ImageConfig::new(3, [4, 4]) };
    for config in [config(None), config(Some(images))] {
        let (model, device) = (network(&config), Device::flex());
        let requests = requests(&config);
        for refresh in [Refresh::Never, Refresh::Every(3), Refresh::Always] {
            for (order, guidance) in
                [(OrderKind::Uniform, 0.0), (OrderKind::Remask { rate: 0.3 }, 0.0), (OrderKind::Dilated, 1.5)]
            {
                let guidance = Guidance { weight: guidance, ..Guidance::default() };
                let settings = SampleSettings { guidance, ..settings(refresh, order) };
                let what = format!("refresh {refresh}, {order:?}, images: {}", config.image().is_some());
                let full = run(&FullDenoiser::of(&model, &device, &config), &requests, &settings);
                let kept = run(&PartitionDenoiser::of(&model, &device, &config), &requests, &settings);
                assert_same(&what, &kept, &full);
                let alone: Vec<SampledRow> = requests
                    .iter()
                    .flat_map(|request| {
                        let denoiser = PartitionDenoiser::of(&model, &device, &config);
                        run(&denoiser, std::slice::from_ref(request), &settings)
                    })
                    .collect();
                assert_same(&format!("{what}, alone"), &kept, &alone);
                // Nothing can be kept: every row is encoded again, set by set.
                let denoiser = PartitionDenoiser::of(&model, &device, &config);
                denoiser.bound_cache(0);
                let dropped = run(&denoiser, &requests, &settings);
                assert_eq!(denoiser.cache_bytes(), 0);
                assert_same(&format!("{what}, dropped"), &kept, &dropped);
            }
        }
    }
}

#[test]
fn old_tokens_do_not_see_new_ones_until_they_are_encoded_anew() {
    let config = config(None);
    let (model, device) = (network(&config), Device::flex());
    let network = Network::new(&config, &device).with_noise(0.4, 5);
    let logits = |sets: Option<Vec<usize>>| {
        let row = CleanRow::new(16, vec![0, 4, 2, 9], vec![27, 1, 2, 3]).with_sets(sets);
        logits_at(&network, VOCAB - 1, &[&row], &[&[7, 8]], &device).try_into_vec_as::<f32>().unwrap()
    };
    let difference = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (anew, one, two) = (logits(None), logits(Some(vec![3; 4])), logits(Some(vec![0, 0, 1, 1])));
    assert!(difference(&anew, &one) < 1e-5, "one set is what is encoded anew");
    assert!(difference(&anew, &two) > 1e-3, "the first set has not seen the second");
    let falling = CleanRow::new(16, vec![0, 4], vec![27, 1]).with_sets(Some(vec![1, 0]));
    let denoiser = PartitionDenoiser::of(&model, &device, &config);
    assert!(denoiser.logits(&[&falling], &[&[7]]).unwrap_err().to_string().contains("sets"));
}

#[test]
fn rows_with_different_settings_share_a_batch() {
    let config = config(None);
    let (model, device) = (network(&config), Device::flex());
    let all = [
        settings(Refresh::Never, OrderKind::Remask { rate: 0.3 }),
        settings(Refresh::Always, OrderKind::Uniform),
        settings(Refresh::Every(2), OrderKind::Remask { rate: 0.1 }),
        SampleSettings { schedule: Schedule::Binomial, ..settings(Refresh::Never, OrderKind::Uniform) },
    ];
    let requests: Vec<SampleRequest> = requests(&config).into_iter().take(4).collect();
    let together = {
        let denoiser = PartitionDenoiser::of(&model, &device, &config);
        let mut rows: Vec<SampleRow> =
            requests.iter().zip(&all).map(|(request, settings)| denoiser.row(request, settings).unwrap()).collect();
        while rows.iter().any(|row| !row.is_done()) {
            let result = advance(&denoiser, &mut rows.iter_mut().collect::<Vec<_>>()).unwrap();
            result.changes.into_iter().for_each(|change| drop(change.unwrap()));
        }
        rows.iter().map(|row| row.sampled(VOCAB - 1)).collect::<Vec<_>>()
    };
    for (index, (request, settings)) in requests.iter().zip(&all).enumerate() {
        let denoiser = PartitionDenoiser::of(&model, &device, &config);
        let alone = run(&denoiser, std::slice::from_ref(request), settings);
        assert_same(&format!("row {index}"), &together[index..=index], &alone);
        assert!(alone[0].complete);
    }
}

#[test]
fn an_engine_keeps_no_more_than_it_may() {
    let partition = PartitionConfig { sets: Sets::Mix, ..common::partition_config() };
    let config = ModelConfig::Partition(partition);
    let sampled = |cache_bytes: usize| {
        let largest = Arc::new(Mutex::new(0));
        let seen = Arc::clone(&largest);
        let watch: pgm_infer::engine::StepObserver = Arc::new(move |step: &StepMetrics| {
            let mut largest = seen.lock().unwrap();
            *largest = step.cache_bytes.max(*largest);
        });
        let options = EngineOptions { cache_bytes, watch: Some(watch), ..EngineOptions::default() };
        let engine = Engine::new(common::model(&config), &options).unwrap();
        let mut task = Task { n: 3, ..Task::new(TaskInput::Prompt("w1 w2".into())) };
        (task.settings.steps, task.settings.refresh, task.seed) = (7, Refresh::Never, 3);
        let answers = engine.generate(task, &mut |_| ControlFlow::Continue(())).unwrap();
        let texts: Vec<Vec<u32>> = answers.into_iter().map(|answer| answer.sampled.tokens).collect();
        drop(engine);
        let largest = *largest.lock().unwrap();
        (texts, largest)
    };
    let (free, most) = sampled(1 << 30);
    assert!(most > 0, "what was encoded is kept");
    let (bounded, within) = sampled(most / 2);
    assert!(within <= most / 2);
    assert_eq!(free, bounded);
}
