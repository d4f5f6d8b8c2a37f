//! The sampling loop on real networks: both paths agree, a row does not depend on its batch, given tokens stay.

use std::ops::ControlFlow;

use burn::tensor::{Device, Int, Tensor, TensorData};
use pgm_infer::denoise::{
    CleanRow, FullDenoiser, HeadPositions, MaskedDenoiser, NetworkHandle, PartitionDenoiser, hidden_at, logit_chunks,
    logits_at,
};
use pgm_infer::{Denoiser, DrawSettings, SampleRequest, SampleSettings, SampledRow, SamplingPath, Schedule, sample};
use pgm_model::{
    AutoregressiveConfig, BackboneConfig, Cache, ModelConfig, Network, PartitionConfig, Projection, Queries,
};

const VOCAB: usize = 29;
const MASK: usize = VOCAB - 1;

fn network(config: &ModelConfig) -> Network {
    Network::new(config, &Device::flex()).with_noise(0.5, 4)
}

fn config() -> ModelConfig {
    ModelConfig::Partition(PartitionConfig {
        backbone: BackboneConfig { cond_dim: 8, ..BackboneConfig::new(VOCAB, 24, 3, 16) },
        encoder_blocks: 2,
        decoder_blocks: 1,
        queries: Queries::LearnFreqs,
        projection: Projection::Linear,
        sets: Default::default(),
    })
}

// Lengths below, at and above the trained 16; given tokens in the middle.
fn requests() -> Vec<SampleRequest> {
    let row = |length, seed, given: &[(usize, u32)]| SampleRequest {
        length,
        given: [&[(0, 27)], given].concat(),
        seed,
        ..SampleRequest::default()
    };
    vec![row(16, 1, &[]), row(5, 2, &[(3, 4)]), row(23, 3, &[(7, 1), (20, 2)]), row(16, 4, &[(15, 9)])]
}

fn run(denoiser: &dyn Denoiser, requests: &[SampleRequest], settings: &SampleSettings) -> Vec<SampledRow> {
    sample(denoiser, requests, settings, &mut |_| ControlFlow::Continue(())).unwrap().rows
}

// Log-probabilities may differ by rounding, tokens may not, unless the first that differs was a near-tie. Counts those.
fn assert_same(what: &str, a: &[SampledRow], b: &[SampledRow]) -> usize {
    let mut n_ties = 0;
    for (row, (a, b)) in a.iter().zip(b).enumerate() {
        assert_eq!(a.order, b.order, "{what}, row {row}");
        if let Some(first) = a.order.iter().position(|&position| a.tokens[position] != b.tokens[position]) {
            let margin = a.margins[first].min(b.margins[first]);
            assert!(margin < 1e-5, "{what}, row {row}: draw {first} differs at margin {margin:e}");
            n_ties += 1;
            continue;
        }
        for (x, y) in a.log_probabilities.iter().zip(&b.log_probabilities) {
            assert!((x - y).abs() < 1e-4, "{what}, row {row}: {x} against {y}");
        }
    }
    n_ties
}

#[test]
fn near_ties_are_as_rare_as_their_margin_says() {
    let device = &Device::flex();
    let Network::Partition(model) = &network(&config()) else { unreachable!() };
    let clean = PartitionDenoiser::new(model, device, MASK);
    let settings = SampleSettings { steps: 6, ..SampleSettings::default() };
    let (mut n_ties, mut n_close, mut n_draws) = (0, 0, 0);
    for seed in 0..60 {
        let rows = |n: u64| -> Vec<SampleRequest> {
            (0..n)
                .map(|row| SampleRequest {
                    length: 24,
                    given: vec![(0, 27)],
                    seed: 7 * seed + row,
                    ..SampleRequest::default()
                })
                .collect()
        };
        let together = run(&clean, &rows(7), &settings);
        let alone: Vec<SampledRow> = rows(7).chunks(1).flat_map(|one| run(&clean, one, &settings)).collect();
        n_ties += assert_same("alone", &together, &alone);
        n_draws += together.iter().map(|row| row.margins.len()).sum::<usize>();
        n_close += together.iter().flat_map(|row| &row.margins).filter(|&&margin| margin < 1e-5).count();
    }
    // A margin below 1e-5 has probability 2e-5 for each of 29 boundaries: about six in these 9,660 draws.
    assert_eq!(n_draws, 60 * 7 * 23);
    assert!(n_ties <= n_close && n_close < 20, "{n_ties} ties, {n_close} close draws of {n_draws}");
}

