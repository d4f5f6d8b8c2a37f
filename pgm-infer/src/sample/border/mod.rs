//! Borders between given text and blanks. A row draws them before its order's first step.
//!
//! A given text may end inside a token of running text: `Jeru` is the beginning of `Jerusalem`. So its last tokens are not
//! given. One alternative is drawn:
//!
//! | alternative | tokens at the border | its probability |
//! |---|---|---|
//! | 0 | one token that begins with the whole text | p(allowed at part 0) |
//! | 1 | the plain token of part 0, then one that begins with the rest | p(plain 0) p(allowed at part 1 given plain 0) |
//! | .. | | |
//!
//! Each part takes one evaluation of the network, with the plain tokens of the parts before it as clean tokens; the parts of
//! all borders of a row share their evaluations. Positions behind the drawn alternative become a part of the blank.
//!
//! One more evaluation draws the token next to each border, from all tokens: it decides how a given word goes on, so it is not
//! left to neighbours that do not know the border.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use rand::{Rng, RngExt};

use crate::InferError;
use crate::sample::draw::{DrawSettings, DrawnToken};
use crate::sample::logits::{Alternatives, PositionReading};

/// A border between given text and a blank: open positions that hold given characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Border {
    /// The positions, from the one whose token may hold all given characters; none if the given tokens are certain.
    pub parts: Vec<BorderPart>,
    /// The blank's position next to them, if its token is drawn before all others, too.
    pub next: Option<usize>,
}

/// A position of a [`Border`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BorderPart {
    /// The position.
    pub position: usize,
    /// The tokens that complete the given characters here, ascending. None for a part but the last means that no token does.
    pub allowed: Arc<[u32]>,
    /// The token that stands here if the next part completes the characters; none for the last part.
    pub plain: Option<u32>,
}

/// A network's reading that a border asks for.
#[derive(Clone, Debug)]
pub(super) struct BorderQuery {
    // Index of its position among those of the step.
    pub(super) index: usize,
    pub(super) uniform: f64,
    pub(super) allowed: Arc<[u32]>,
}

/// A token that was drawn at a position.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlacedToken {
    pub(super) position: usize,
    pub(super) token: u32,
    pub(super) log_probability: f64,
    pub(super) margin: f64,
    pub(super) alternatives: Alternatives,
}

// The readings at a part.
struct PartReading {
    // None where no token completes the characters.
    completing: Option<PositionReading>,
    // Log-probability of the plain token.
    plain: f64,
}

/// What a step of the borders ends with.
pub(super) enum BorderChange {
    /// Plain tokens that the next step takes as clean.
    Assumed(Vec<(usize, u32)>),
    /// The tokens of all parts.
    Chosen(Vec<PlacedToken>),
    /// The tokens next to them.
    Next(Vec<PlacedToken>),
}

/// The borders of a row while they are drawn: one part of each in a step, then the positions next to them.
pub(super) struct BorderPhase {
    borders: Vec<Border>,
    // Of each border.
    readings: Vec<Vec<PartReading>>,
    // The positions next to the drawn parts.
    next: Vec<usize>,
    step: usize,
    n_part_steps: usize,
}

impl BorderPhase {
    pub(super) fn new(borders: &[Border]) -> Self {
        let n_part_steps = borders.iter().map(|border| border.parts.len()).max().unwrap_or(0);
        let mut phase = Self {
            borders: borders.to_vec(),
            readings: borders.iter().map(|_| Vec::new()).collect(),
            next: Vec::new(),
            step: 0,
            n_part_steps,
        };
        phase.set_next(borders.iter().map(|border| border.next).collect());
        phase
    }

    fn set_next(&mut self, next: Vec<Option<usize>>) {
        self.next = next.into_iter().flatten().collect();
        self.next.sort_unstable();
        self.next.dedup();
    }

    /// Steps done.
    pub(super) fn step(&self) -> usize {
        self.step
    }

    /// Steps in all.
    pub(super) fn n_steps(&self) -> usize {
        self.n_part_steps + usize::from(!self.next.is_empty())
    }

    /// Whether all borders are drawn.
    pub(super) fn is_done(&self) -> bool {
        self.step == self.n_steps()
    }

