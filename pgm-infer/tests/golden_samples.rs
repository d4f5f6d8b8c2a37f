//! Samples of fixed seeds: the tokens and the order in which they were decoded, for every order, schedule and kind of
//! draw.
//!
//! A change of the sampler that moves one of these lines changes what users get for their seeds.
#![cfg(feature = "flex")]

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;

use burn::tensor::Device;
use pgm_infer::{
    DrawSettings, GenerationConfig, OrderKind, SampleRequest, SampleSettings, SamplingPath, Schedule, TextModel,
};
use pgm_model::{AutoregressiveConfig, ModelConfig, Network};
use tokenizers::Tokenizer;

fn draws() -> [(&'static str, DrawSettings); 3] {
    let plain = DrawSettings::default();
    [
        ("plain", plain),
        ("cut", DrawSettings { temperature: 0.8, top_k: 40, top_p: 0.9 }),
        ("greedy", DrawSettings { temperature: 0.0, ..plain }),
    ]
}

// Rows that differ in length and in their given tokens, so that some are packed.
fn requests(model: &TextModel, is_causal: bool) -> Vec<SampleRequest> {
    let bos = model.config().backbone().bos_index as u32;
    let row = |length, seed, given: &[(usize, u32)]| SampleRequest {
        length,
        given: [&[(0, bos)], given].concat(),
        seed,
        ..SampleRequest::default()
    };
    let word = |start: usize, text: &str| -> Vec<(usize, u32)> {
        text.bytes().enumerate().map(|(index, byte)| (start + index, u32::from(byte))).collect()
    };
    let second = word(if is_causal { 1 } else { 11 }, "thou");
    vec![row(32, 1, &word(1, "To be")), row(20, 2, &second), row(32, 3, &[])]
}

fn line(
    name: &str,
    model: &TextModel,
    requests: &[SampleRequest],
    settings: &SampleSettings,
    path: SamplingPath,
) -> String {
    let rows = model.generate(requests, settings, path, &mut |_| ControlFlow::Continue(())).unwrap().rows;
    let mut line = name.to_string();
    for row in rows {
        assert!(row.complete, "{name}");
        write!(line, " {:?} {:?}", row.tokens, row.order).unwrap();
    }
    line.replace(", ", ",") + "\n"
}

fn lines() -> String {
    let device = Device::flex();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/byte-model");
    let partition = TextModel::load(&folder, &device).unwrap();
    let mut lines = String::new();
    for order in OrderKind::NAMES {
        for (schedule, schedule_name) in [(Schedule::Uniform, "uniform"), (Schedule::Binomial, "binomial")] {
            for (draw_name, draw) in draws() {
                let order = order.parse::<OrderKind>().unwrap();
                let settings = SampleSettings { steps: 7, schedule, order, draw, ..SampleSettings::default() };
                let name = format!("partition,{},{schedule_name},{draw_name}", order.name());
                lines += &line(&name, &partition, &requests(&partition, false), &settings, SamplingPath::Clean);
            }
        }
    }
    let settings = SampleSettings { steps: 5, ..SampleSettings::default() };
    lines += &line("full", &partition, &requests(&partition, false), &settings, SamplingPath::Full);
    // More positions in a step than the head computes at once.
    let long: Vec<SampleRequest> = [(300, 5), (140, 6), (300, 7)]
        .map(|(length, seed)| SampleRequest { length, given: vec![(0, 256)], seed, ..SampleRequest::default() })
        .to_vec();
    for (order, steps) in [("uniform", 1), ("confidence", 6), ("margin", 3)] {
        let order = order.parse::<OrderKind>().unwrap();
        for (draw_name, draw) in draws() {
            let settings = SampleSettings { steps, order, draw, ..SampleSettings::default() };
            let name = format!("long,{},{draw_name}", order.name());
            lines += &line(&name, &partition, &long, &settings, SamplingPath::Clean);
            lines += &line(&format!("{name},alike"), &partition, &long[2..], &settings, SamplingPath::Clean);
        }
    }
    let settings = SampleSettings { steps: 3, ..SampleSettings::default() };
    lines += &line("long,full", &partition, &long, &settings, SamplingPath::Full);
    // Baselines of random weights.
    let masked = partition.config().masked_baseline();
    let backbone = partition.config().backbone().clone();
    let causal = ModelConfig::Autoregressive(AutoregressiveConfig { backbone, n_blocks: 2 });
    for (kind, config) in [("masked", masked), ("autoregressive", causal)] {
        let tokenizer = Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
        let network = Network::new(&config, &device).with_noise(0.3, 4);
        let generation = GenerationConfig::default();
        let model = TextModel::new(config, network, tokenizer, generation, &device, "test").unwrap();
        let requests = requests(&model, kind == "autoregressive");
        for (draw_name, draw) in draws() {
            let settings = SampleSettings { steps: 6, draw, ..SampleSettings::default() };
            lines += &line(&format!("{kind},{draw_name}"), &model, &requests, &settings, SamplingPath::Clean);
        }
        if kind == "masked" {
            let settings = SampleSettings { steps: 2, schedule: Schedule::Binomial, ..SampleSettings::default() };
            lines += &line("masked,long", &model, &long, &settings, SamplingPath::Clean);
        }
    }
    lines
}

#[test]
fn fixed_seeds_give_the_recorded_samples() {
    let (expected, found) = (include_str!("golden/samples.txt"), lines());
    assert_eq!(expected.lines().count(), found.lines().count());
    for (expected, found) in expected.lines().zip(found.lines()) {
        assert_eq!(expected, found);
    }
}

#[test]
fn a_device_with_autodiff_gives_the_same_samples() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/byte-model");
    let sample = |device: &Device| {
        let model = TextModel::load(&folder, device).unwrap();
        let settings = SampleSettings { steps: 7, ..SampleSettings::default() };
        line("partition", &model, &requests(&model, false), &settings, SamplingPath::Clean)
    };
    assert_eq!(sample(&Device::flex().autodiff()), sample(&Device::flex()));
}
