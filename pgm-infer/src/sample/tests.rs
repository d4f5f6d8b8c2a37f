//! The loop against a fake network.

use std::cell::RefCell;
use std::ops::ControlFlow;

use proptest::prelude::*;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::draw::DrawnToken;
use super::logits::{PositionReading, finish};
use super::order::{Candidate, CandidateLimit, Order, OrderContext, OrderKind, Progress};
use super::*;
use crate::InferError;

const CLASSES: usize = 7;

/// Logits are a hash of the position and of the clean set, its order left out; records the positions.
#[derive(Default)]
struct Fake {
    asked: RefCell<Vec<usize>>,
    // A position whose logits are NaN.
    damaged: Option<usize>,
}

impl Denoiser for Fake {
    fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits<'_>, InferError> {
        let n_positions = positions.iter().map(|row| row.len()).max().unwrap_or(0);
        let mut values = vec![f32::NAN; rows.len() * n_positions * CLASSES];
        for (row, (state, positions)) in rows.iter().zip(positions).enumerate() {
            let pairs = state.positions.iter().zip(&state.tokens);
            let clean: usize = pairs.map(|(&p, &t)| (p + 1) * (t as usize + 3)).sum();
            for (index, &position) in positions.iter().enumerate() {
                assert!(!state.positions.contains(&position), "position {position} is decoded already");
                self.asked.borrow_mut().push(position);
                if self.damaged == Some(position) {
                    continue;
                }
                for class in 0..CLASSES {
                    let hash = (position * 31 + class * 17 + clean * 7) % 23;
                    values[(row * n_positions + index) * CLASSES + class] = hash as f32 / 9.0;
                }
            }
        }
        Ok(Logits::from_host(values, n_positions, CLASSES))
    }

    fn mask_index(&self) -> usize {
        CLASSES - 1
    }

    fn excluded_classes(&self) -> &[usize] {
        &[CLASSES - 1]
    }
}

fn requests() -> impl Strategy<Value = Vec<SampleRequest>> {
    let row = (1..30_usize, any::<u64>(), any::<u64>()).prop_map(|(length, seed, pattern)| {
        let is_given = |position: &usize| *position == 0 || pattern >> (position % 64) & 3 == 0;
        let given = (0..length).filter(is_given).map(|position| (position, position as u32 % 5)).collect();
        SampleRequest { length, given, seed, ..SampleRequest::default() }
    });
    prop::collection::vec(row, 1..5)
}

fn settings() -> impl Strategy<Value = SampleSettings> {
    let schedule = prop_oneof![
        Just(Schedule::Uniform),
        Just(Schedule::Binomial),
        Just(Schedule::Curve(Curve::Arccos)),
        Just(Schedule::CurveFromZero(Curve::Cosine)),
    ];
    let draw = prop_oneof![
        Just(DrawSettings::default()),
        Just(DrawSettings { temperature: 0.0, ..DrawSettings::default() }),
        Just(DrawSettings { temperature: 0.7, top_k: 3, top_p: 0.9 }),
    ];
    let order = prop::sample::select(&OrderKind::NAMES[..]).prop_map(|name| name.parse::<OrderKind>().unwrap());
    let looked = prop_oneof![Just(CandidateLimit::All), (1..9_usize).prop_map(CandidateLimit::Some)];
    (1..40_usize, schedule, order, looked, draw).prop_map(|(steps, schedule, order, looked, draw)| SampleSettings {
        steps,
        schedule,
        order: order.with_candidates(looked),
        draw,
        ..SampleSettings::default()
    })
}

fn run(requests: &[SampleRequest], settings: &SampleSettings) -> (SampleOutput, Vec<usize>) {
    let fake = Fake::default();
    let outcome = sample(&fake, requests, settings, &mut |_| ControlFlow::Continue(())).unwrap();
    (outcome, fake.asked.into_inner())
}

