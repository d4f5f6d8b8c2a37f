//! The public samplers of images, against their loops written out here.
#![cfg(feature = "flex")]

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_infer::denoise::Denoiser;
use pgm_infer::engine::{EngineOptions, ImageEngine, ImageTask};
use pgm_infer::sample::order::{Confidence, halton_cells};
use pgm_infer::sample::{CleanRow, Curve, Guidance, Logits, SampleRow, sample};
use pgm_infer::settings::ImageOverrides;
use pgm_infer::{
    GenerationConfig, ImageModel, InferError, OrderKind, SampleRequest, SampleSettings, SampledRow, SamplingPath,
    StepView,
};
use pgm_model::{CleanTokens, ModelConfig, Network, Positions, WeightDtype};

mod common;
use common::image_models::{COLUMNS, ROWS, config, model, model_of, network};

const N_CELLS: usize = ROWS * COLUMNS;

const CONFIDENCE: OrderKind =
    OrderKind::Confidence(Confidence { limit: pgm_infer::sample::order::CandidateLimit::All, noise: 0.0 });

// Dropout draws from the device's only generator, and the tests that compute it seed it, too.
fn turn() -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

fn settings(model: &ImageModel, overrides: ImageOverrides) -> SampleSettings {
    ImageOverrides { as_published: true, has_class: true, ..overrides }.settings(model).unwrap()
}

fn draw(model: &ImageModel, requests: &[SampleRequest], settings: &SampleSettings) -> Vec<SampledRow> {
    model.generate(requests, settings, SamplingPath::Clean, &mut |_| ControlFlow::Continue(())).unwrap().rows
}

fn best(logits: &[f32]) -> usize {
    (0..logits.len()).reduce(|best, class| if logits[class] > logits[best] { class } else { best }).unwrap()
}

fn log_probability(logits: &[f32], class: usize) -> f64 {
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    f64::from(logits[class]) - sum.ln()
}

// A MaskGIT; the best token of some of them is the mask at some cells.
fn mask_git(seed: u64) -> (ImageModel, Network) {
    let config = config(2).masked_baseline();
    let network = Network::new(&config, &Device::flex()).with_noise(0.9, seed);
    let model = ImageModel::new(config, network.clone(), GenerationConfig::default(), None, &Device::flex()).unwrap();
    (model, network)
}

// The logits of all cells of a picture, the mask's among them.
fn cell_logits(network: &Network, codes: &[u32], class: Option<usize>) -> Vec<Vec<f32>> {
    let Network::MaskGit(network) = network else { unreachable!() };
    let device = Device::flex();
    let values: Vec<i32> = codes.iter().map(|&code| code as i32).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(values, [1, N_CELLS]), &device);
    let positions = Positions::new(&[(0..N_CELLS).collect()], &device);
    let logits = network.logits(network.hidden_at(tokens, Some(&[class]), &positions));
    let width = logits.dims()[2];
    logits.try_into_vec_as::<f32>().unwrap().chunks(width).map(<[f32]>::to_vec).collect()
}

fn guided(with_class: &[f32], without: &[f32], weight: f32) -> Vec<f32> {
    with_class.iter().zip(without).map(|(c, u)| (1.0 + weight) * c - weight * u).collect()
}

#[test]
fn mask_git_in_haltons_order_draws_every_earlier_code_again() {
    let cells: Vec<usize> = halton_cells(ROWS, COLUMNS).into_iter().map(|(y, x)| y * COLUMNS + x).collect();
    let (mut n_redrawn, mut n_masks) = (0, 0);
    // More steps than cells: the last ones only draw again.
    let cases = [(6, 0.0, 1), (7, 1.5, 2), (N_CELLS + 9, 0.5, 0)];
    for (seed, (steps, weight, class)) in (20..26).zip(cases.into_iter().cycle()) {
        let (model, network) = mask_git(seed);
        let mask = model.config().backbone().mask_index as u32;
        let overrides = ImageOverrides {
            steps: Some(steps),
            temperature: Some(0.0),
            cfg: Some(weight),
            ..ImageOverrides::default()
        };
        let mut seen = Vec::new();
        let request = model.request(Some(class), 3);
        let settings = settings(&model, overrides);
        let observe = &mut |view: &StepView<'_>| {
            seen.extend(view.changes[0].decoded.iter().map(|(position, _)| *position));
            ControlFlow::Continue(())
        };
        let output = model.generate(&[request], &settings, SamplingPath::Clean, observe).unwrap();
        assert_eq!(output.n_evaluations, steps);

        let mut codes = vec![mask; N_CELLS];
        for step in 0..steps {
            let share = Curve::Arccos.share((step + 1) as f64 / steps as f64);
            let n = ((share * N_CELLS as f64).floor() as usize).max(step + 1).min(N_CELLS);
            let with_class = cell_logits(&network, &codes, Some(class));
            let without = cell_logits(&network, &codes, None);
            for &cell in &cells[..n] {
                codes[cell] = best(&guided(&with_class[cell], &without[cell], weight as f32)) as u32;
            }
        }
        n_masks += codes.iter().filter(|&&code| code >= mask).count();
        n_redrawn += seen.len() - N_CELLS;
        let expected: Vec<u32> = codes.iter().map(|&code| code.min(mask - 1)).collect();
        assert!(output.rows[0].complete);
        assert_eq!(model.cells(&output.rows[0]), expected, "{steps} steps");
    }
    assert!(n_redrawn > 0 && n_masks > 0, "{n_redrawn} other codes, {n_masks} masks: the test sees nothing");
}

