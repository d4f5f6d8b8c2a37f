//! Pictures while they fill, without slowing the drawing down much: a codec may need longer than a step.

use std::sync::Arc;
use std::time::Instant;

use pgm_infer::picture::{Filling, OpenWindow};
use pgm_infer::sample::RowChange;
use pgm_infer::{ImageModel, InferError, Picture, SampleRequest};

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

/// The pictures of a batch.
#[derive(Debug)]
pub struct BatchPreview<'a> {
    model: &'a ImageModel,
    fillings: Vec<Filling>,
    is_stale: Vec<bool>,
    next: usize,
    // Number of the first picture in the grid.
    first: usize,
    budget: Budget,
}

impl<'a> BatchPreview<'a> {
    /// Before the first step.
    pub fn new(model: &'a ImageModel, requests: &[SampleRequest], first: usize) -> Self {
        let fillings: Vec<Filling> = requests.iter().map(|request| Filling::new(model, request)).collect();
        let is_stale = vec![false; fillings.len()];
        Self { model, fillings, is_stale, next: 0, first, budget: Budget::new() }
    }

    /// Takes a step's changes over and returns the pictures, with their numbers, that there was time for.
    ///
    /// # Errors
    /// As [`Filling::picture`].
    pub fn step(&mut self, changes: &[RowChange]) -> Result<Vec<(usize, Arc<Shown>)>, InferError> {
        for ((filling, is_stale), change) in self.fillings.iter_mut().zip(&mut self.is_stale).zip(changes) {
            filling.apply(self.model, change);
            *is_stale |= !change.decoded.is_empty() || !change.forgotten.is_empty();
        }
        self.budget.earn();
        let (n, mut shown) = (self.fillings.len(), Vec::new());
        for _ in 0..n {
            if !self.budget.is_left() {
                break;
            }
            if std::mem::take(&mut self.is_stale[self.next]) {
                shown.push((self.first + self.next, self.show(self.next)?));
                self.budget.spend();
            }
            self.next = (self.next + 1) % n;
        }
        Ok(shown)
    }

    /// The pictures whose last change was not shown yet.
    ///
    /// # Errors
    /// As [`Filling::picture`].
    pub fn rest(&mut self) -> Result<Vec<(usize, Arc<Shown>)>, InferError> {
        let stale: Vec<usize> = (0..self.fillings.len()).filter(|&index| self.is_stale[index]).collect();
        stale.into_iter().map(|index| Ok((self.first + index, self.show(index)?))).collect()
    }

    fn show(&self, index: usize) -> Result<Arc<Shown>, InferError> {
        let filling = &self.fillings[index];
        let (picture, cells) = (filling.picture(self.model)?, filling.open_cells(self.model));
        let open = if cells.contains(&true) {
            let cell_of = cell_of(self.model);
            (0..picture.width() * picture.height()).map(|pixel| cells[cell_of(pixel)]).collect()
        } else {
            Vec::new()
        };
        Ok(Arc::new(Shown { picture, open }))
    }
}

/// The window of an edit that is being drawn.
#[derive(Debug)]
pub struct WindowPreview<'a> {
    model: &'a ImageModel,
    window: &'a OpenWindow,
    // The picture so far, with what earlier windows drew.
    canvas: Picture,
    // Pixels that later windows draw.
    later: Vec<bool>,
    filling: Filling,
}

impl<'a> WindowPreview<'a> {
    /// The first of these windows, before its first step; the others are drawn later.
    ///
    /// # Errors
    /// As [`PictureCodec::encode`](pgm_infer::picture::PictureCodec::encode).
    pub fn new(model: &'a ImageModel, canvas: Picture, windows: &'a [OpenWindow]) -> Result<Self, InferError> {
        let (window, channels) = (&windows[0], model.grid().channels);
        let area = window.area;
        let part = canvas.window(area.x, area.y, area.width, area.height);
        let known = model.codec().encode(&[part])?.remove(0);
        let given = known.into_iter().enumerate().filter(|(index, _)| !window.cells[index / channels]);
        let filling = Filling::new(model, &model.request_around(None, 0, given));
        let (mut later, cell_of) = (vec![false; canvas.width() * canvas.height()], cell_of(model));
        for window in &windows[1..] {
            for pixel in (0..area.width * area.height).filter(|&pixel| window.cells[cell_of(pixel)]) {
                let (x, y) = (window.area.x + pixel % area.width, window.area.y + pixel / area.width);
                later[y * canvas.width() + x] = true;
            }
        }
        Ok(Self { model, window, canvas, later, filling })
    }

    /// Takes a step's changes over.
    pub fn step(&mut self, change: &RowChange) {
        self.filling.apply(self.model, change);
    }

    /// The whole picture: decoded cells lie in the picture before, whose known pixels stay.
    ///
    /// # Errors
    /// As [`Filling::picture`].
    pub fn show(&self) -> Result<Shown, InferError> {
        let (area, cells) = (self.window.area, self.filling.open_cells(self.model));
        let cell_of = cell_of(self.model);
        let (width, channels) = (self.canvas.width(), self.canvas.channels());
        let (mut pixels, mut open) = (self.canvas.pixels().to_vec(), self.later.clone());
        // Without a decoded cell there is nothing to decode.
        let is_begun = cells.iter().zip(&self.window.cells).any(|(open, drawn)| *drawn && !open);
        let drawn = is_begun.then(|| self.filling.picture(self.model)).transpose()?;
        for pixel in (0..area.width * area.height).filter(|&pixel| self.window.cells[cell_of(pixel)]) {
            let (x, y) = (pixel % area.width, pixel / area.width);
            let index = (area.y + y) * width + area.x + x;
            open[index] |= cells[cell_of(pixel)];
            if let Some(drawn) = drawn.as_ref().filter(|_| !cells[cell_of(pixel)]) {
                pixels[index * channels..][..channels].copy_from_slice(drawn.pixel(x, y));
            }
        }
        if !open.contains(&true) {
            open.clear();
        }
        Ok(Shown { picture: Picture::new(width, self.canvas.height(), channels, pixels), open })
    }
}

/// The cell of a pixel of the model's pictures, both counted from the left upper corner in rows.
pub fn cell_of(model: &ImageModel) -> impl Fn(usize) -> usize {
    let (grid, (width, height, _)) = (model.grid(), model.codec().shape());
    move |pixel| (pixel / width) * grid.rows / height * grid.columns + (pixel % width) * grid.columns / width
}
