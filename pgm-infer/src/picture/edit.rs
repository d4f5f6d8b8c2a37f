//! Edits of given pictures: a part is drawn again, or the picture is continued beyond its edges.
//!
//! The tokens of the known part are clean from the start, so the model sees them in every step and they stay as they are. A
//! picture that is larger than the model's is edited in windows of the model's size, each of which sees what those before it
//! drew.

use std::ops::ControlFlow;

use super::model::ImageModel;
use super::pixels::Picture;
use super::region::{PixelBox, Region};
use crate::InferError;
use crate::denoise::SamplingPath;
use crate::sample::{SampleSettings, StepView};

/// The least known share of a window; a window that knows less is drawn later, when its neighbours are there.
const LEAST_KNOWN: f64 = 0.25;

/// Pixels of a picture that is continued, at most.
const MOST_PIXELS: usize = 1 << 26;

/// A picture and what of it is drawn again.
#[derive(Clone, Debug)]
pub struct Edit {
    canvas: Picture,
    region: Region,
}

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

impl Edit {
    /// Draws a part of a picture again.
    ///
    /// # Errors
    /// [`InferError::Request`] when the region is of a picture of another size.
    pub fn inpaint(picture: Picture, region: Region) -> Result<Self, InferError> {
        if region.size() != (picture.width(), picture.height()) {
            return Err(InferError::Request("the region is of a picture of another size".into()));
        }
        Ok(Self { canvas: picture, region })
    }

    /// Continues a picture by so many pixels at its left, top, right and bottom edge.
    ///
    /// # Errors
    /// [`InferError::Request`] for no pixel at all, and for more than a picture can have.
    pub fn outpaint(picture: &Picture, [left, top, right, bottom]: [usize; 4]) -> Result<Self, InferError> {
        if [left, top, right, bottom] == [0; 4] {
            return Err(InferError::Request("--outpaint 0,0,0,0 adds nothing to the picture".into()));
        }
        let sum = |before: usize, size: usize, after: usize| before.checked_add(size)?.checked_add(after);
        let sides = sum(left, picture.width(), right).zip(sum(top, picture.height(), bottom));
        let fits = |&(width, height): &(usize, usize)| {
            width.checked_mul(height).is_some_and(|n_pixels| n_pixels <= MOST_PIXELS)
        };
        let Some((width, height)) = sides.filter(fits) else {
            let message = format!(
                "--outpaint {left},{top},{right},{bottom} makes a picture of more than {MOST_PIXELS} pixels; add less"
            );
            return Err(InferError::Request(message));
        };
        let mut canvas = Picture::filled(width, height, &vec![0; picture.channels()]);
        // The edge's pixels go on outwards: a codec sees no edge that is not there.
        for y in 0..height {
            for x in 0..width {
                let inside = |place: usize, before: usize, size: usize| place.saturating_sub(before).min(size - 1);
                let (from_x, from_y) = (inside(x, left, picture.width()), inside(y, top, picture.height()));
                canvas.pixel_mut(x, y).copy_from_slice(picture.pixel(from_x, from_y));
            }
        }
        let region = Region::around(picture, left, top, width, height);
        Ok(Self { canvas, region })
    }

    /// The picture before the edit, with the edges of a continued one.
    pub fn canvas(&self) -> &Picture {
        &self.canvas
    }

    /// What is drawn again.
    pub fn region(&self) -> &Region {
        &self.region
    }

    // The next window of this size: the one that draws most of those that know enough; if none does, the one that knows most.
    fn next_window(&self, width: usize, height: usize) -> Option<PixelBox> {
        let bounds = self.region.bounds()?;
        let (all, lines) = self.region.size();
        let places = |all: usize, size: usize, start: usize, length: usize| {
            let middle = (start + length / 2).saturating_sub(size / 2).min(all - size);
            let steps = (0..=all - size).step_by((size / 2).max(1));
            std::iter::once(middle).chain(steps).chain([all - size]).collect::<Vec<_>>()
        };
        let columns = places(all, width, bounds.x, bounds.width);
        let rows = places(lines, height, bounds.y, bounds.height);
        let windows = rows.iter().flat_map(|&y| columns.iter().map(move |&x| PixelBox { x, y, width, height }));
        let scored = windows.filter_map(|area| {
            let n_open = self.region.window(area).n_pixels();
            let known = 1.0 - n_open as f64 / (width * height) as f64;
            (n_open > 0).then_some((area, n_open, known))
        });
        let better =
            |a: &(PixelBox, usize, f64), b: &(PixelBox, usize, f64)| match (a.2 >= LEAST_KNOWN, b.2 >= LEAST_KNOWN) {
                (true, true) => a.1 > b.1,
                (false, false) => a.2 > b.2,
                (a, _) => a,
            };
        // Of equal windows the first: the one around the middle of the region.
        scored.reduce(|best, next| if better(&next, &best) { next } else { best }).map(|(area, ..)| area)
    }
}

