//! Pictures while they fill, without slowing the drawing down much: a codec may need longer than a step.

use std::sync::Arc;
use std::time::Instant;

use pgm_infer::picture::Filling;
use pgm_infer::sample::RowChange;
use pgm_infer::{ImageModel, InferError, SampleRequest};

use super::drawing::Shown;

/// Seconds of previews for each second of drawing.
const SHARE: f64 = 0.5;
/// Seconds that previews can save up.
const MOST_SAVED: f64 = 0.2;

/// How long previews may take.
#[derive(Debug)]
pub struct Budget {
    seconds: f64,
    since: Instant,
}

impl Budget {
    /// Nothing is saved up.
    pub fn new() -> Self {
        Self { seconds: 0.0, since: Instant::now() }
    }

    /// A step was drawn since the last preview.
    pub fn earn(&mut self) {
        let drawn = self.since.elapsed().as_secs_f64();
        self.seconds = (self.seconds + SHARE * drawn).min(MOST_SAVED);
        self.since = Instant::now();
    }

    /// Whether a preview may start. It may take longer than what is left, which later ones then wait for.
    pub fn is_left(&self) -> bool {
        self.seconds > 0.0
    }

    /// A preview was made.
    pub fn spend(&mut self) {
        self.seconds -= self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
    }
}

/// The pictures of a grid.
#[derive(Debug)]
pub struct Preview<'a> {
    model: &'a ImageModel,
    fillings: Vec<Filling>,
    is_stale: Vec<bool>,
    next: usize,
    budget: Budget,
}

impl<'a> Preview<'a> {
    /// Before the first step.
    pub fn new(model: &'a ImageModel, requests: &[SampleRequest]) -> Self {
        let fillings: Vec<Filling> = requests.iter().map(|request| Filling::new(model, request)).collect();
        let is_stale = vec![false; fillings.len()];
        Self { model, fillings, is_stale, next: 0, budget: Budget::new() }
    }

    /// Takes the changes of a picture's step over and returns the pictures, with their numbers, that there was time for.
    ///
    /// # Errors
    /// As [`Filling::picture`].
    pub fn step(&mut self, index: usize, change: &RowChange) -> Result<Vec<(usize, Arc<Shown>)>, InferError> {
        self.fillings[index].apply(self.model, change);
        self.is_stale[index] |= !change.decoded.is_empty() || !change.forgotten.is_empty();
        self.budget.earn();
        let (n, mut shown) = (self.fillings.len(), Vec::new());
        for _ in 0..n {
            if !self.budget.is_left() {
                break;
            }
            if std::mem::take(&mut self.is_stale[self.next]) {
                shown.push((self.next, self.show(self.next)?));
                self.budget.spend();
            }
            self.next = (self.next + 1) % n;
        }
        Ok(shown)
    }

    /// The picture is complete: its last change needs no preview.
    pub fn drawn(&mut self, index: usize) {
        self.is_stale[index] = false;
    }

    /// The pictures whose last change was not shown yet.
    ///
    /// # Errors
    /// As [`Filling::picture`].
    pub fn rest(&mut self) -> Result<Vec<(usize, Arc<Shown>)>, InferError> {
        let stale: Vec<usize> = (0..self.fillings.len()).filter(|&index| self.is_stale[index]).collect();
        stale.into_iter().map(|index| Ok((index, self.show(index)?))).collect()
    }

    fn show(&self, index: usize) -> Result<Arc<Shown>, InferError> {
        let filling = &self.fillings[index];
        let (picture, cells) = (filling.picture(self.model)?, filling.open_cells(self.model));
        let (width, n_pixels) = (picture.width(), picture.width() * picture.height());
        let open = (0..n_pixels).map(|pixel| cells[self.model.cell_at(pixel % width, pixel / width)]).collect();
        Ok(Shown::new(picture, open))
    }
}
