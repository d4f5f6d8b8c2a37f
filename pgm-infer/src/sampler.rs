//! The one sampling loop: how many x which x what.
//!
//! Each row owns its random stream, seeded by the row's seed alone: first what its order needs, then, step by step, a
//! count (where the schedule draws one) and one uniform for each position that is looked at. So a row's tokens do not depend
//! on its company, except where rounding in a larger batch moves a logit across the drawn uniform: rows with settings of
//! their own join and leave a batch between any two steps ([`advance`]).

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::denoiser::{CleanRow, Denoiser};
use crate::draw::{DrawSettings, DrawnToken};
use crate::error::said_by;
use crate::logits::{PositionDraw, Top};
use crate::order::{Candidate, LogitStats, Order, OrderContext, OrderKind};
use crate::{InferError, Schedule};

/// One row to sample: its length, its given tokens, its seed.
#[derive(Clone, Debug)]
pub struct SampleRequest {
    /// Tokens of the row in all. Positions beyond are neither decoded nor seen.
    pub length: usize,
    /// Positions and tokens that are clean from the start, BOS at position 0 among them.
    pub given: Vec<(usize, u32)>,
    /// Seed of the row's random stream.
    pub seed: u64,
}

/// How to sample.
#[derive(Clone, Copy, Debug, Default)]
pub struct SampleSettings {
    /// Steps; fewer than the open positions decode several at once, more leave some steps empty.
    pub steps: usize,
    /// How many positions a step decodes.
    pub schedule: Schedule,
    /// Which ones.
    pub order: OrderKind,
    /// How a token is drawn.
    pub draw: DrawSettings,
    /// How many of the most probable tokens are reported beside each drawn one.
    pub alternatives: usize,
}

impl SampleSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// [`InferError::Setting`] naming the flag.
    pub fn validate(&self) -> Result<(), InferError> {
        self.draw.validate()?;
        let wrong = |name, value: String, problem| Err(InferError::Setting { name, value, problem });
        match self.order {
            _ if self.steps == 0 => wrong("--steps", "0".into(), "must be at least 1"),
            OrderKind::EntropyBounded { bound, .. } if bound.is_nan() || bound < 0.0 => {
                wrong("--entropy-bound", bound.to_string(), "must be 0 or more")
            }
            OrderKind::Remask { rate } if !(0.0..=1.0).contains(&rate) => {
                wrong("--remask-rate", rate.to_string(), "must lie between 0 and 1")
            }
            _ => Ok(()),
        }
    }
}

/// One sampled row.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledRow {
    /// All tokens, by position. Positions that a stopped run left open hold the mask.
    pub tokens: Vec<u32>,
    /// Decoded positions in the order in which they came.
    pub order: Vec<usize>,
    /// Log-probability of each decoded token when it was drawn, in nats, in that order.
    pub log_probabilities: Vec<f64>,
    /// How clearly each token won, the gap between its Gumbel score and the next; below 1e-5 rounding may have chosen.
    pub margins: Vec<f64>,
    /// The most probable tokens at each of these positions and their log-probabilities, the best first, if asked for.
    pub alternatives: Vec<Vec<(u32, f64)>>,
    /// Whether every position is decoded.
    pub complete: bool,
}

/// What a callback sees after each step.
#[derive(Debug)]
pub struct StepView<'a> {
    /// Steps done so far.
    pub step: usize,
    /// Steps in all; an order that sets its own pace may need fewer.
    pub n_steps: usize,
    /// Network evaluations so far.
    pub n_evaluations: usize,
    /// What this step did to each row.
    pub changes: &'a [RowChange],
}

/// The rows, and how many network evaluations they took.
#[derive(Clone, Debug)]
pub struct SampleOutput {
    /// One for each request.
    pub rows: Vec<SampledRow>,
    /// Network evaluations.
    pub n_evaluations: usize,
}

/// A row while it is sampled.
pub struct SampleRow {
    state: CleanRow,
    n_given: usize,
    // Open positions, ascending.
    open: Vec<usize>,
    n_open: usize,
    order: Guarded,
    schedule: Schedule,
    draw: DrawSettings,
    steps: usize,
    step: usize,
    log_probabilities: Vec<f64>,
    margins: Vec<f64>,
    n_alternatives: usize,
    alternatives: Vec<Vec<(u32, f64)>>,
    failed: bool,
    rng: ChaCha8Rng,
}