#[test]
fn mask_git_by_confidence_draws_earlier_codes_again_and_opens_what_it_masks() {
    let mut n_opened = 0;
    for (seed, (steps, class)) in (20..26).zip([(5, 0), (6, 1), (9, 2)].into_iter().cycle()) {
        let (model, network) = mask_git(seed);
        let mask = model.config().backbone().mask_index as u32;
        let overrides = ImageOverrides {
            steps: Some(steps),
            order: Some(CONFIDENCE),
            temperature: Some(0.0),
            ..ImageOverrides::default()
        };
        let row = draw(&model, &[model.request(Some(class), 3)], &settings(&model, overrides)).remove(0);

        let mut codes = vec![mask; N_CELLS];
        for step in 0..steps {
            let share = Curve::Arccos.share(step as f64 / (steps - 1) as f64);
            let n = ((share * N_CELLS as f64).floor() as usize).max(step + 1);
            let n = if step + 1 == steps { N_CELLS } else { n };
            let logits = cell_logits(&network, &codes, Some(class));
            let mut confidence: Vec<(f64, usize)> = (0..N_CELLS)
                .map(|cell| match codes[cell] == mask {
                    true => (log_probability(&logits[cell], best(&logits[cell])), cell),
                    false => (f64::INFINITY, cell),
                })
                .collect();
            confidence.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            for &(_, cell) in &confidence[..n] {
                codes[cell] = best(&logits[cell]) as u32;
            }
            n_opened += codes.iter().filter(|&&code| code == mask).count() + n - N_CELLS;
        }
        let expected: Vec<u32> = codes.iter().map(|&code| code.min(mask - 1)).collect();
        assert!(row.complete);
        assert_eq!(model.cells(&row), expected, "{steps} steps");
    }
    assert!(n_opened > 0, "no mask was drawn: the test sees nothing");
}

// Records what the network is asked.
struct Recorder<'a>(Box<dyn Denoiser + 'a>, RefCell<Vec<(Vec<CleanRow>, Vec<Vec<usize>>)>>);

impl Denoiser for Recorder<'_> {
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits<'_>, InferError> {
        let rows_now = rows.iter().map(|row| (*row).clone()).collect();
        self.1.borrow_mut().push((rows_now, positions.iter().map(|positions| positions.to_vec()).collect()));
        self.0.logits(rows, positions)
    }

    fn mask_index(&self) -> usize {
        self.0.mask_index()
    }

    fn excluded_classes(&self) -> &[usize] {
        self.0.excluded_classes()
    }

    fn row(&self, request: &SampleRequest, settings: &SampleSettings) -> Result<SampleRow, InferError> {
        self.0.row(request, settings)
    }
}

fn with_dropout(registers: usize) -> ModelConfig {
    let mut config = config(registers);
    config.backbone_mut().dropout = 0.3;
    config
}

