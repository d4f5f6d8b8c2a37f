//! The state of one row between steps.
//!
//! A row owns its random stream, seeded by the row's seed alone. It draws from it in a fixed sequence: first what the
//! borders need, then what the order needs, then for each step what the order and the schedule need and one uniform for
//! each candidate position. So the stream does not depend on which rows share a batch.

use pgm_model::visibility::MAX_SETS;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::InferError;
use crate::sample::border::{BorderChange, BorderPhase, PlacedToken};
use crate::sample::clean_row::{CleanRow, RowId};
use crate::sample::draw::DrawSettings;
use crate::sample::grid::TokenGrid;
use crate::sample::guarded_order::GuardedOrder;
use crate::sample::guidance::Guidance;
use crate::sample::logits::{Alternatives, PositionDraw, PositionQuery, PositionReading};
use crate::sample::order::{Candidate, Order, OrderContext, OrderStart, Progress};
use crate::sample::published::AsPublished;
use crate::sample::refresh::Refresh;
use crate::sample::request::{SampleRequest, SampleSettings};
use crate::sample::row_step::RowStep;
use crate::sample::sampled::{RowChange, SampledRow};
use crate::sample::schedule::{OpenCounts, Schedule};

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
    as_published: Option<AsPublished>,
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
        let open = request.open_positions()?;
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
            as_published: settings.as_published,
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

    /// Whether the row needs no further step: every position is decoded and none is drawn again, or a step failed.
    pub fn is_done(&self) -> bool {
        let redraws = self.redraws() && self.step < self.planned_steps();
        self.failed || self.open.is_empty() && !redraws
    }

    fn redraws(&self) -> bool {
        self.as_published.is_some_and(|published| published.redraws())
    }

    /// Whether tokens that no other row draws, such as the mask, may be drawn.
    pub(super) fn draws_any_token(&self) -> bool {
        self.as_published.is_some_and(|published| published.draws_any_token())
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
        let mut without_class = CleanRow { id: self.without_class, class: None, ..self.clean.clone() };
        without_class.quirks.dropout = self.clean.quirks.dropout.map(u64::reverse_bits);
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
        let settings = self.as_published.map_or(self.draw, |published| published.draw(self.draw, self.step.max(1) - 1));
        let query = |index: usize, uniform: f64, allowed: Option<&'a [u32]>| PositionQuery {
            draw: PositionDraw { row, index, uniform },
            settings,
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
        for (index, (&position, &token)) in self.clean.positions[..n_known].iter().zip(&self.clean.tokens).enumerate() {
            let published = self.as_published.filter(|_| index >= self.n_given);
            tokens[position] = published.map_or(token, |published| published.code(token));
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
        let left = OpenCounts { at_start: self.n_open, left: self.open.len(), reopened: forgotten.len() };
        // What is reopened is decoded in a later step.
        let open = self.open.clone();
        self.reopen(&forgotten)?;
        let n_to_decode = match self.as_published {
            _ if self.order.chooses_count() => 1,
            Some(published) => published.count(self.schedule, (self.step, self.steps), left, &mut self.rng),
            None => self.schedule.count(self.step, self.steps, left, &mut self.rng),
        };
        if let Some(published) = self.as_published {
            self.clean.quirks = published.network(self.seed, self.step);
        }
        let guidance_weight = self.guidance.weight_at(self.step, planned);
        self.step += 1;
        let mut positions = match n_to_decode {
            0 => Vec::new(),
            n => self.candidates(&open, n, progress)?,
        };
        if self.redraws() {
            positions.extend(&self.clean.positions[self.n_fixed..]);
        }
        let uniforms = positions.iter().map(|_| self.rng.random()).collect();
        let border_queries = Vec::new();
        Ok(RowStep { positions, uniforms, forgotten, n_to_decode, progress, border_queries, guidance_weight })
    }

    fn candidates(&mut self, open: &[usize], n_to_decode: usize, progress: Progress) -> Result<Vec<usize>, InferError> {
        let context = context(&self.clean, self.n_fixed, open, n_to_decode, progress);
        let positions = self.order.call(|order| order.candidates(&context, &mut self.rng))?;
        let mut sorted = positions.clone();
        sorted.sort_unstable();
        let are_open = sorted.iter().all(|position| open.binary_search(position).is_ok());
        if positions.is_empty() || !are_open || sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            let message = format!("an order must name open positions, each once, at least one; it named {positions:?}");
            return Err(InferError::Request(message));
        }
        Ok(positions)
    }

    fn reopen(&mut self, positions: &[usize]) -> Result<(), InferError> {
        for position in positions {
            let of_order = &self.clean.positions[self.n_fixed..];
            let Some(index) = of_order.iter().position(|decoded| decoded == position) else {
                let message = format!("an order reopened position {position}, which it had not decoded");
                return Err(InferError::Request(message));
            };
            self.clean.remove(self.n_fixed + index);
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
        let (mut candidates, mut margins): (Vec<Candidate>, Vec<f64>) = drawn.into_iter().unzip();
        let n_redrawn = if self.redraws() { self.clean.positions.len() - self.n_fixed } else { 0 };
        let n_new = candidates.len() - n_redrawn;
        let mut opened = Vec::new();
        let redrawn = candidates.split_off(n_new).into_iter().zip(margins.split_off(n_new));
        for (index, (candidate, margin)) in redrawn.enumerate() {
            if self.leaves_open(candidate.token) {
                opened.push(candidate.position);
            } else {
                self.redraw(index, &candidate, margin, &readings[n_new + index], &mut change);
            }
        }
        if n_new > 0 {
            let context = context(&self.clean, self.n_fixed, &self.open, step.n_to_decode, step.progress);
            let mut selected = self.order.call(|order| order.select(&context, &candidates))?;
            selected.dedup();
            if selected.is_empty() || selected.iter().any(|&index| index >= n_new) {
                let message = format!("an order must select some of its {n_new} candidates; it selected {selected:?}");
                return Err(InferError::Request(message));
            }
            if self.as_published.is_some_and(|published| published.sorts_positions()) {
                selected.sort_by_key(|&index| candidates[index].position);
            }
            selected.retain(|&index| !self.leaves_open(candidates[index].token));
            for index in selected {
                self.decode(&candidates[index], margins[index], &readings[index], &mut change)?;
            }
        }
        self.reopen(&opened)?;
        change.forgotten.extend(opened);
        Ok(change)
    }

    // Whether the position of a drawn token is open after this step.
    fn leaves_open(&self, token: u32) -> bool {
        let is_last = self.step >= self.planned_steps();
        !is_last && self.as_published.is_some_and(|published| published.leaves_open(token))
    }

    fn decode(
        &mut self,
        drawn: &Candidate,
        margin: f64,
        reading: &PositionReading,
        change: &mut RowChange,
    ) -> Result<(), InferError> {
        let Candidate { position, token, log_probability, .. } = *drawn;
        let Ok(place) = self.open.binary_search(&position) else {
            return Err(InferError::Request(format!("an order selected position {position} twice")));
        };
        self.open.remove(place);
        let alternatives = reading.alternatives.clone();
        self.take(PlacedToken { position, token, log_probability, margin, alternatives }, change);
        Ok(())
    }

    // Takes a token that was drawn at a position that is open no longer.
    fn take(&mut self, drawn: PlacedToken, change: &mut RowChange) {
        let PlacedToken { position, token, log_probability, margin, alternatives } = drawn;
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

    // Takes the token that was drawn again at a decoded position; `index` counts those that are not fixed.
    fn redraw(
        &mut self,
        index: usize,
        drawn: &Candidate,
        margin: f64,
        reading: &PositionReading,
        change: &mut RowChange,
    ) {
        let (known, of_drawn) = (self.n_fixed + index, self.n_fixed - self.n_given + index);
        (self.log_probabilities[of_drawn], self.margins[of_drawn]) = (drawn.log_probability, margin);
        if self.n_alternatives > 0 {
            self.alternatives[of_drawn].clone_from(&reading.alternatives);
        }
        if std::mem::replace(&mut self.clean.tokens[known], drawn.token) == drawn.token {
            return;
        }
        // What a network keeps of these rows belongs to tokens that they do not have.
        (self.clean.id, self.without_class) = (RowId::default(), RowId::default());
        change.decoded.push((drawn.position, drawn.token));
        change.log_probabilities.push(drawn.log_probability);
        if self.n_alternatives > 0 {
            change.alternatives.push(reading.alternatives.clone());
        }
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
                    (self.clean.id, self.without_class) = (RowId::default(), RowId::default());
                }
                chosen
            }
            BorderChange::Next(tokens) => tokens,
        };
        let mut change = RowChange::default();
        for drawn in decoded {
            self.open.retain(|open| *open != drawn.position);
            self.take(drawn, &mut change);
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
