//! An edit under way.
//!
//! The tokens of the known part are clean from the start, so the model sees them in every step and they stay as they are. A
//! picture that is larger than the model's is edited in windows of the model's size, each of which sees what those before it
//! drew.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::edit::Edit;
use super::model::ImageModel;
use super::pixels::Picture;
use super::preview::Filling;
use super::region::{PixelBox, Region};
use crate::InferError;
use crate::denoise::SamplingPath;
use crate::sample::{SampleRequest, SampleSettings, SampledRow, StepView};

/// An edited picture.
#[derive(Clone, Debug)]
pub struct EditedPicture {
    /// The picture.
    pub picture: Picture,
    /// The windows that were drawn, in their order.
    pub windows: Vec<EditedWindow>,
    /// Network evaluations.
    pub n_evaluations: usize,
    /// Whether everything was drawn; not if the run was stopped.
    pub complete: bool,
}

/// A window of the model's size.
#[derive(Clone, Debug)]
pub struct EditedWindow {
    /// Its place in the picture.
    pub area: PixelBox,
    /// The known tokens: the index of each in the grid, and the token.
    pub given: Vec<(usize, u32)>,
    /// All tokens after the edit, in the order of the grid.
    pub tokens: Vec<u32>,
}

/// An edit under way, one window after the other: [`next_row`](Self::next_row) says what is to be sampled,
/// [`finish_row`](Self::finish_row) takes it.
#[derive(Clone, Debug)]
pub struct EditRun {
    // Shared until the first window is drawn: the runs of several results of one edit begin with the same picture.
    edit: Arc<Edit>,
    class: Option<usize>,
    seed: u64,
    windows: Vec<EditedWindow>,
    // The window that is being sampled, and the tokens that it knows.
    open: Option<(OpenWindow, Vec<(usize, u32)>)>,
}

/// A window of an edit before it is drawn.
#[derive(Clone, Debug)]
pub struct OpenWindow {
    /// Its place in the picture.
    pub area: PixelBox,
    /// Whether each cell of the grid is drawn again.
    pub cells: Vec<bool>,
    // The region in this window without what earlier windows draw.
    part: Region,
}

impl OpenWindow {
    // The next window of an edit of which earlier windows are done.
    fn next(model: &ImageModel, edit: &Edit) -> Option<Self> {
        let ((width, height, _), grid) = (model.codec().shape(), model.grid());
        let area = edit.next_window(width, height)?;
        let part = edit.region.window(area);
        // Codes of a codec tell of their neighbours' pixels, so the cells next to the region are drawn again, too.
        let margin = usize::from(!model.codec().is_exact());
        Some(Self { area, cells: part.cells(grid.rows, grid.columns, margin), part })
    }
}

impl EditRun {
    /// The edit before its first window, which has the seed. Those of later windows follow from it and their number.
    ///
    /// # Errors
    /// [`InferError::Request`] for a picture that is smaller than the model's.
    pub fn new(model: &ImageModel, edit: Arc<Edit>, class: Option<usize>, seed: u64) -> Result<Self, InferError> {
        check_size(model, &edit)?;
        let (.., channels) = model.codec().shape();
        let mut edit = edit;
        if edit.canvas.channels() != channels {
            let edit = Arc::make_mut(&mut edit);
            edit.canvas = edit.canvas.clone().with_channels(channels);
        }
        Ok(Self { edit, class, seed, windows: Vec::new(), open: None })
    }