fn every_settings() -> [SampleSettings; 3] {
    let draw = DrawSettings { temperature: 0.9, top_k: 20, top_p: 0.95 };
    [
        SampleSettings { steps: 4, ..SampleSettings::default() },
        SampleSettings { steps: 40, draw, ..SampleSettings::default() },
        SampleSettings { steps: 5, schedule: Schedule::Binomial, ..SampleSettings::default() },
    ]
}

#[test]
fn the_sampling_path_writes_what_the_training_path_writes_alone_and_together() {
    let device = &Device::flex();
    let Network::Partition(model) = &network(&config()) else { unreachable!() };
    let clean = PartitionDenoiser::new(model, device, MASK);
    let full = FullDenoiser::new(model, device, MASK);
    for settings in every_settings() {
        let together = run(&clean, &requests(), &settings);
        assert!(together.iter().all(|row| row.complete));
        let alone: Vec<SampledRow> = requests().chunks(1).flat_map(|one| run(&clean, one, &settings)).collect();
        assert_same("alone", &together, &alone);
        assert_same("training path", &together, &run(&full, &requests(), &settings));
        for (request, row) in requests().iter().zip(&together) {
            assert!(request.given.iter().all(|&(position, token)| row.tokens[position] == token));
        }
    }
}

#[test]
fn samples_of_one_prompt_are_encoded_together_and_stay_what_they_are_alone() {
    let device = &Device::flex();
    let Network::Partition(model) = &network(&config()) else { unreachable!() };
    let clean = PartitionDenoiser::new(model, device, MASK);
    let full = FullDenoiser::new(model, device, MASK);
    let sample_of = |length, given: &[(usize, u32)], seed| SampleRequest {
        length,
        given: given.to_vec(),
        seed,
        ..SampleRequest::default()
    };
    let (a, b, c) = ([(0, 27), (3, 4), (7, 1)], [(0, 27), (2, 5), (9, 6)], [(0, 27), (10, 3)]);
    // Prompts of one length, which are padded, and of several, which are packed; in any order.
    let equal = vec![sample_of(16, &a, 1), sample_of(16, &b, 2), sample_of(16, &a, 3), sample_of(16, &b, 4)];
    let uneven = [&equal[..], &[sample_of(13, &c, 5), sample_of(16, &a, 6), sample_of(13, &c, 7)]].concat();
    let one = (0..5).map(|seed| sample_of(16, &a, seed)).collect::<Vec<_>>();
    for requests in [equal, uneven, one] {
        for settings in every_settings() {
            let together = run(&clean, &requests, &settings);
            let alone: Vec<SampledRow> = requests.chunks(1).flat_map(|one| run(&clean, one, &settings)).collect();
            assert_same("alone", &together, &alone);
            assert_same("training path", &together, &run(&full, &requests, &settings));
        }
    }
}

#[test]
fn the_masked_baseline_writes_the_same_wherever_its_head_runs() {
    let device = &Device::flex();
    let config = config().masked_baseline();
    let Network::Masked(model) = &network(&config) else { unreachable!() };
    let denoiser = |head_at| MaskedDenoiser::new(model, device, MASK, head_at);
    let requests = requests();
    for settings in every_settings() {
        let lean = run(&denoiser(HeadPositions::Decoded), &requests, &settings);
        assert_same("head at every mask", &lean, &run(&denoiser(HeadPositions::Masked), &requests, &settings));
        let alone: Vec<SampledRow> =
            requests.chunks(1).flat_map(|one| run(&denoiser(HeadPositions::Decoded), one, &settings)).collect();
        assert_same("alone", &lean, &alone);
        assert!(lean.iter().all(|row| row.tokens.iter().all(|&token| (token as usize) < MASK)));
    }
}

