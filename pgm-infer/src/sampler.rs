//! The one sampling loop: how many x which x what.
//!
//! Each row owns its random stream, seeded by the row's seed alone: first the order of its open positions, then, step
//! by step, a count (where the schedule draws one) and one uniform a token. So a row's tokens do not depend on its
//! company, except where rounding in a larger batch moves a logit across the drawn uniform.

use std::ops::ControlFlow;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::denoiser::{Denoiser, RowState};
use crate::draw::DrawSettings;
use crate::logits::Pick;
use crate::{InferError, Schedule};

/// One row to sample: its length, its given tokens, its seed.
#[derive(Clone, Debug)]
pub struct Request {
    /// Tokens of the row in all. Positions beyond are neither decoded nor seen.
    pub length: usize,
    /// Positions and tokens that are clean from the start, BOS at position 0 among them.
    pub given: Vec<(usize, u32)>,
    /// Seed of the row's random stream.
    pub seed: u64,
}

/// How to sample.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Steps; fewer than the open positions decode several at once, more leave some steps empty.
    pub steps: usize,
    /// How many positions a step decodes.
    pub schedule: Schedule,
    /// How a token is drawn.
    pub draw: DrawSettings,
}

/// One sampled row.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// All tokens, by position. Positions that a stopped run left open hold the mask.
    pub tokens: Vec<u32>,
    /// Decoded positions in the order in which they came.
    pub order: Vec<usize>,
    /// Log-probability of each decoded token when it was drawn, in nats, in that order.
    pub log_probabilities: Vec<f64>,
    /// How clearly each token won, the gap between its Gumbel score and the next; below 1e-5 rounding may have chosen.
    pub margins: Vec<f64>,
    /// Whether every position is decoded.
    pub complete: bool,
}

/// What a callback sees after each step.
#[derive(Debug)]
pub struct StepView<'a> {
    /// Steps done so far.
    pub step: usize,
    /// Steps in all.
    pub n_steps: usize,
    /// Network evaluations so far.
    pub n_evaluations: usize,
    /// Positions and tokens decoded by this step, for each row.
    pub decoded: &'a [Vec<(usize, u32)>],
}

/// The rows, and how many network evaluations they took.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// One for each request.
    pub rows: Vec<Sampled>,
    /// Network evaluations.
    pub n_evaluations: usize,
}

struct Row {
    state: RowState,
    // Open positions, to be decoded from the end.
    queue: Vec<usize>,
    n_open: usize,
    log_probabilities: Vec<f64>,
    margins: Vec<f64>,
    rng: ChaCha8Rng,
}

impl Row {
    fn new(request: &Request) -> Result<Self, InferError> {
        let mut is_open = vec![true; request.length];
        for &(position, _) in &request.given {
            match is_open.get_mut(position) {
                Some(open) if *open => *open = false,
                Some(_) => return Err(InferError::Request(format!("position {position} is given twice"))),
                None => {
                    let message = format!("position {position} is given, but the row has {} tokens", request.length);
                    return Err(InferError::Request(message));
                }
            }
        }
        let mut rng = ChaCha8Rng::seed_from_u64(request.seed);
        let mut queue: Vec<usize> = (0..request.length).filter(|&position| is_open[position]).collect();
        queue.shuffle(&mut rng);
        let (positions, tokens) = request.given.iter().copied().unzip();
        let n_open = queue.len();
        let state = RowState { length: request.length, positions, tokens };
        Ok(Self { state, queue, n_open, log_probabilities: Vec::new(), margins: Vec::new(), rng })
    }

    fn finish(self, mask_index: usize) -> Sampled {
        let mut tokens = vec![mask_index as u32; self.state.length];
        for (&position, &token) in self.state.positions.iter().zip(&self.state.tokens) {
            tokens[position] = token;
        }
        let n_given = self.state.length - self.n_open;
        Sampled {
            tokens,
            order: self.state.positions[n_given..].to_vec(),
            log_probabilities: self.log_probabilities,
            margins: self.margins,
            complete: self.queue.is_empty(),
        }
    }
}