    /// The row of the next window, to be sampled; none when everything is drawn.
    ///
    /// # Errors
    /// As [`PictureCodec::encode`](super::PictureCodec::encode).
    pub fn next_row(&mut self, model: &ImageModel) -> Result<Option<SampleRequest>, InferError> {
        let Some(window) = OpenWindow::next(model, &self.edit) else { return Ok(None) };
        let (PixelBox { x, y, width, height }, n_channels) = (window.area, model.grid().channels);
        let before = self.edit.canvas.window(x, y, width, height);
        let known = model.codec().encode(std::slice::from_ref(&before))?.remove(0);
        let given: Vec<(usize, u32)> =
            known.into_iter().enumerate().filter(|(index, _)| !window.cells[index / n_channels]).collect();
        // Not the seed of another picture's first window.
        let seed = self.seed ^ (self.windows.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let row = model.request_around(self.class, seed, given.iter().copied());
        self.open = Some((window, given));
        Ok(Some(row))
    }

    /// Pastes a sampled window into the picture.
    ///
    /// # Errors
    /// As [`PictureCodec::decode`](super::PictureCodec::decode).
    pub fn finish_row(&mut self, model: &ImageModel, row: &SampledRow) -> Result<(), InferError> {
        let Some((OpenWindow { area, part, .. }, given)) = self.open.take() else { return Ok(()) };
        let drawn = model.pictures(&[row])?.remove(0);
        let edit = Arc::make_mut(&mut self.edit);
        blend(&mut edit.canvas, &drawn, &part.soft(deviation(model)), area);
        edit.region.clear(area);
        self.windows.push(EditedWindow { area, given, tokens: model.cells(row).to_vec() });
        Ok(())
    }

    /// The picture with the tokens that the open window has so far.
    ///
    /// # Errors
    /// As [`PictureCodec::decode`](super::PictureCodec::decode).
    pub fn preview(&self, model: &ImageModel, filling: &Filling) -> Result<Picture, InferError> {
        let mut canvas = self.edit.canvas.clone();
        if let Some((OpenWindow { area, part, .. }, _)) = &self.open {
            blend(&mut canvas, &filling.picture(model)?, &part.soft(deviation(model)), *area);
        }
        Ok(canvas)
    }

    /// Whether each pixel is still to be drawn, in rows: those of the region whose cell in the open window has no token yet, and
    /// those of later windows.
    pub fn open_pixels(&self, model: &ImageModel, filling: &Filling) -> Vec<bool> {
        let (region, cells) = (&self.edit.region, filling.open_cells(model));
        let is_known = |x: usize, y: usize| {
            self.open.as_ref().is_some_and(|(OpenWindow { area, .. }, _)| {
                let is_inside =
                    (area.x..area.x + area.width).contains(&x) && (area.y..area.y + area.height).contains(&y);
                is_inside && !cells[model.cell_at(x - area.x, y - area.y)]
            })
        };
        let (width, height) = region.size();
        let pixels = (0..width * height).map(|pixel| (pixel % width, pixel / width));
        pixels.map(|(x, y)| region.contains(x, y) && !is_known(x, y)).collect()
    }

    /// The windows that were drawn so far, in their order.
    pub fn windows(&self) -> &[EditedWindow] {
        &self.windows
    }

    /// The picture as it is now.
    pub fn picture(&self) -> &Picture {
        &self.edit.canvas
    }
}

impl ImageModel {
    /// The windows that an edit draws, in their order.
    ///
    /// # Errors
    /// [`InferError::Request`] for a picture that is smaller than the model's.
    pub fn open_windows(&self, edit: &Edit) -> Result<Vec<OpenWindow>, InferError> {
        check_size(self, edit)?;
        let mut rest = edit.clone();
        let next = || {
            let window = OpenWindow::next(self, &rest)?;
            rest.region.clear(window.area);
            Some(window)
        };
        Ok(std::iter::from_fn(next).collect())
    }

    /// Edits a picture. `observe` sees each step with the number of the window, and can stop the run, which then returns the
    /// picture as it is.
    ///
    /// # Errors
    /// [`InferError::Request`] for a picture that is smaller than the model's; as [`generate`](Self::generate).
    pub fn edit(
        &self,
        edit: &Edit,
        class: Option<usize>,
        seed: u64,
        settings: &SampleSettings,
        observe: &mut dyn FnMut(usize, &StepView) -> ControlFlow<()>,
    ) -> Result<EditedPicture, InferError> {
        let mut run = EditRun::new(self, Arc::new(edit.clone()), class, seed)?;
        let (mut n_evaluations, mut complete) = (0, true);
        while let Some(request) = run.next_row(self)? {
            let number = run.windows.len();
            let observe = &mut |view: &StepView| observe(number, view);
            let output = self.generate(std::slice::from_ref(&request), settings, SamplingPath::Clean, observe)?;
            n_evaluations += output.n_evaluations;
            let row = &output.rows[0];
            if !row.complete {
                complete = false;
                break;
            }
            run.finish_row(self, row)?;
        }
        debug_assert!(!complete || run.edit.region.is_empty());
        Ok(EditedPicture { picture: run.edit.canvas.clone(), windows: run.windows, n_evaluations, complete })
    }
}

fn check_size(model: &ImageModel, edit: &Edit) -> Result<(), InferError> {
    let ((width, height, _), (all, lines)) = (model.codec().shape(), edit.region.size());
    if all < width || lines < height {
        let message = format!(
            "the picture has {all} x {lines} pixels and the model draws {width} x {height}; enlarge it, or add to its \
             edges with --outpaint"
        );
        return Err(InferError::Request(message));
    }
    Ok(())
}

// How far outside its region a window is blended, in pixels.
fn deviation(model: &ImageModel) -> f32 {
    let ((width, ..), grid) = (model.codec().shape(), model.grid());
    if model.codec().is_exact() { 0.0 } else { (width / grid.columns) as f32 / 2.0 }
}

// Pastes a drawn window with a weight for each pixel.
fn blend(canvas: &mut Picture, drawn: &Picture, weights: &[f32], area: PixelBox) {
    for (index, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        let (x, y) = (index % area.width, index / area.width);
        for (old, &new) in canvas.pixel_mut(area.x + x, area.y + y).iter_mut().zip(drawn.pixel(x, y)) {
            *old = (f32::from(*old) + weight * (f32::from(new) - f32::from(*old))).round() as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_window_is_blended_by_its_weights() {
        let mut canvas = Picture::filled(4, 2, &[100]);
        let area = PixelBox { x: 1, y: 0, width: 2, height: 2 };
        blend(&mut canvas, &Picture::filled(2, 2, &[200]), &[0.0, 0.5, 1.0, 0.0], area);
        assert_eq!(canvas.pixels(), [100, 100, 150, 100, 100, 200, 100, 100]);
    }
}