// An order as a row asks it. It may be foreign: what it panics over is an error of its row.
struct Guarded {
    // Taken only as it goes.
    order: Option<Box<dyn Order>>,
    needs_stats: bool,
    chooses_count: bool,
}

impl Guarded {
    fn new(start: impl FnOnce() -> Box<dyn Order>) -> Result<Self, InferError> {
        caught(|| {
            let order = start();
            let (needs_stats, chooses_count) = (order.needs_stats(), order.chooses_count());
            Self { order: Some(order), needs_stats, chooses_count }
        })
    }

    fn ask<T>(&mut self, question: impl FnOnce(&mut dyn Order) -> T) -> Result<T, InferError> {
        let Some(order) = &mut self.order else { unreachable!("it has not gone") };
        caught(|| question(order.as_mut()))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let order = self.order.take();
        let _ = caught(|| drop(order));
    }
}

fn caught<T>(work: impl FnOnce() -> T) -> Result<T, InferError> {
    let panicked = |panic: Box<dyn std::any::Any + Send>| {
        InferError::Request(format!("the order of decoding panicked: {}", said_by(&*panic)))
    };
    catch_unwind(AssertUnwindSafe(work)).map_err(panicked)
}

impl std::fmt::Debug for SampleRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SampleRow").field("step", &self.step).field("open", &self.open).finish_non_exhaustive()
    }
}

/// What a step did to one row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowChange {
    /// Positions and tokens that it decoded.
    pub decoded: Vec<(usize, u32)>,
    /// Their log-probabilities, in nats.
    pub log_probabilities: Vec<f64>,
    /// The most probable tokens at each and their log-probabilities, the best first, if asked for.
    pub alternatives: Vec<Vec<(u32, f64)>>,
    /// Positions that it opened again.
    pub forgotten: Vec<usize>,
}

impl SampleRow {
    /// A row about to be sampled.
    ///
    /// # Errors
    /// [`InferError::Setting`] and [`InferError::Request`] for what cannot be done.
    pub fn new(request: &SampleRequest, settings: &SampleSettings) -> Result<Self, InferError> {
        Self::with_order(request, settings, |open, rng| settings.order.start(open, rng))
    }