proptest! {
    #[test]
    fn every_open_position_is_decoded_once_and_given_tokens_stay(
        requests in requests(), settings in settings()
    ) {
        let (outcome, asked) = run(&requests, &settings);
        let mut n_open = 0;
        for (request, row) in requests.iter().zip(&outcome.rows) {
            prop_assert!(row.complete);
            let kept = request.given.iter().all(|&(position, token)| row.tokens[position] == token);
            prop_assert!(kept && row.tokens.iter().all(|&token| token < CLASSES as u32 - 1));
            let mut order = row.order.clone();
            order.sort_unstable();
            let open: Vec<usize> =
                (0..request.length).filter(|p| request.given.iter().all(|(q, _)| q != p)).collect();
            prop_assert_eq!(&order, &open);
            prop_assert!(row.log_probabilities.len() == open.len() && row.log_probabilities.iter().all(|l| *l <= 0.0));
            n_open += open.len();
        }
        match settings.order {
            OrderKind::EntropyBounded { .. } => prop_assert!(outcome.n_evaluations <= n_open),
            OrderKind::Confidence(_) | OrderKind::Margin(_) | OrderKind::Entropy(_) | OrderKind::Remask { .. } => {
                prop_assert!(outcome.n_evaluations <= settings.schedule.n_steps(settings.steps));
            }
            _ => {
                prop_assert_eq!(asked.len(), n_open, "no position is computed twice");
                prop_assert!(outcome.n_evaluations <= settings.schedule.n_steps(settings.steps));
            }
        }
    }

    #[test]
    fn a_rows_tokens_are_the_same_alone_and_in_a_batch(requests in requests(), settings in settings()) {
        let (together, _) = run(&requests, &settings);
        for (request, row) in requests.iter().zip(&together.rows) {
            let (alone, _) = run(std::slice::from_ref(request), &settings);
            prop_assert_eq!(&alone.rows[0], row);
        }
    }
}

proptest! {
    #[test]
    fn rows_that_join_and_leave_a_batch_between_steps_get_the_tokens_they_get_alone(
        rows in prop::collection::vec((requests(), settings(), 0..12_usize), 1..6)
    ) {
        let rows: Vec<(SampleRequest, SampleSettings, usize)> =
            rows.into_iter().map(|(mut requests, settings, when)| (requests.remove(0), settings, when)).collect();
        let fake = Fake::default();
        let mut running: Vec<(usize, SampleRow)> = Vec::new();
        let mut found: Vec<Option<SampledRow>> = vec![None; rows.len()];
        for step in 0.. {
            for (index, (request, settings, when)) in rows.iter().enumerate() {
                if *when == step {
                    running.push((index, SampleRow::new(request, settings).unwrap()));
                }
            }
            let mut together: Vec<&mut SampleRow> = running.iter_mut().map(|(_, row)| row).collect();
            advance(&fake, &mut together).unwrap();
            for (index, row) in running.extract_if(.., |(_, row)| row.is_done()) {
                found[index] = Some(row.sampled(CLASSES - 1));
            }
            if step > 12 && running.is_empty() {
                break;
            }
        }
        for ((request, settings, _), found) in rows.iter().zip(&found) {
            let (alone, _) = run(std::slice::from_ref(request), settings);
            prop_assert_eq!(Some(&alone.rows[0]), found.as_ref());
        }
    }
}