fn autoregressive() -> (ModelConfig, Network) {
    let backbone = BackboneConfig { cond_dim: 8, ..BackboneConfig::new(VOCAB, 24, 3, 16) };
    let config = ModelConfig::Autoregressive(AutoregressiveConfig { backbone, n_blocks: 3 });
    let network = network(&config);
    (config, network)
}

#[test]
fn a_cached_token_has_the_logits_of_the_whole_sequence() {
    let (_, network) = autoregressive();
    let Network::Autoregressive(model) = &network else { unreachable!() };
    let device = Device::flex();
    // Beyond the trained 16, to see the tables grow.
    let (n_rows, length) = (2, 21);
    let ids: Vec<i32> = (0..n_rows * length).map(|i| (i * 7 % (VOCAB - 1)) as i32).collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(ids, [n_rows, length]), &device);
    let whole = model.forward(tokens.clone());
    // A prefix of several tokens, one token, several at once, then one by one.
    let mut cache = Cache::default();
    for (start, end) in [(0, 5), (5, 6), (6, 10), (10, 11)].into_iter().chain((11..length).map(|i| (i, i + 1))) {
        let cached = model.forward_cached(tokens.clone().narrow(1, start, end - start), &mut cache);
        let expected = whole.clone().narrow(1, end - 1, 1);
        let difference: f32 = (cached - expected).abs().max().into_scalar();
        assert!(difference < 2e-5, "tokens {start}..{end}: {difference:e}");
        assert_eq!(cache.lengths(), [end; 2]);
    }
}

#[test]
fn rows_of_a_cache_join_and_leave_without_changing_each_other() {
    let (_, network) = autoregressive();
    let Network::Autoregressive(model) = &network else { unreachable!() };
    let device = Device::flex();
    let tokens = |ids: &[i32], n_rows: usize| {
        Tensor::<2, Int>::from_data(TensorData::new(ids.to_vec(), [n_rows, ids.len() / n_rows]), &device)
    };
    let read = |ids: &[i32]| {
        let mut cache = Cache::new(1);
        model.forward_cached(tokens(ids, 1), &mut cache);
        cache
    };
    let same = |cached: Tensor<3>, rows: &[&[i32]]| {
        for (index, ids) in rows.iter().enumerate() {
            let whole = model.forward(tokens(ids, 1)).narrow(1, ids.len() - 1, 1);
            let difference: f32 = (cached.clone().narrow(0, index, 1) - whole).abs().max().into_scalar();
            assert!(difference < 2e-5, "{ids:?}: {difference:e}");
        }
    };
    // A row without tokens is among them.
    let mut cache = Cache::concat(&[read(&[1, 2, 3]), Cache::default(), read(&[4]), Cache::new(1)]);
    assert_eq!(cache.lengths(), [3, 1, 0]);
    let logits = model.forward_cached(tokens(&[5, 6, 7], 3), &mut cache);
    same(logits, &[&[1, 2, 3, 5], &[4, 6], &[7]]);
    // The longest leaves, one is taken twice, another joins.
    let mut cache = Cache::concat(&[cache.rows(&[2, 1, 1]), read(&[8, 9, 3, 2])]);
    assert_eq!(cache.lengths(), [1, 2, 2, 4]);
    let logits = model.forward_cached(tokens(&[2, 3, 4, 5], 4), &mut cache);
    same(logits, &[&[7, 2], &[4, 6, 3], &[4, 6, 4], &[8, 9, 3, 2, 5]]);
    // Rows of equal length take several tokens at once.
    let mut cache = cache.rows(&[1, 2]);
    let logits = model.forward_cached(tokens(&[1, 2, 3, 4], 2), &mut cache);
    same(logits, &[&[4, 6, 3, 1, 2], &[4, 6, 4, 3, 4]]);
}