    /// The same in an order of one's own, which `start` makes of the open positions and the row's random stream.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_order(
        request: &SampleRequest,
        settings: &SampleSettings,
        start: impl FnOnce(&[usize], &mut ChaCha8Rng) -> Box<dyn Order>,
    ) -> Result<Self, InferError> {
        settings.validate()?;
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
        let open: Vec<usize> = (0..request.length).filter(|&position| is_open[position]).collect();
        let order = Guarded::new(|| start(&open, &mut rng))?;
        let (positions, tokens): (Vec<_>, Vec<_>) = request.given.iter().copied().unzip();
        Ok(Self {
            n_given: positions.len(),
            n_open: open.len(),
            state: CleanRow { length: request.length, positions, tokens },
            open,
            order,
            schedule: settings.schedule,
            draw: settings.draw,
            steps: settings.steps,
            step: 0,
            log_probabilities: Vec::new(),
            margins: Vec::new(),
            n_alternatives: settings.alternatives,
            alternatives: Vec::new(),
            failed: false,
            rng,
        })
    }

    /// Steps done so far.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Steps in all; an order that sets its own pace may need fewer.
    pub fn n_steps(&self) -> usize {
        if self.order.chooses_count { self.n_open } else { self.schedule.n_steps(self.steps) }
    }

    /// Whether nothing is left to do.
    pub fn is_done(&self) -> bool {
        self.failed || self.open.is_empty() || self.step >= self.n_steps()
    }

    /// The row as it stands; what is open holds the mask.
    pub fn sampled(&self, mask_index: usize) -> SampledRow {
        let mut tokens = vec![mask_index as u32; self.state.length];
        for (&position, &token) in self.state.positions.iter().zip(&self.state.tokens) {
            tokens[position] = token;
        }
        SampledRow {
            tokens,
            order: self.state.positions[self.n_given..].to_vec(),
            log_probabilities: self.log_probabilities.clone(),
            margins: self.margins.clone(),
            alternatives: self.alternatives.clone(),
            complete: self.open.is_empty(),
        }
    }

    // Begins a step: what it forgets, where it looks (nowhere, if nothing is due), and how many are due.
    fn begin(&mut self) -> Result<(Vec<usize>, Vec<usize>, usize), InferError> {
        let n_steps = self.n_steps();
        let share = |step: usize| step as f64 / n_steps as f64;
        let shares = [share(self.step), share(self.step + 1)];
        let decoded = &self.state.positions[self.n_given..];
        let forgotten = self.order.ask(|order| order.forget(decoded, shares, &mut self.rng))?;
        self.reopen(&forgotten)?;
        let n_to_decode = if self.order.chooses_count {
            1
        } else {
            self.schedule.count(self.step, self.steps, self.n_open, self.open.len(), &mut self.rng)
        };
        self.step += 1;
        if n_to_decode == 0 {
            return Ok((forgotten, Vec::new(), 0));
        }
        let view = OrderContext { length: self.state.length, open: &self.open, n_to_decode };
        let looked = self.order.ask(|order| order.look(&view, &mut self.rng))?;
        let mut sorted = looked.clone();
        sorted.sort_unstable();
        let known = sorted.iter().all(|position| self.open.binary_search(position).is_ok());
        if looked.is_empty() || !known || sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            let message =
                format!("an order must look at open positions, each once, at least one; it looked at {looked:?}");
            return Err(InferError::Request(message));
        }
        Ok((forgotten, looked, n_to_decode))
    }

    fn reopen(&mut self, positions: &[usize]) -> Result<(), InferError> {
        for position in positions {
            let place = self.state.positions[self.n_given..].iter().position(|decoded| decoded == position);
            let Some(index) = place else {
                return Err(InferError::Request(format!(
                    "an order forgot position {position}, which it had not decoded"
                )));
            };
            self.state.positions.remove(self.n_given + index);
            self.state.tokens.remove(self.n_given + index);
            self.log_probabilities.remove(index);
            self.margins.remove(index);
            if self.n_alternatives > 0 {
                self.alternatives.remove(index);
            }
            let place = self.open.partition_point(|open| open < position);
            self.open.insert(place, *position);
        }
        Ok(())
    }

    // Ends a step with what was drawn where it looked.
    fn end(
        &mut self,
        looked: &[usize],
        n_to_decode: usize,
        drawn: &[(DrawnToken, LogitStats)],
        top: &[Top],
    ) -> Result<RowChange, InferError> {
        let candidate = |(&position, &(drawn, shape)): (&usize, &(DrawnToken, LogitStats))| Candidate {
            position,
            token: drawn.class as u32,
            log_probability: drawn.log_probability,
            shape,
        };
        let candidates: Vec<Candidate> = looked.iter().zip(drawn).map(candidate).collect();
        let view = OrderContext { length: self.state.length, open: &self.open, n_to_decode };
        let mut kept = self.order.ask(|order| order.keep(&view, &candidates))?;
        kept.dedup();
        if kept.is_empty() || kept.iter().any(|&index| index >= candidates.len()) {
            let message = format!("an order must keep some of its {} candidates; it kept {kept:?}", candidates.len());
            return Err(InferError::Request(message));
        }
        let mut change = RowChange::default();
        for index in kept {
            let Candidate { position, token, log_probability, .. } = candidates[index];
            let Ok(place) = self.open.binary_search(&position) else {
                return Err(InferError::Request(format!("an order kept position {position} twice")));
            };
            self.open.remove(place);
            self.state.positions.push(position);
            self.state.tokens.push(token);
            self.log_probabilities.push(log_probability);
            self.margins.push(drawn[index].0.margin);
            change.decoded.push((position, token));
            change.log_probabilities.push(log_probability);
            if self.n_alternatives > 0 {
                let mut best = top[index].clone();
                best.truncate(self.n_alternatives);
                self.alternatives.push(best.clone());
                change.alternatives.push(best);
            }
        }
        Ok(change)
    }
}

/// What a step did.
#[derive(Debug)]
pub struct StepResult {
    /// To each row.
    pub changes: Vec<Result<RowChange, InferError>>,
    /// Whether it took a network evaluation.
    pub evaluated: bool,
}

