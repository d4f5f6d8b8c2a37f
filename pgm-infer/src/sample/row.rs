//! The state of one row between steps.
//!
//! A row owns its random stream, seeded by the row's seed alone. It draws from it in a fixed sequence: first what the
//! borders need, then what the order needs, then for each step what the order and the schedule need and one uniform for
//! each candidate position. So the stream does not depend on which rows share a batch.

use pgm_model::visibility::MAX_SETS;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::InferError;
use crate::sample::border::{self, BorderChange, BorderPhase, BorderQuery, BorderToken};
use crate::sample::clean_row::{CleanRow, RowId};
use crate::sample::draw::DrawSettings;
use crate::sample::grid::TokenGrid;
use crate::sample::guarded_order::GuardedOrder;
use crate::sample::guidance::Guidance;
use crate::sample::logits::{Alternatives, PositionDraw, PositionQuery, PositionReading};
use crate::sample::order::{Candidate, Order, OrderContext, OrderStart, Progress};
use crate::sample::refresh::Refresh;
use crate::sample::request::{SampleRequest, SampleSettings};
use crate::sample::schedule::Schedule;

/// One sampled row.
#[derive(Clone, Debug, PartialEq)]
pub struct SampledRow {
    /// All tokens, by position. Open positions of a run that was stopped hold the mask.
    pub tokens: Vec<u32>,
    /// Decoded positions in the order in which they came.
    pub order: Vec<usize>,
    /// Log-probability of each decoded token when it was drawn, in nats, in that order.
    pub log_probabilities: Vec<f64>,
    /// Distance of each draw's uniform from the nearest boundary of its token's share of the cumulative distribution (at
    /// temperature 0: one minus the ratio of the second-best probability to the best). Below 1e-5 rounding may decide.
    pub margins: Vec<f64>,
    /// The most probable tokens at each of these positions with their log-probabilities, best first. Empty unless
    /// [`SampleSettings::alternatives`] asks for them.
    pub alternatives: Vec<Alternatives>,
    /// Whether every position is decoded.
    pub complete: bool,
}

/// The changes of one row in a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RowChange {
    /// Decoded positions and their tokens.
    pub decoded: Vec<(usize, u32)>,
    /// Log-probabilities of these tokens, in nats.
    pub log_probabilities: Vec<f64>,
    /// The most probable tokens at these positions, best first, if the settings ask for them.
    pub alternatives: Vec<Alternatives>,
    /// Positions that were opened again before the step.
    pub forgotten: Vec<usize>,
}

/// The beginning of a row's step: where its network evaluation needs logits.
#[derive(Clone, Debug)]
pub struct RowStep {
    /// Candidate positions; empty when the step decodes nothing, which needs no evaluation.
    pub positions: Vec<usize>,
    /// For each candidate, the uniform number in `[0, 1)` that decides its token.
    pub uniforms: Vec<f64>,
    /// Positions that were opened again.
    pub forgotten: Vec<usize>,
    n_to_decode: usize,
    progress: Progress,
    // A step of the borders reads these instead.
    border_queries: Vec<BorderQuery>,
    guidance_weight: f64,
}

/// A row while it is sampled.
pub struct SampleRow {
    clean: CleanRow,
    n_given: usize,
    // Given tokens and those of the borders, which no order opens again.
    n_fixed: usize,
    // Open positions, ascending.
    open: Vec<usize>,
    // Open positions at the start.
    n_open: usize,
    borders: BorderPhase,
    // Starts when the borders are drawn.
    order: GuardedOrder,
    seed: u64,
    grid: Option<TokenGrid>,
    schedule: Schedule,
    draw: DrawSettings,
    guidance: Guidance,
    refresh: Refresh,
    // Network evaluations so far.
    n_evaluations: usize,
    // The row without its class, in evaluations with guidance.
    without_class: RowId,
    steps: usize,
    step: usize,
    log_probabilities: Vec<f64>,
    margins: Vec<f64>,
    n_alternatives: usize,
    alternatives: Vec<Alternatives>,
    failed: bool,
    rng: ChaCha8Rng,
}

impl std::fmt::Debug for SampleRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SampleRow").field("step", &self.step).field("open", &self.open).finish_non_exhaustive()
    }
}

impl SampleRow {
    /// A new row in the order of `settings`.
    ///
    /// # Errors
    /// [`InferError::Setting`] and [`InferError::Request`] for requests that cannot be sampled.
    pub fn new(request: &SampleRequest, settings: &SampleSettings) -> Result<Self, InferError> {
        let order = settings.order;
        Self::with_order(request, settings, move |start| order.start(start))
    }