/// Samples all requests together. `observe` runs after each step and can stop the run, which then returns what it has.
///
/// A step that decodes nothing costs no evaluation.
///
/// # Errors
/// [`InferError::Setting`] and [`InferError::Request`] for what cannot be done, [`InferError::Device`] when the
/// device fails.
pub fn sample(
    denoiser: &dyn Denoiser,
    requests: &[Request],
    settings: &Settings,
    observe: &mut dyn FnMut(&StepView) -> ControlFlow<()>,
) -> Result<Outcome, InferError> {
    settings.draw.validate()?;
    if settings.steps == 0 {
        return Err(InferError::Setting { name: "--steps", value: "0".into(), problem: "must be at least 1" });
    }
    let mut rows = requests.iter().map(Row::new).collect::<Result<Vec<_>, _>>()?;
    let n_steps = settings.schedule.n_steps(settings.steps);
    let mut n_evaluations = 0;
    for step in 0..n_steps {
        if rows.iter().all(|row| row.queue.is_empty()) {
            break;
        }
        // Take this step's positions off each row's queue; only rows that decode something are evaluated.
        let mut active = Vec::new();
        let mut taken = Vec::new();
        for (index, row) in rows.iter_mut().enumerate() {
            let count = settings.schedule.count(step, settings.steps, row.n_open, row.queue.len(), &mut row.rng);
            if count > 0 {
                taken.push(row.queue.split_off(row.queue.len() - count));
                active.push(index);
            }
        }
        let mut decoded = vec![Vec::new(); rows.len()];
        if !active.is_empty() {
            let states: Vec<&RowState> = active.iter().map(|&index| &rows[index].state).collect();
            let positions: Vec<&[usize]> = taken.iter().map(Vec::as_slice).collect();
            let logits = denoiser.logits(&states, &positions)?;
            n_evaluations += 1;
            // One uniform for each token, taken in order from the row's own stream.
            let mut picks = Vec::new();
            for (place, &index) in active.iter().enumerate() {
                let rng = &mut rows[index].rng;
                picks.extend((0..taken[place].len()).map(|k| Pick { row: place, index: k, uniform: rng.random() }));
            }
            let drawn = logits.draw(&picks, denoiser.mask_index(), &settings.draw)?;
            for (pick, drawn) in picks.iter().zip(drawn) {
                let (index, position) = (active[pick.row], taken[pick.row][pick.index]);
                let (row, token) = (&mut rows[index], drawn.class as u32);
                row.state.positions.push(position);
                row.state.tokens.push(token);
                row.log_probabilities.push(drawn.log_probability);
                row.margins.push(drawn.margin);
                decoded[index].push((position, token));
            }
        }
        let view = StepView { step: step + 1, n_steps, n_evaluations, decoded: &decoded };
        if observe(&view).is_break() {
            break;
        }
    }
    let mask_index = denoiser.mask_index();
    Ok(Outcome { rows: rows.into_iter().map(|row| row.finish(mask_index)).collect(), n_evaluations })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Logits;
    use proptest::prelude::*;
    use std::cell::RefCell;

    const CLASSES: usize = 7;

    /// Logits are a hash of the position and of the clean set, order left out; remembers what it was asked.
    #[derive(Default)]
    struct Fake {
        asked: RefCell<Vec<usize>>,
    }

    impl Denoiser for Fake {
        fn logits(&self, rows: &[&RowState], positions: &[&[usize]]) -> Result<Logits, InferError> {
            let n_positions = positions.iter().map(|row| row.len()).max().unwrap_or(0);
            let mut values = vec![f32::NAN; rows.len() * n_positions * CLASSES];
            for (row, (state, positions)) in rows.iter().zip(positions).enumerate() {
                let pairs = state.positions.iter().zip(&state.tokens);
                let clean: usize = pairs.map(|(&p, &t)| (p + 1) * (t as usize + 3)).sum();
                for (index, &position) in positions.iter().enumerate() {
                    assert!(!state.positions.contains(&position), "position {position} is decoded already");
                    self.asked.borrow_mut().push(position);
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
    }

    fn requests() -> impl Strategy<Value = Vec<Request>> {
        let row = (1..30_usize, any::<u64>(), any::<u64>()).prop_map(|(length, seed, pattern)| {
            let is_given = |position: &usize| *position == 0 || pattern >> (position % 64) & 3 == 0;
            let given = (0..length).filter(is_given).map(|position| (position, position as u32 % 5)).collect();
            Request { length, given, seed }
        });
        prop::collection::vec(row, 1..5)
    }

    fn settings() -> impl Strategy<Value = Settings> {
        let schedule = prop_oneof![Just(Schedule::Uniform), Just(Schedule::Binomial)];
        let draw = prop_oneof![
            Just(DrawSettings::default()),
            Just(DrawSettings { temperature: 0.0, ..DrawSettings::default() }),
            Just(DrawSettings { temperature: 0.7, top_k: 3, top_p: 0.9 }),
        ];
        (1..40_usize, schedule, draw).prop_map(|(steps, schedule, draw)| Settings { steps, schedule, draw })
    }

    fn run(requests: &[Request], settings: &Settings) -> (Outcome, Vec<usize>) {
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
            prop_assert_eq!(asked.len(), n_open, "no position is computed twice");
            prop_assert!(outcome.n_evaluations <= settings.schedule.n_steps(settings.steps));
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

    fn request(length: usize, seed: u64) -> Request {
        Request { length, given: vec![(0, 0)], seed }
    }

    #[test]
    fn seeds_differ_and_repeat() {
        let settings = Settings { steps: 5, ..Settings::default() };
        let tokens = |seed| run(&[request(40, seed)], &settings).0.rows[0].tokens.clone();
        assert_eq!(tokens(1), tokens(1));
        assert_ne!(tokens(1), tokens(2));
    }

    #[test]
    fn empty_steps_cost_no_evaluation_and_a_callback_stops_the_run() {
        let settings = Settings { steps: 500, ..Settings::default() };
        assert_eq!(run(&[request(11, 3)], &settings).0.n_evaluations, 10);
        let settings = Settings { steps: 5, ..Settings::default() };
        let mut seen = Vec::new();
        let outcome = sample(&Fake::default(), &[request(11, 3)], &settings, &mut |view| {
            seen.extend(view.decoded[0].clone());
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
        let ask = |request: Request, steps| {
            let settings = Settings { steps, ..Settings::default() };
            let observe = &mut |_: &StepView| ControlFlow::Continue(());
            sample(&Fake::default(), &[request], &settings, observe).unwrap_err().to_string()
        };
        assert!(ask(request(4, 0), 0).contains("--steps 0"));
        let twice = Request { given: vec![(0, 1), (0, 2)], ..request(4, 0) };
        assert!(ask(twice, 1).contains("position 0 is given twice"));
        let outside = Request { given: vec![(4, 1)], ..request(4, 0) };
        assert!(ask(outside, 1).contains("position 4 is given, but the row has 4 tokens"));
    }
}