impl ImageModel {
    /// The windows that an edit draws, in their order.
    ///
    /// # Errors
    /// [`InferError::Request`] for a picture that is smaller than the model's.
    pub fn open_windows(&self, edit: &Edit) -> Result<Vec<OpenWindow>, InferError> {
        let (width, height, _) = self.codec().shape();
        let (all, lines) = edit.region.size();
        if all < width || lines < height {
            let message = format!(
                "the picture has {all} x {lines} pixels and the model draws {width} x {height}; enlarge it, or add to its \
                 edges with --outpaint"
            );
            return Err(InferError::Request(message));
        }
        let (grid, mut rest, mut windows) = (self.grid(), edit.clone(), Vec::new());
        // Codes of a codec tell of their neighbours' pixels, so the cells next to the region are drawn again, too.
        let margin = usize::from(!self.codec().is_exact());
        while let Some(area) = rest.next_window(width, height) {
            let part = rest.region.window(area);
            windows.push(OpenWindow { area, cells: part.cells(grid.rows, grid.columns, margin), part });
            rest.region.clear(area);
        }
        debug_assert!(rest.region.is_empty());
        Ok(windows)
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
        let (width, height, channels) = self.codec().shape();
        let mut canvas = edit.canvas.clone().with_channels(channels);
        let grid = self.grid();
        let deviation = if self.codec().is_exact() { 0.0 } else { (width / grid.columns) as f32 / 2.0 };
        let (mut windows, mut n_evaluations) = (Vec::new(), 0);
        for (number, OpenWindow { area, cells: open, part }) in self.open_windows(edit)?.into_iter().enumerate() {
            let before = canvas.window(area.x, area.y, width, height);
            let known = self.codec().encode(std::slice::from_ref(&before))?.remove(0);
            let given: Vec<(usize, u32)> =
                known.into_iter().enumerate().filter(|(index, _)| !open[index / grid.channels]).collect();
            let request = self.request_around(class, seed.wrapping_add(number as u64), given.iter().copied());
            let observe = &mut |view: &StepView| observe(number, view);
            let output = self.generate(std::slice::from_ref(&request), settings, SamplingPath::Clean, observe)?;
            n_evaluations += output.n_evaluations;
            let row = &output.rows[0];
            if !row.complete {
                return Ok(EditedPicture { picture: canvas, windows, n_evaluations, complete: false });
            }
            let drawn = self.pictures(&[row])?.remove(0);
            blend(&mut canvas, &drawn, &part.soft(deviation), area);
            windows.push(EditedWindow { area, given, tokens: self.cells(row).to_vec() });
        }
        Ok(EditedPicture { picture: canvas, windows, n_evaluations, complete: true })
    }
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

    fn area(x: usize, y: usize, width: usize, height: usize) -> PixelBox {
        PixelBox { x, y, width, height }
    }

    #[test]
    fn a_continued_picture_keeps_its_pixels_and_repeats_its_edge() {
        let picture = Picture::new(3, 2, 1, vec![1, 2, 3, 4, 5, 6]);
        let edit = Edit::outpaint(&picture, [2, 0, 1, 1]).unwrap();
        assert_eq!((edit.canvas.width(), edit.canvas.height()), (6, 3));
        assert_eq!(edit.canvas.pixels(), [1, 1, 1, 2, 3, 3, 4, 4, 4, 5, 6, 6, 4, 4, 4, 5, 6, 6]);
        assert_eq!(edit.region.n_pixels(), 18 - 6);
        assert!(!edit.region.contains(2, 0) && edit.region.contains(1, 0) && edit.region.contains(2, 2));
        let refused = |edges| Edit::outpaint(&picture, edges).unwrap_err().to_string();
        assert!(refused([1 << 14, 1 << 13, 0, 0]).contains("add less"));
        assert!(refused([0; 4]).contains("adds nothing") && refused([0, usize::MAX, 0, 9]).contains("more than"));
    }

    #[test]
    fn windows_cover_the_region_from_what_is_known_outwards() {
        let picture = Picture::filled(16, 16, &[0]);
        let run = |mut edit: Edit| {
            let mut windows = Vec::new();
            while let Some(window) = edit.next_window(16, 16) {
                let known = 1.0 - edit.region.window(window).n_pixels() as f64 / 256.0;
                windows.push((window, known));
                edit.region.clear(window);
            }
            assert!(edit.region.is_empty());
            windows
        };
        // A part of a picture of the model's size: the whole picture is the window.
        let box_ = Region::of_box(&picture, area(3, 4, 5, 2)).unwrap();
        assert_eq!(run(Edit::inpaint(picture.clone(), box_).unwrap())[0].0, area(0, 0, 16, 16));
        // Wider by 40 pixels: no window begins without a neighbour that is known.
        let windows = run(Edit::outpaint(&picture, [0, 0, 40, 0]).unwrap());
        assert!(windows.len() >= 4 && windows.iter().all(|(_, known)| *known >= LEAST_KNOWN), "{windows:?}");
        let windows = run(Edit::outpaint(&picture, [9, 20, 3, 5]).unwrap());
        assert!(windows[0].1 >= LEAST_KNOWN, "{windows:?}");
        // A small box in a large picture stands in the middle of its window.
        let large = Picture::filled(100, 60, &[0]);
        let box_ = Region::of_box(&large, area(40, 30, 4, 4)).unwrap();
        assert_eq!(run(Edit::inpaint(large, box_).unwrap()), [(area(34, 24, 16, 16), 1.0 - 16.0 / 256.0)]);
    }

    #[test]
    fn a_drawn_window_is_blended_by_its_weights() {
        let mut canvas = Picture::filled(4, 2, &[100]);
        blend(&mut canvas, &Picture::filled(2, 2, &[200]), &[0.0, 0.5, 1.0, 0.0], area(1, 0, 2, 2));
        assert_eq!(canvas.pixels(), [100, 100, 150, 100, 100, 200, 100, 100]);
    }
}