#[test]
fn a_partition_model_by_confidence_runs_with_dropout_and_may_draw_any_token() {
    let _turn = turn();
    for registers in [2, 0] {
        let config = with_dropout(registers);
        let backbone = config.backbone().clone();
        let (mask, bos) = (backbone.mask_index as u32, backbone.bos_index as u32);
        let model = model_of(config.clone(), None);
        let steps = 5;
        let overrides = ImageOverrides {
            steps: Some(steps),
            order: Some(CONFIDENCE),
            temperature: Some(0.0),
            ..ImageOverrides::default()
        };
        let settings = settings(&model, overrides);
        let recorder = Recorder(model.denoiser(SamplingPath::Clean), RefCell::default());
        let go_on = &mut |_: &StepView<'_>| ControlFlow::Continue(());
        let row = sample(&recorder, &[model.request(Some(1), 8)], &settings, go_on).unwrap().rows.remove(0);
        let asked = recorder.1.into_inner();
        assert_eq!(asked.len(), steps);

        let device = Device::flex().autodiff();
        let Network::Partition(network) = network(&config).train().fork(&device) else { unreachable!() };
        let (mut positions, mut tokens) = (vec![0_usize], vec![bos]);
        for (step, (rows, at)) in asked.iter().enumerate() {
            assert_eq!((&rows[0].positions, &rows[0].tokens), (&positions, &tokens), "step {step}");
            let open: Vec<usize> = (1..=N_CELLS).filter(|position| !positions.contains(position)).collect();
            assert_eq!(at[0], open, "all open positions are asked for");
            // The register takes the place of the newest token among the keys.
            let n_seen = positions.len() - usize::from(registers > 0);
            let clean = CleanTokens::new(&[tokens[..n_seen].to_vec()], &[positions[..n_seen].to_vec()], &device)
                .with_classes(vec![Some(1)]);
            Device::flex().seed(rows[0].quirks.dropout.unwrap());
            let logits = network.forward_clean(&clean, &Positions::new(std::slice::from_ref(&open), &device));
            let width = logits.dims()[2];
            let logits = logits.inner().try_into_vec_as::<f32>().unwrap();
            let mut drawn: Vec<(f64, usize, u32)> = logits
                .chunks(width)
                .zip(&open)
                .map(|(logits, &position)| (log_probability(logits, best(logits)), position, best(logits) as u32))
                .collect();
            drawn.sort_by(|a, b| b.0.total_cmp(&a.0));
            let share = Curve::Arccos.share(step as f64 / (steps - 1) as f64);
            let decoded = if step + 1 == steps { N_CELLS } else { (share * N_CELLS as f64).floor() as usize + 1 };
            drawn.truncate(decoded - (positions.len() - 1));
            drawn.sort_by_key(|(_, position, _)| *position);
            positions.extend(drawn.iter().map(|(_, position, _)| position));
            tokens.extend(drawn.iter().map(|(.., token)| token));
        }
        assert_eq!(row.order, positions[1..]);
        for (&position, &token) in positions.iter().zip(&tokens).skip(1) {
            assert_eq!(row.tokens[position], token.min(mask - 1));
        }
        assert!(tokens[1..].iter().any(|&token| token >= mask), "no mask was drawn: the test sees nothing");
    }
}

#[test]
fn dropout_is_of_a_rows_own_seed_and_leaves_rows_beside_it_as_they_are() {
    let _turn = turn();
    let model = model_of(with_dropout(2), None);
    let confidence = ImageOverrides { steps: Some(6), order: Some(CONFIDENCE), ..ImageOverrides::default() };
    let guided = ImageOverrides { cfg: Some(1.0), ..confidence };
    for overrides in [confidence, guided] {
        let settings = settings(&model, overrides);
        let requests: Vec<SampleRequest> = (0..3).map(|index| model.request(Some(index), 4)).collect();
        let together = draw(&model, &requests, &settings);
        for (request, row) in requests.iter().zip(&together) {
            assert_eq!(&draw(&model, std::slice::from_ref(request), &settings)[0], row);
        }
        let ours = SampleSettings { as_published: None, ..settings };
        assert_ne!(draw(&model, &requests, &ours), together);
    }
    // The engine runs rows of both kinds together.
    let engine = ImageEngine::new(model_of(with_dropout(2), None), &EngineOptions::default()).unwrap();
    let published = settings(&model, confidence);
    let plain = SampleSettings { steps: 6, ..SampleSettings::for_images(&GenerationConfig::default()) };
    let requests = vec![model.request(Some(0), 1), model.request(Some(2), 2)];
    let tasks = [published, plain, published].map(|settings| ImageTask::new(requests.clone(), settings));
    let events = tasks.map(|task| engine.events(task).unwrap());
    for (events, settings) in events.into_iter().zip([published, plain, published]) {
        let expected = draw(&model, &requests, &settings);
        let mut found = events
            .filter_map(|event| match event {
                pgm_infer::engine::TaskEvent::Done(output) => Some(*output),
                pgm_infer::engine::TaskEvent::Failed { error, .. } => panic!("{error}"),
                pgm_infer::engine::TaskEvent::Step { .. } => None,
            })
            .collect::<Vec<_>>();
        found.sort_by_key(|output| output.index);
        for (output, expected) in found.iter().zip(&expected) {
            assert_eq!((&output.sampled.tokens, &output.sampled.order), (&expected.tokens, &expected.order));
        }
    }
}