#[test]
fn no_token_depends_on_what_comes_after_it() {
    let (_, network) = autoregressive();
    let Network::Autoregressive(model) = &network else { unreachable!() };
    let logits = |ids: Vec<i32>| {
        let shape = [1, ids.len()];
        model.forward(Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &Device::flex()))
    };
    let before = logits(vec![1, 2, 3, 4, 5, 6, 7]);
    let after = logits(vec![1, 2, 3, 9, 5, 8, 0]);
    let change = (before - after).abs().max_dim(2).try_into_vec_as::<f32>().unwrap();
    assert_eq!(change[..3], [0.0; 3]);
    assert!(change[3..].iter().all(|&change| change > 0.0), "{change:?}");
}

#[test]
fn autoregressive_rows_of_any_prompt_and_length_are_the_same_alone_and_together() {
    let (config, network) = autoregressive();
    let device = Device::flex();
    let source = NetworkHandle { network: &network, config: &config, device: &device };
    let row = |length: usize, n_given: usize, seed| {
        let given = (0..n_given).map(|position| (position, 3 * position as u32 % 20)).collect();
        SampleRequest { length, given, seed, ..SampleRequest::default() }
    };
    let requests = [row(16, 1, 1), row(9, 6, 2), row(23, 3, 3), row(4, 4, 5)];
    for draw in [DrawSettings::default(), DrawSettings { temperature: 0.0, ..DrawSettings::default() }] {
        let settings = SampleSettings { draw, ..SampleSettings::default() };
        let run = |requests: &[SampleRequest]| {
            source.generate(requests, &settings, SamplingPath::Clean, &mut |_| ControlFlow::Continue(())).unwrap().rows
        };
        let together = run(&requests);
        let alone: Vec<SampledRow> = requests.chunks(1).flat_map(run).collect();
        assert_same("alone", &alone, &together);
        for (request, row) in requests.iter().zip(&together) {
            assert!(row.complete && row.tokens.iter().all(|&token| (token as usize) < MASK));
            assert!(request.given.iter().all(|&(position, token)| row.tokens[position] == token));
            assert_eq!(row.order, (request.given.len()..request.length).collect::<Vec<_>>());
        }
    }
    let blank = SampleRequest { length: 8, given: vec![(0, 27), (4, 1)], seed: 0, ..SampleRequest::default() };
    let settings = SampleSettings::default();
    let refused = source.generate(&[blank], &settings, SamplingPath::Clean, &mut |_| ControlFlow::Continue(()));
    assert!(refused.unwrap_err().to_string().contains("only continues a text"));
}

#[test]
fn chunks_of_logits_are_the_logits_at_all_positions() {
    let device = Device::flex();
    let network = network(&config());
    let (few, many): (Vec<usize>, Vec<usize>) = ((1..9).collect(), (1..200).collect());
    for positions in [few, many] {
        let row = CleanRow::new(210, vec![0, 205], vec![27, 3]);
        let (rows, asked) = ([&row; 2], [positions.as_slice(); 2]);
        let whole = logits_at(&network, MASK, &rows, &asked, &device);
        let whole = whole.reshape([2 * positions.len(), VOCAB]);
        let mut next = 0;
        for (range, logits) in
            logit_chunks(hidden_at(&network, MASK, &rows, &asked, &device), |hidden| network.logits(hidden))
        {
            assert_eq!(range.start, next);
            let difference: f32 = (logits - whole.clone().narrow(0, next, range.len())).abs().max().into_scalar();
            assert!(difference < 1e-5 && (positions.len() > 100 || difference == 0.0), "{difference:e}");
            next = range.end;
        }
        assert_eq!(next, 2 * positions.len());
    }
}