    /// Whether the tokens of parts are still assumptions.
    pub(super) fn assumes(&self) -> bool {
        self.step < self.n_part_steps
    }

    // Borders that have a part in this step.
    fn parts(&self) -> impl Iterator<Item = (usize, &BorderPart)> {
        let borders = self.borders.iter().enumerate();
        borders.filter_map(|(index, border)| Some((index, border.parts.get(self.step)?)))
    }

    /// Begins a step: its positions, and what is read there; without queries a token of each position is drawn at a uniform.
    pub(super) fn begin(&self, rng: &mut impl Rng) -> (Vec<usize>, Vec<BorderQuery>, Vec<f64>) {
        if !self.assumes() {
            let uniforms = self.next.iter().map(|_| rng.random()).collect();
            return (self.next.clone(), Vec::new(), uniforms);
        }
        let (mut positions, mut queries) = (Vec::new(), Vec::new());
        for (_, part) in self.parts() {
            let index = positions.len();
            positions.push(part.position);
            let uniform = rng.random();
            if !part.allowed.is_empty() {
                queries.push(BorderQuery { index, uniform, allowed: Arc::clone(&part.allowed) });
            }
            queries.extend(part.plain.map(|plain| BorderQuery { index, uniform, allowed: [plain].into() }));
        }
        (positions, queries, Vec::new())
    }

    /// Ends a step with its readings.
    ///
    /// # Errors
    /// [`InferError::NotFinite`] for logits that are not numbers, [`InferError::Request`] for a border at which no token can
    /// stand.
    pub(super) fn end(
        &mut self,
        readings: Vec<PositionReading>,
        draw: &DrawSettings,
        rng: &mut impl Rng,
    ) -> Result<BorderChange, InferError> {
        if !self.assumes() {
            self.step += 1;
            let token = |(&position, reading): (&usize, PositionReading)| {
                let DrawnToken { class, log_probability, margin } =
                    reading.token.ok_or(InferError::NotFinite { position })?;
                let (token, alternatives) = (class as u32, reading.alternatives);
                Ok(PlacedToken { position, token, log_probability, margin, alternatives })
            };
            let tokens = self.next.iter().zip(readings).map(token).collect::<Result<_, InferError>>()?;
            return Ok(BorderChange::Next(tokens));
        }
        let assumed = self.end_part(readings)?;
        if self.assumes() {
            Ok(BorderChange::Assumed(assumed))
        } else {
            Ok(BorderChange::Chosen(self.choose(draw, rng)?))
        }
    }

    // Returns the plain tokens that the next step takes as clean.
    fn end_part(&mut self, readings: Vec<PositionReading>) -> Result<Vec<(usize, u32)>, InferError> {
        let mut readings = readings.into_iter();
        let mut plain_tokens = Vec::new();
        let mut read = Vec::new();
        for (index, part) in self.parts() {
            let completing = if part.allowed.is_empty() { None } else { readings.next() };
            let plain = part.plain.and_then(|_| readings.next());
            let masses = completing.iter().chain(&plain).map(|reading| reading.log_mass);
            if masses.clone().any(f64::is_nan) {
                return Err(InferError::NotFinite { position: part.position });
            }
            plain_tokens.extend(part.plain.map(|token| (part.position, token)));
            let plain = plain.map_or(f64::NEG_INFINITY, |reading| reading.log_mass);
            read.push((index, PartReading { completing, plain }));
        }
        for (index, reading) in read {
            self.readings[index].push(reading);
        }
        self.step += 1;
        Ok(plain_tokens)
    }