#[test]
fn the_public_count_of_registers_hides_the_newest_token() {
    let requests = |model: &ImageModel| vec![model.request(Some(1), 3), model.request(Some(2), 4)];
    for (registers, differs) in [(2, true), (0, false)] {
        let model = model(registers, None);
        let overrides = ImageOverrides { steps: Some(N_CELLS), ..ImageOverrides::default() };
        let published = settings(&model, overrides);
        let rows = draw(&model, &requests(&model), &published);
        assert!(rows.iter().all(|row| row.complete));
        let ours = draw(&model, &requests(&model), &SampleSettings { as_published: None, ..published });
        assert_eq!(rows[0].order, ours[0].order);
        assert_eq!(rows != ours, differs, "{registers} registers");
    }
}

#[test]
fn the_temperature_multiplies_and_the_warm_up_halves() {
    let model = model(0, None);
    let of = |temperature: f64, temp_warmup| {
        let overrides =
            ImageOverrides { steps: Some(4), temperature: Some(temperature), temp_warmup, ..ImageOverrides::default() };
        settings(&model, overrides)
    };
    assert!((of(1.25, None).draw.temperature - 0.8).abs() < 1e-12);
    let requests: Vec<SampleRequest> = (0..8).map(|seed| model.request(Some(0), seed)).collect();
    let cells = |settings: &SampleSettings| -> Vec<Vec<u32>> {
        draw(&model, &requests, settings).iter().map(|row| model.cells(row).to_vec()).collect()
    };
    // A warm-up over all steps is another temperature.
    assert_eq!(cells(&of(1.25, Some(4))), cells(&of(0.625, None)));
    let n_first = (Curve::Arccos.share(0.25) * N_CELLS as f64).floor() as usize;
    let (warm, plain, order) = (of(1.25, Some(1)), of(1.25, None), halton_cells(ROWS, COLUMNS));
    let first: Vec<usize> = order[..n_first].iter().map(|(y, x)| y * COLUMNS + x).collect();
    let hot = cells(&of(0.625, None));
    for (warm, hot) in cells(&warm).iter().zip(&hot) {
        assert!(first.iter().all(|&cell| warm[cell] == hot[cell]), "the first step is hotter");
    }
    assert_ne!(cells(&warm), hot);
    assert_ne!(cells(&warm), cells(&plain));
}

#[test]
fn the_weight_of_a_class_rises_but_in_mask_gits_halton() {
    let partition = model(2, None);
    let (mask_git, _) = mask_git(1);
    let halton = OrderKind::Halton { roll: false };
    for (model, order, name) in [
        (&partition, halton, "linear"),
        (&partition, CONFIDENCE, "linear"),
        (&mask_git, halton, "constant"),
        (&mask_git, CONFIDENCE, "linear"),
    ] {
        let overrides = ImageOverrides { cfg: Some(2.0), order: Some(order), ..ImageOverrides::default() };
        let Guidance { weight, schedule } = settings(model, overrides).guidance;
        assert_eq!((weight, schedule.name()), (2.0, name), "{order:?}");
    }
}

#[test]
fn what_no_public_sampler_does_is_named() {
    let model = model(2, None);
    let refused = |overrides: ImageOverrides| overrides.settings(&model).unwrap_err().to_string();
    let published = ImageOverrides { as_published: true, ..ImageOverrides::default() };
    let says = refused(ImageOverrides { order: Some(OrderKind::Uniform), ..published });
    assert!(says.contains("--order uniform") && says.contains("halton or confidence"), "{says}");
    let says = refused(ImageOverrides { temp_warmup: Some(1), ..ImageOverrides::default() });
    assert!(says.contains("--temp-warmup 1") && says.contains("--as-published"), "{says}");
    let says = refused(ImageOverrides { temp_warmup: Some(1), order: Some(CONFIDENCE), ..published });
    assert!(says.contains("belongs to the order halton"), "{says}");
    let half = common::image_models::model(2, None).with_weight_dtype(WeightDtype::BF16).unwrap();
    let says = ImageOverrides { order: Some(CONFIDENCE), ..published }.settings(&half).unwrap_err().to_string();
    assert!(says.contains("dropout") && says.contains("f32"), "{says}");
    assert!(published.settings(&half).is_ok(), "Halton's order has no dropout");
}