// Breaks the contract of an order.
struct Wrong(fn(&OrderContext<'_>) -> Vec<usize>, Vec<usize>);

impl Order for Wrong {
    fn candidates(&mut self, context: &OrderContext<'_>, _rng: &mut dyn rand::Rng) -> Vec<usize> {
        (self.0)(context)
    }

    fn select(&mut self, _context: &OrderContext<'_>, _drawn: &[Candidate]) -> Vec<usize> {
        self.1.clone()
    }
}

#[test]
fn an_order_that_breaks_its_contract_is_an_error() {
    let ask = |candidates: fn(&OrderContext<'_>) -> Vec<usize>, selected: &[usize]| {
        let settings = SampleSettings { steps: 2, ..SampleSettings::default() };
        let selected = selected.to_vec();
        let mut row =
            SampleRow::with_order(&request(6, 0), &settings, move |_| Box::new(Wrong(candidates, selected))).unwrap();
        let changes = advance(&Fake::default(), &mut [&mut row]).unwrap().changes;
        assert!(row.is_done());
        changes.into_iter().next().unwrap().unwrap_err().to_string()
    };
    assert!(ask(|_| vec![0], &[0]).contains("open positions"), "position 0 is given");
    assert!(ask(|_| vec![2, 2], &[0]).contains("open positions"));
    assert!(ask(|_| Vec::new(), &[0]).contains("open positions"));
    assert!(ask(|context| context.open.to_vec(), &[]).contains("select some"));
    assert!(ask(|context| context.open.to_vec(), &[9]).contains("select some"));
    assert!(ask(|context| context.open.to_vec(), &[1, 0, 1]).contains("twice"));
}

fn request(length: usize, seed: u64) -> SampleRequest {
    SampleRequest { length, given: vec![(0, 0)], seed, ..SampleRequest::default() }
}

#[test]
fn seeds_differ_and_repeat() {
    let settings = SampleSettings { steps: 5, ..SampleSettings::default() };
    let tokens = |seed| run(&[request(40, seed)], &settings).0.rows[0].tokens.clone();
    assert_eq!(tokens(1), tokens(1));
    assert_ne!(tokens(1), tokens(2));
}

#[test]
fn empty_steps_cost_no_evaluation_and_a_callback_stops_the_run() {
    let settings = SampleSettings { steps: 500, ..SampleSettings::default() };
    assert_eq!(run(&[request(11, 3)], &settings).0.n_evaluations, 10);
    let settings = SampleSettings { steps: 5, ..SampleSettings::default() };
    let mut seen = Vec::new();
    let outcome = sample(&Fake::default(), &[request(11, 3)], &settings, &mut |view| {
        seen.extend(view.changes[0].decoded.clone());
        if view.step == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    let row = &outcome.rows[0];
    assert!(!row.complete && row.order.len() == 4 && outcome.n_evaluations == 2);
    assert_eq!(seen.iter().map(|(position, _)| *position).collect::<Vec<_>>(), row.order);
    assert_eq!(row.tokens.iter().filter(|&&token| token == 6).count(), 6, "open positions hold the mask");
}

#[test]
fn impossible_requests_are_named() {
    let ask = |request: SampleRequest, steps| {
        let settings = SampleSettings { steps, ..SampleSettings::default() };
        let observe = &mut |_: &StepView| ControlFlow::Continue(());
        sample(&Fake::default(), &[request], &settings, observe).unwrap_err().to_string()
    };
    assert!(ask(request(4, 0), 0).contains("--steps 0"));
    let twice = SampleRequest { given: vec![(0, 1), (0, 2)], ..request(4, 0) };
    assert!(ask(twice, 1).contains("position 0 is given twice"));
    let outside = SampleRequest { given: vec![(4, 1)], ..request(4, 0) };
    assert!(ask(outside, 1).contains("position 4 is given, but the row has 4 tokens"));
}

#[test]
fn a_reopened_position_is_decoded_in_a_later_step() {
    for schedule in [Schedule::Uniform, Schedule::Binomial, Schedule::Curve(Curve::Arccos)] {
        let settings =
            SampleSettings { steps: 20, schedule, order: OrderKind::Remask { rate: 0.5 }, ..SampleSettings::default() };
        let mut n_forgotten = 0;
        let outcome = sample(&Fake::default(), &[request(65, 1)], &settings, &mut |view| {
            let RowChange { decoded, forgotten, .. } = &view.changes[0];
            n_forgotten += forgotten.len();
            assert!(decoded.iter().all(|(position, _)| !forgotten.contains(position)), "{decoded:?} {forgotten:?}");
            ControlFlow::Continue(())
        });
        assert!(outcome.unwrap().rows[0].complete && n_forgotten > 20, "{schedule:?}: {n_forgotten}");
    }
}

// Selects one candidate whatever the schedule wants.
struct OneByOne;

impl Order for OneByOne {
    fn candidates(&mut self, context: &OrderContext<'_>, _rng: &mut dyn rand::Rng) -> Vec<usize> {
        context.open[..context.n_to_decode].to_vec()
    }

    fn select(&mut self, _context: &OrderContext<'_>, _drawn: &[Candidate]) -> Vec<usize> {
        vec![0]
    }

    // Would never end if it were asked after the planned steps.
    fn remask(&mut self, context: &OrderContext<'_>, _rng: &mut dyn rand::Rng) -> Vec<usize> {
        context.decoded.first().copied().into_iter().collect()
    }
}

#[test]
fn an_order_that_selects_too_few_gets_further_steps_until_the_row_is_complete() {
    for schedule in [Schedule::Uniform, Schedule::Binomial] {
        let settings = SampleSettings { steps: 3, schedule, ..SampleSettings::default() };
        let mut row = SampleRow::with_order(&request(9, 1), &settings, move |_| Box::new(OneByOne)).unwrap();
        while !row.is_done() {
            let changes = advance(&Fake::default(), &mut [&mut row]).unwrap().changes;
            assert!(changes[0].is_ok() && row.step() <= row.n_steps() && row.step() < 20);
        }
        let sampled = row.sampled(CLASSES - 1);
        assert!(sampled.complete && sampled.order.len() == 8, "{sampled:?}");
    }
}

// Records the progress of each step.
struct Recorder(std::sync::mpsc::Sender<(f64, f64, usize)>);

impl Order for Recorder {
    fn candidates(&mut self, context: &OrderContext<'_>, _rng: &mut dyn rand::Rng) -> Vec<usize> {
        self.0.send((context.progress.from, context.progress.to, context.decoded.len())).unwrap();
        context.open[..context.n_to_decode].to_vec()
    }
}

#[test]
fn an_order_knows_the_share_of_steps_done_and_what_is_decoded() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let settings = SampleSettings { steps: 4, ..SampleSettings::default() };
    let mut row = SampleRow::with_order(&request(9, 1), &settings, move |_| Box::new(Recorder(sender))).unwrap();
    while !row.is_done() {
        advance(&Fake::default(), &mut [&mut row]).unwrap();
    }
    drop(row);
    let seen: Vec<_> = receiver.iter().collect();
    assert_eq!(seen, [(0.0, 0.25, 0), (0.25, 0.5, 2), (0.5, 0.75, 4), (0.75, 1.0, 6)]);
}

// Tells its progress and decodes one token a step.
struct Slow(std::sync::mpsc::Sender<Progress>, bool);

impl Order for Slow {
    fn candidates(&mut self, context: &OrderContext<'_>, _rng: &mut dyn rand::Rng) -> Vec<usize> {
        self.0.send(context.progress).unwrap();
        context.open[..1].to_vec()
    }

    fn chooses_count(&self) -> bool {
        self.1
    }
}

#[test]
fn progress_stays_in_bounds_whatever_an_order_decodes() {
    let progress = |settings: SampleSettings, start: fn(std::sync::mpsc::Sender<Progress>) -> Box<dyn Order>| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let mut row = SampleRow::with_order(&request(9, 1), &settings, move |_| start(sender)).unwrap();
        while !row.is_done() {
            advance(&Fake::default(), &mut [&mut row]).unwrap();
        }
        drop(row);
        receiver.iter().map(|Progress { from, to }| (from, to)).collect::<Vec<_>>()
    };
    let eighths = |n: usize| (0..n).map(|step| (step as f64 / 8.0, (step + 1) as f64 / 8.0)).collect::<Vec<_>>();
    let steps = |steps| SampleSettings { steps, ..SampleSettings::default() };
    // After two planned steps it needs six more.
    let late = progress(steps(2), |sender| Box::new(Slow(sender, false)));
    assert_eq!(late, [&[(0.0, 0.5), (0.5, 1.0)][..], &[(1.0, 1.0); 6]].concat());
    // An order that chooses its own count plans a step for each of the 8 positions.
    assert_eq!(progress(steps(2), |sender| Box::new(Slow(sender, true))), eighths(8));
    // Empty steps count, and the binomial schedule has one step more.
    let empty = progress(steps(16), |sender| Box::new(Slow(sender, false)));
    assert_eq!(empty, (0..8).map(|step| (step as f64 / 8.0, (step as f64 + 0.5) / 8.0)).collect::<Vec<_>>());
    let binomial = SampleSettings { schedule: Schedule::Binomial, ..steps(7) };
    let binomial = progress(binomial, |sender| Box::new(Slow(sender, false)));
    assert!(binomial.iter().all(|step| eighths(8).contains(step) || *step == (1.0, 1.0)), "{binomial:?}");
}

// Draws at the first open positions, and throws its own dice or the row's before each step and each selection.
struct Dice {
    own: Option<ChaCha8Rng>,
    thrown: Vec<u64>,
}

impl Order for Dice {
    fn candidates(&mut self, context: &OrderContext<'_>, rng: &mut dyn rand::Rng) -> Vec<usize> {
        self.thrown.push(self.own.as_mut().map_or_else(|| rng.random(), RngExt::random));
        context.open[..context.n_to_decode].to_vec()
    }

    fn select(&mut self, _context: &OrderContext<'_>, drawn: &[Candidate]) -> Vec<usize> {
        let thrown: Option<u64> = self.own.as_mut().map(RngExt::random);
        self.thrown.extend(thrown);
        (0..drawn.len()).collect()
    }
}

fn reading(class: usize) -> PositionReading {
    let token = DrawnToken { class, log_probability: -1.0, margin: 0.5 };
    PositionReading { token: Some(token), ..PositionReading::default() }
}

#[test]
fn an_order_with_its_own_generator_leaves_the_tokens_uniforms_unchanged() {
    let settings = SampleSettings { steps: 4, order: OrderKind::Sequential, ..SampleSettings::default() };
    let uniforms = |mut row: SampleRow| {
        let mut uniforms = Vec::new();
        while !row.is_done() {
            let step = row.begin().unwrap();
            uniforms.push(step.uniforms.clone());
            let readings = step.positions.iter().map(|_| reading(2)).collect();
            row.end(step, readings).unwrap();
        }
        uniforms
    };
    let plain = uniforms(SampleRow::new(&request(9, 3), &settings).unwrap());
    let with = |has_own: bool| {
        let row = SampleRow::with_order(&request(9, 3), &settings, move |start| {
            Box::new(Dice { own: has_own.then(|| start.independent_rng()), thrown: Vec::new() })
        });
        uniforms(row.unwrap())
    };
    assert_eq!(plain.concat().len(), 8);
    assert_eq!(with(true), plain);
    assert_ne!(with(false), plain, "the row's own stream is moved");
}

#[test]
fn logits_that_are_not_numbers_are_an_error_of_their_row_alone() {
    let fake = Fake { damaged: Some(5), ..Fake::default() };
    let settings = SampleSettings { steps: 1, ..SampleSettings::default() };
    let mut rows = [request(9, 1), request(4, 2)].map(|request| SampleRow::new(&request, &settings).unwrap());
    let changes = advance(&fake, &mut rows.each_mut()).unwrap().changes;
    assert!(matches!(changes[0], Err(InferError::NotFinite { position: 5 })), "{changes:?}");
    assert!(changes[1].is_ok() && rows.iter().all(SampleRow::is_done));
}

#[test]
fn the_awaited_step_does_what_the_blocking_step_does() {
    let settings = SampleSettings { steps: 5, ..SampleSettings::default() };
    let [mut a, mut b] = [(); 2].map(|()| SampleRow::new(&request(17, 3), &settings).unwrap());
    while !a.is_done() {
        let blocking = advance(&Fake::default(), &mut [&mut a]).unwrap();
        let awaited = finish(advance_async(&Fake::default(), &mut [&mut b])).unwrap();
        assert_eq!(blocking.changes[0].as_ref().unwrap(), awaited.changes[0].as_ref().unwrap());
    }
    assert_eq!(a.sampled(CLASSES - 1), b.sampled(CLASSES - 1));
}