/// One step of each row, in one network evaluation (in none, where no row has anything due): what it did to each.
///
/// Rows that are done are left as they are. Rows may differ in everything; what an [`Order`] of one's own does wrong, a panic
/// included, is an [`InferError::Request`] of its row alone, which is then done.
///
/// # Errors
/// [`InferError::Device`] when the device fails, [`InferError::Request`] for a row that the denoiser did not
/// [begin](Denoiser::row) and cannot sample.
pub fn advance(denoiser: &dyn Denoiser, rows: &mut [&mut SampleRow]) -> Result<StepResult, InferError> {
    let mut changes: Vec<Result<RowChange, InferError>> = rows.iter().map(|_| Ok(RowChange::default())).collect();
    let (mut active, mut looked, mut n_to_decode) = (Vec::new(), Vec::new(), Vec::new());
    for (index, row) in rows.iter_mut().enumerate() {
        if row.is_done() {
            continue;
        }
        match row.begin() {
            Ok((forgotten, positions, n_due)) => {
                changes[index] = Ok(RowChange { forgotten, ..RowChange::default() });
                if !positions.is_empty() {
                    active.push(index);
                    looked.push(positions);
                    n_to_decode.push(n_due);
                }
            }
            Err(error) => {
                row.failed = true;
                changes[index] = Err(error);
            }
        }
    }
    if active.is_empty() {
        return Ok(StepResult { changes, evaluated: false });
    }
    let states: Vec<&CleanRow> = active.iter().map(|&index| &rows[index].state).collect();
    let positions: Vec<&[usize]> = looked.iter().map(Vec::as_slice).collect();
    let logits = denoiser.logits(&states, &positions)?;
    // One uniform for each position, taken in order from the row's own stream.
    let mut picks = Vec::new();
    for (place, &index) in active.iter().enumerate() {
        let rng = &mut rows[index].rng;
        picks.extend((0..looked[place].len()).map(|k| PositionDraw { row: place, index: k, uniform: rng.random() }));
    }
    let mask_index = denoiser.mask_index();
    let mut drawn: Vec<Option<DrawnToken>> = vec![None; picks.len()];
    let mut settings: Vec<DrawSettings> = Vec::new();
    for &index in &active {
        if !settings.contains(&rows[index].draw) {
            settings.push(rows[index].draw);
        }
    }
    // Rows that are drawn in the same way are drawn together.
    for settings in settings {
        let members: Vec<usize> =
            (0..picks.len()).filter(|&pick| rows[active[picks[pick].row]].draw == settings).collect();
        let some: Vec<PositionDraw> = members.iter().map(|&pick| picks[pick]).collect();
        let found = logits.draw(&some, mask_index, &settings)?;
        members.into_iter().zip(found).for_each(|(pick, found)| drawn[pick] = Some(found));
    }
    let drawn: Vec<DrawnToken> = drawn.into_iter().flatten().collect();
    let looks_at_shapes = |pick: &PositionDraw| rows[active[pick.row]].order.needs_stats;
    let members: Vec<usize> = (0..picks.len()).filter(|&pick| looks_at_shapes(&picks[pick])).collect();
    let some: Vec<PositionDraw> = members.iter().map(|&pick| picks[pick]).collect();
    let mut shapes = vec![LogitStats::default(); picks.len()];
    members.into_iter().zip(logits.shapes(&some, mask_index)?).for_each(|(pick, shape)| shapes[pick] = shape);
    let n_alternatives = active.iter().map(|&index| rows[index].n_alternatives).max().unwrap_or(0);
    let members: Vec<usize> =
        (0..picks.len()).filter(|&pick| rows[active[picks[pick].row]].n_alternatives > 0).collect();
    let some: Vec<PositionDraw> = members.iter().map(|&pick| picks[pick]).collect();
    let mut top: Vec<Top> = vec![Vec::new(); picks.len()];
    members.into_iter().zip(logits.top(&some, n_alternatives, mask_index)?).for_each(|(pick, best)| top[pick] = best);
    let drawn: Vec<(DrawnToken, LogitStats)> = drawn.into_iter().zip(shapes).collect();
    let mut start = 0;
    for (place, &index) in active.iter().enumerate() {
        let of_row = start..start + looked[place].len();
        start = of_row.end;
        let ended = rows[index].end(&looked[place], n_to_decode[place], &drawn[of_row.clone()], &top[of_row]);
        rows[index].failed = ended.is_err();
        changes[index] = match (ended, &mut changes[index]) {
            (Ok(change), Ok(begun)) => Ok(RowChange { forgotten: std::mem::take(&mut begun.forgotten), ..change }),
            (ended, _) => ended,
        };
    }
    Ok(StepResult { changes, evaluated: true })
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
    requests: &[SampleRequest],
    settings: &SampleSettings,
    observe: &mut dyn FnMut(&StepView) -> ControlFlow<()>,
) -> Result<SampleOutput, InferError> {
    let mut rows = requests.iter().map(|request| denoiser.row(request, settings)).collect::<Result<Vec<_>, _>>()?;
    let n_steps = rows.iter().map(SampleRow::n_steps).max().unwrap_or(0);
    let (mut step, mut n_evaluations) = (0, 0);
    while rows.iter().any(|row| !row.is_done()) {
        let mut all: Vec<&mut SampleRow> = rows.iter_mut().collect();
        let StepResult { changes, evaluated } = advance(denoiser, &mut all)?;
        let changes = changes.into_iter().collect::<Result<Vec<_>, _>>()?;
        step += 1;
        n_evaluations += usize::from(evaluated);
        let view = StepView { step, n_steps, n_evaluations, changes: &changes };
        if observe(&view).is_break() {
            break;
        }
    }
    let mask_index = denoiser.mask_index();
    Ok(SampleOutput { rows: rows.iter().map(|row| row.sampled(mask_index)).collect(), n_evaluations })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Logits;
    use crate::order::CandidateLimit;
    use proptest::prelude::*;
    use std::cell::RefCell;

    const CLASSES: usize = 7;

    /// Logits are a hash of the position and of the clean set, order left out; remembers what it was asked.
    #[derive(Default)]
    struct Fake {
        asked: RefCell<Vec<usize>>,
    }

    impl Denoiser for Fake {
        fn logits(&self, rows: &[&CleanRow], positions: &[&[usize]]) -> Result<Logits, InferError> {
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

    fn requests() -> impl Strategy<Value = Vec<SampleRequest>> {
        let row = (1..30_usize, any::<u64>(), any::<u64>()).prop_map(|(length, seed, pattern)| {
            let is_given = |position: &usize| *position == 0 || pattern >> (position % 64) & 3 == 0;
            let given = (0..length).filter(is_given).map(|position| (position, position as u32 % 5)).collect();
            SampleRequest { length, given, seed }
        });
        prop::collection::vec(row, 1..5)
    }

    fn settings() -> impl Strategy<Value = SampleSettings> {
        let schedule = prop_oneof![Just(Schedule::Uniform), Just(Schedule::Binomial)];
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

    // Looks where it must not.
    struct Wrong(fn(&OrderContext<'_>) -> Vec<usize>, Vec<usize>);

    impl Order for Wrong {
        fn look(&mut self, view: &OrderContext<'_>, _rng: &mut dyn rand::Rng) -> Vec<usize> {
            (self.0)(view)
        }

        fn keep(&mut self, _view: &OrderContext<'_>, _drawn: &[Candidate]) -> Vec<usize> {
            self.1.clone()
        }
    }

    #[test]
    fn an_order_that_does_what_it_must_not_is_an_error() {
        let ask = |look: fn(&OrderContext<'_>) -> Vec<usize>, keep: &[usize]| {
            let settings = SampleSettings { steps: 2, ..SampleSettings::default() };
            let keep = keep.to_vec();
            let mut row = SampleRow::with_order(&request(6, 0), &settings, |_, _| Box::new(Wrong(look, keep))).unwrap();
            let changes = advance(&Fake::default(), &mut [&mut row]).unwrap().changes;
            assert!(row.is_done());
            changes.into_iter().next().unwrap().unwrap_err().to_string()
        };
        assert!(ask(|_| vec![0], &[0]).contains("open positions"), "position 0 is given");
        assert!(ask(|_| vec![2, 2], &[0]).contains("open positions"));
        assert!(ask(|_| Vec::new(), &[0]).contains("open positions"));
        assert!(ask(|view| view.open.to_vec(), &[]).contains("keep some"));
        assert!(ask(|view| view.open.to_vec(), &[9]).contains("keep some"));
        assert!(ask(|view| view.open.to_vec(), &[1, 0, 1]).contains("twice"));
    }

    fn request(length: usize, seed: u64) -> SampleRequest {
        SampleRequest { length, given: vec![(0, 0)], seed }
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
}