    // Chooses an alternative of each border, after the last part.
    fn choose(&mut self, draw: &DrawSettings, rng: &mut impl Rng) -> Result<Vec<PlacedToken>, InferError> {
        let (mut chosen, mut next) = (Vec::new(), Vec::new());
        for (border, readings) in self.borders.iter().zip(&self.readings) {
            if border.parts.is_empty() {
                next.push(border.next);
                continue;
            }
            let uniform = if border.parts.len() > 1 { rng.random() } else { 0.0 };
            let (last, margin) = choose_alternative(readings, draw.temperature, uniform).ok_or_else(|| {
                let position = border.parts.last().map_or(0, |part| part.position);
                InferError::Request(format!(
                    "no token that the model may draw agrees with the given text at position {position}"
                ))
            })?;
            for (part, reading) in border.parts[..last].iter().zip(readings) {
                let (position, token) = (part.position, part.plain.unwrap_or_default());
                let (log_probability, alternatives) = (reading.plain, vec![(token, reading.plain)]);
                chosen.push(PlacedToken { position, token, log_probability, margin, alternatives });
            }
            let completing = readings[last].completing.as_ref();
            let Some((reading, token)) = completing.and_then(|reading| Some((reading, reading.token?))) else {
                unreachable!("an alternative without a token is not chosen")
            };
            chosen.push(PlacedToken {
                position: border.parts[last].position,
                token: token.class as u32,
                log_probability: token.log_probability,
                margin: token.margin.min(margin),
                alternatives: reading.alternatives.clone(),
            });
            next.push(border.parts.get(last + 1).map(|part| part.position).or(border.next));
        }
        self.set_next(next);
        Ok(chosen)
    }
}

// The alternative at `uniform` of their cumulative distribution, and the distance from its nearer end; at temperature 0 the
// one with the most probable tokens. None if none has a token.
fn choose_alternative(readings: &[PartReading], temperature: f64, uniform: f64) -> Option<(usize, f64)> {
    let mut path = 0.0;
    let mut weights = Vec::new();
    for (index, reading) in readings.iter().enumerate() {
        if let Some(completing) = &reading.completing
            && let Some(DrawnToken { log_probability, .. }) = completing.token
        {
            let best = if temperature == 0.0 { log_probability } else { 0.0 };
            weights.push((index, path + completing.log_mass + best));
        }
        path += reading.plain;
    }
    let by_weight = |a: &&(usize, f64), b: &&(usize, f64)| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0));
    let &(best, largest) = weights.iter().max_by(by_weight)?;
    if weights.len() == 1 || largest == f64::NEG_INFINITY {
        return Some((best, 1.0));
    }
    if temperature == 0.0 {
        let others = weights.iter().filter(|(index, _)| *index != best).map(|(_, weight)| *weight);
        return Some((best, 1.0 - (others.fold(f64::NEG_INFINITY, f64::max) - largest).exp()));
    }
    let weights = weights.into_iter().map(|(index, weight)| (index, ((weight - largest) / temperature).exp()));
    let weights: Vec<(usize, f64)> = weights.collect();
    let total: f64 = weights.iter().map(|(_, weight)| weight).sum();
    let target = uniform * total;
    let mut cumulative = 0.0;
    for (index, weight) in weights {
        cumulative += weight;
        if cumulative > target {
            let below = target - (cumulative - weight);
            return Some((index, below.min(cumulative - target).max(0.0) / total));
        }
    }
    // Reached only when rounding leaves the sum just below the target.
    Some((best, 0.0))
}

/// Checks the borders of a request, whose open positions are `is_open`.
///
/// # Errors
/// [`InferError::Request`] naming the position.
pub(super) fn check(borders: &[Border], is_open: &[bool]) -> Result<(), InferError> {
    let wrong = |message: String| Err(InferError::Request(message));
    let mut is_free = is_open.to_vec();
    for border in borders {
        let last = border.parts.len().saturating_sub(1);
        for (index, BorderPart { position, allowed, plain }) in border.parts.iter().enumerate() {
            match is_free.get_mut(*position) {
                Some(is_free) if *is_free => *is_free = false,
                _ => return wrong(format!("position {position} is of a border, so it must be open and of no other")),
            }
            if !allowed.is_sorted() || (index == last && allowed.is_empty()) {
                return wrong(format!("the allowed tokens of position {position} must be ascending, and at least one"));
            }
            if plain.is_some() != (index < last) {
                return wrong(format!(
                    "position {position}: all positions of a border but the last have a plain token"
                ));
            }
        }
    }
    match borders.iter().filter_map(|border| border.next).find(|&next| !is_free.get(next).is_some_and(|&free| free)) {
        Some(next) => wrong(format!("position {next} is next to a border, so it must be open and of no border")),
        None => Ok(()),
    }
}