    /// A new row in a custom order, which `start` makes when the row's borders are drawn (at once, if it has none).
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_order(
        request: &SampleRequest,
        settings: &SampleSettings,
        start: impl FnOnce(OrderStart<'_>) -> Box<dyn Order> + Send + 'static,
    ) -> Result<Self, InferError> {
        settings.validate()?;
        let open = open_positions(request)?;
        let (positions, tokens): (Vec<_>, Vec<_>) = request.given.iter().copied().unzip();
        let mut row = Self {
            n_given: positions.len(),
            n_fixed: positions.len(),
            n_open: open.len(),
            clean: CleanRow::new(request.length, positions, tokens)
                .with_class(request.class)
                .with_sets((settings.refresh != Refresh::Always).then(Vec::new)),
            open,
            borders: BorderPhase::new(&request.borders),
            order: GuardedOrder::new(start),
            seed: request.seed,
            grid: request.grid,
            schedule: settings.schedule,
            draw: settings.draw,
            guidance: settings.guidance,
            refresh: settings.refresh,
            n_evaluations: 0,
            without_class: RowId::default(),
            steps: settings.steps,
            step: 0,
            log_probabilities: Vec::new(),
            margins: Vec::new(),
            n_alternatives: settings.alternatives,
            alternatives: Vec::new(),
            failed: false,
            rng: ChaCha8Rng::seed_from_u64(request.seed),
        };
        if row.borders.is_done() {
            row.start_order()?;
        }
        Ok(row)
    }

    fn start_order(&mut self) -> Result<(), InferError> {
        if self.order.has_started() {
            return Ok(());
        }
        self.n_open = self.open.len();
        let (length, grid, seed) = (self.clean.length, self.grid, self.seed);
        let new = OrderStart { length, open: &self.open, grid, seed, rng: &mut self.rng };
        self.order.start(new)
    }

    /// Steps done so far, those of the borders included.
    pub fn step(&self) -> usize {
        self.borders.step() + self.step
    }

    /// Steps in all. An order that [chooses its own count](Order::chooses_count) may need fewer; an order that selects
    /// fewer positions than it should may need more, and then this grows with [`step`](Self::step).
    pub fn n_steps(&self) -> usize {
        self.borders.n_steps() + self.planned_steps().max(self.step)
    }

    fn planned_steps(&self) -> usize {
        if self.order.chooses_count() { self.n_open } else { self.schedule.n_steps(self.steps) }
    }

    /// Whether the row needs no further step: every position is decoded, or a step failed.
    pub fn is_done(&self) -> bool {
        self.failed || self.open.is_empty()
    }

    /// The tokens that are known so far.
    pub fn clean(&self) -> &CleanRow {
        &self.clean
    }

    /// How this row's tokens are drawn.
    pub fn draw(&self) -> &DrawSettings {
        &self.draw
    }

    /// The row without its class and the weight that it has against the class in this step; none in a step without guidance,
    /// and in a row without a class.
    pub(super) fn guide(&self, step: &RowStep) -> Option<(CleanRow, f64)> {
        self.clean.class.filter(|_| step.guidance_weight != 0.0)?;
        let without_class = CleanRow { id: self.without_class, class: None, ..self.clean.clone() };
        Some((without_class, step.guidance_weight))
    }

    /// Whether the row's order reads [`LogitStats`](crate::sample::logits::LogitStats).
    pub fn needs_stats(&self) -> bool {
        self.order.needs_stats()
    }

    /// How many of the most probable tokens are reported with each drawn one.
    pub fn n_alternatives(&self) -> usize {
        self.n_alternatives
    }

    /// What is read at the positions of a step, in the sequence that [`end`](Self::end) takes; `row` is the row's index in the
    /// batch. At most two queries for each position.
    pub fn queries<'a>(&self, step: &'a RowStep, row: usize) -> Vec<PositionQuery<'a>> {
        let query = |index: usize, uniform: f64, allowed: Option<&'a [u32]>| PositionQuery {
            draw: PositionDraw { row, index, uniform },
            settings: self.draw,
            stats: self.needs_stats(),
            n_alternatives: self.n_alternatives,
            allowed,
        };
        let of_borders = step.border_queries.iter();
        let of_borders = of_borders.map(|border| query(border.index, border.uniform, Some(&border.allowed[..])));
        of_borders
            .chain(step.uniforms.iter().enumerate().map(|(index, &uniform)| query(index, uniform, None)))
            .collect()
    }

    /// The row as it is now; open positions hold the mask.
    pub fn sampled(&self, mask_index: usize) -> SampledRow {
        let mut tokens = vec![mask_index as u32; self.clean.length];
        // While borders are drawn, their plain tokens are assumptions.
        let n_known = if self.borders.assumes() { self.n_given } else { self.clean.tokens.len() };
        for (&position, &token) in self.clean.positions[..n_known].iter().zip(&self.clean.tokens) {
            tokens[position] = token;
        }
        SampledRow {
            tokens,
            order: self.clean.positions[self.n_given..n_known].to_vec(),
            log_probabilities: self.log_probabilities.clone(),
            margins: self.margins.clone(),
            alternatives: self.alternatives.clone(),
            complete: self.open.is_empty(),
        }
    }

    /// Begins a step: reopens positions, chooses candidates, draws their uniforms.
    ///
    /// After the planned steps every position that is still open is a candidate to decode, until none is left.
    ///
    /// # Errors
    /// [`InferError::Request`] when the row's order breaks its contract or panics; the row is then done.
    pub fn begin(&mut self) -> Result<RowStep, InferError> {
        let begun = self.begin_step();
        self.failed |= begun.is_err();
        if begun.as_ref().is_ok_and(|begun| !begun.positions.is_empty()) {
            self.begin_evaluation();
        }
        begun
    }

    // The tokens that came since the last evaluation are a set of their own; where all are encoded anew, they are one set.
    fn begin_evaluation(&mut self) {
        let Some(sets) = &mut self.clean.sets else { return };
        if self.n_evaluations + 1 == MAX_SETS {
            // What is kept of the row has sets of the old numbers.
            (self.clean.id, self.without_class, self.n_evaluations) = (RowId::default(), RowId::default(), 0);
        }
        self.refresh.mark(sets, self.clean.positions.len(), self.n_evaluations);
        self.n_evaluations += 1;
    }

    fn begin_step(&mut self) -> Result<RowStep, InferError> {
        if !self.borders.is_done() {
            let (positions, border_queries, uniforms) = self.borders.begin(&mut self.rng);
            let progress = Progress { from: 0.0, to: 0.0 };
            let forgotten = Vec::new();
            let guidance_weight = self.guidance.weight_at(0, self.planned_steps());
            let n_to_decode = 0;
            let begun =
                RowStep { positions, uniforms, forgotten, n_to_decode, progress, border_queries, guidance_weight };
            return Ok(begun);
        }
        self.start_order()?;
        let planned = self.planned_steps();
        let share = |step: usize| (step as f64 / planned as f64).min(1.0);
        let progress = Progress { from: share(self.step), to: share(self.step + 1) };
        let mut forgotten = Vec::new();
        // After the planned steps nothing is reopened, so that the row ends.
        if self.step < planned {
            let context = context(&self.clean, self.n_fixed, &self.open, 0, progress);
            forgotten = self.order.call(|order| order.remask(&context, &mut self.rng))?;
        }
        self.reopen(&forgotten)?;
        let n_to_decode = if self.order.chooses_count() {
            1
        } else {
            self.schedule.count(self.step, self.steps, self.n_open, self.open.len(), &mut self.rng)
        };
        let guidance_weight = self.guidance.weight_at(self.step, planned);
        self.step += 1;
        let (positions, uniforms, border_queries) = (Vec::new(), Vec::new(), Vec::new());
        let begun = RowStep { positions, uniforms, forgotten, n_to_decode, progress, border_queries, guidance_weight };
        if n_to_decode == 0 {
            return Ok(begun);
        }
        let context = context(&self.clean, self.n_fixed, &self.open, n_to_decode, progress);
        let positions = self.order.call(|order| order.candidates(&context, &mut self.rng))?;
        let mut sorted = positions.clone();
        sorted.sort_unstable();
        let are_open = sorted.iter().all(|position| self.open.binary_search(position).is_ok());
        if positions.is_empty() || !are_open || sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            let message = format!("an order must name open positions, each once, at least one; it named {positions:?}");
            return Err(InferError::Request(message));
        }
        let uniforms = positions.iter().map(|_| self.rng.random()).collect();
        Ok(RowStep { positions, uniforms, ..begun })
    }

    fn reopen(&mut self, positions: &[usize]) -> Result<(), InferError> {
        for position in positions {
            let of_order = &self.clean.positions[self.n_fixed..];
            let Some(index) = of_order.iter().position(|decoded| decoded == position) else {
                let message = format!("an order reopened position {position}, which it had not decoded");
                return Err(InferError::Request(message));
            };
            self.clean.positions.remove(self.n_fixed + index);
            self.clean.tokens.remove(self.n_fixed + index);
            if let Some(sets) = self.clean.sets.as_mut().filter(|sets| self.n_fixed + index < sets.len()) {
                sets.remove(self.n_fixed + index);
            }
            let index = self.n_fixed - self.n_given + index;
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

    /// Ends a step with one reading for each of its [queries](Self::queries): the order selects which of the drawn tokens
    /// stay. A step of the borders decodes nothing, but the last of them.
    ///
    /// # Errors
    /// [`InferError::NotFinite`] for logits that no token can be drawn from, [`InferError::Request`] when the row's order
    /// breaks its contract or panics, or when no token agrees with the given text at a border; the row is then done.
    pub fn end(&mut self, step: RowStep, readings: Vec<PositionReading>) -> Result<RowChange, InferError> {
        let ended = self.end_step(step, readings);
        self.failed |= ended.is_err();
        ended
    }

    fn end_step(&mut self, step: RowStep, readings: Vec<PositionReading>) -> Result<RowChange, InferError> {
        let mut change = RowChange { forgotten: step.forgotten, ..RowChange::default() };
        if !self.borders.is_done() {
            return self.end_border_step(readings);
        }
        if step.positions.is_empty() {
            return Ok(change);
        }
        let candidate = |(&position, reading): (&usize, &PositionReading)| {
            let token = reading.token.ok_or(InferError::NotFinite { position })?;
            let (class, log_probability) = (token.class as u32, token.log_probability);
            Ok((Candidate { position, token: class, log_probability, stats: reading.stats }, token.margin))
        };
        let drawn = step.positions.iter().zip(&readings).map(candidate).collect::<Result<Vec<_>, InferError>>()?;
        let (candidates, margins): (Vec<Candidate>, Vec<f64>) = drawn.into_iter().unzip();
        let context = context(&self.clean, self.n_fixed, &self.open, step.n_to_decode, step.progress);
        let mut selected = self.order.call(|order| order.select(&context, &candidates))?;
        selected.dedup();
        if selected.is_empty() || selected.iter().any(|&index| index >= candidates.len()) {
            let n = candidates.len();
            let message = format!("an order must select some of its {n} candidates; it selected {selected:?}");
            return Err(InferError::Request(message));
        }
        for index in selected {
            let Candidate { position, token, log_probability, .. } = candidates[index];
            let Ok(place) = self.open.binary_search(&position) else {
                return Err(InferError::Request(format!("an order selected position {position} twice")));
            };
            self.open.remove(place);
            self.clean.positions.push(position);
            self.clean.tokens.push(token);
            self.log_probabilities.push(log_probability);
            self.margins.push(margins[index]);
            change.decoded.push((position, token));
            change.log_probabilities.push(log_probability);
            if self.n_alternatives > 0 {
                self.alternatives.push(readings[index].alternatives.clone());
                change.alternatives.push(readings[index].alternatives.clone());
            }
        }
        Ok(change)
    }

    fn end_border_step(&mut self, readings: Vec<PositionReading>) -> Result<RowChange, InferError> {
        let decoded = match self.borders.end(readings, &self.draw, &mut self.rng)? {
            BorderChange::Assumed(assumed) => {
                self.clean.positions.extend(assumed.iter().map(|(position, _)| *position));
                self.clean.tokens.extend(assumed.iter().map(|(_, token)| *token));
                return Ok(RowChange::default());
            }
            BorderChange::Chosen(chosen) => {
                let assumed = self.clean.positions.split_off(self.n_given).into_iter();
                let assumed = assumed.zip(self.clean.tokens.split_off(self.n_given));
                if let Some(sets) = &mut self.clean.sets {
                    sets.truncate(self.n_given);
                }
                let is_chosen = |assumed: (usize, u32)| chosen.iter().any(|of| (of.position, of.token) == assumed);
                if !assumed.into_iter().all(is_chosen) {
                    // What a network keeps of this row belongs to tokens that it does not have.
                    self.clean.id = RowId::default();
                }
                chosen
            }
            BorderChange::Next(tokens) => tokens,
        };
        let mut change = RowChange::default();
        for BorderToken { position, token, log_probability, margin, alternatives } in decoded {
            self.open.retain(|open| *open != position);
            self.clean.positions.push(position);
            self.clean.tokens.push(token);
            self.log_probabilities.push(log_probability);
            self.margins.push(margin);
            change.decoded.push((position, token));
            change.log_probabilities.push(log_probability);
            if self.n_alternatives > 0 {
                self.alternatives.push(alternatives.clone());
                change.alternatives.push(alternatives);
            }
        }
        self.n_fixed = self.clean.positions.len();
        Ok(change)
    }
}

fn context<'a>(
    clean: &'a CleanRow,
    n_fixed: usize,
    open: &'a [usize],
    n_to_decode: usize,
    progress: Progress,
) -> OrderContext<'a> {
    OrderContext { length: clean.length, open, decoded: &clean.positions[n_fixed..], n_to_decode, progress }
}

fn open_positions(request: &SampleRequest) -> Result<Vec<usize>, InferError> {
    if request.grid.is_some_and(|grid| grid.start.saturating_add(grid.n_tokens()) > request.length) {
        let message = format!("the picture's cells do not fit into a row of {} tokens", request.length);
        return Err(InferError::Request(message));
    }
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
    border::check(&request.borders, &is_open)?;
    Ok((0..request.length).filter(|&position| is_open[position]).collect())
}
