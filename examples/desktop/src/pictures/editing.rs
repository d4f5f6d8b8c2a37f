//! The picture on the canvas: its mask, its class, and which cells a refill would draw again.

use pgm_infer::picture::{Edit, Region};
use pgm_infer::{ImageModel, InferError, Picture};

use super::mask::Mask;

/// A picture larger than this many times the model's side is scaled to the model's size.
const MOST_TIMES: usize = 4;

/// Which picture is edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One of the grid.
    Grid(usize),
    /// The one that was opened from a file.
    Opened,
}

/// The brush.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Brush {
    /// Its diameter in pixels of the picture.
    pub size: f32,
    /// Whether it erases.
    pub erases: bool,
    // The width of the picture that its size was chosen for.
    width: usize,
}

impl Default for Brush {
    fn default() -> Self {
        Self { size: 4.0, erases: false, width: 0 }
    }
}

impl Brush {
    /// For a picture of another width than the last one, the size begins at an eighth of it.
    pub fn fit(&mut self, width: usize) {
        if self.width != width {
            *self = Self { size: (width as f32 / 8.0).round().max(1.0), erases: false, width };
        }
    }
}

/// The cells that a refill draws again, as rectangles in pixels: left, top, width, height.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenCells {
    /// The mask that they belong to.
    pub revision: u64,
    /// The rectangles.
    pub cells: Vec<[f32; 4]>,
}

/// An edit in progress.
#[derive(Clone, Debug)]
pub struct Editing {
    /// Which picture.
    pub target: Target,
    /// What is marked.
    pub mask: Mask,
    /// The class of the refill as text; empty for no class in particular.
    pub class: String,
    /// The cells that the mask opens.
    pub open: OpenCells,
    /// The mask that was refilled last, by its revision. It covers the result only while it is pointed at.
    pub refilled: Option<u64>,
    /// The last point of the stroke that is being drawn.
    pub stroke: Option<[f32; 2]>,
    /// The file's picture in its own size, if that is not the size on the canvas and the model can edit it.
    pub original: Option<Picture>,
}

impl Editing {
    /// An edit of a picture of this size; nothing is marked.
    pub fn new(target: Target, picture: &Picture, class: String) -> Self {
        Self {
            target,
            mask: Mask::new(picture.width(), picture.height()),
            class,
            open: OpenCells::default(),
            refilled: None,
            stroke: None,
            original: None,
        }
    }

    /// The edit of a picture by the mask.
    ///
    /// # Errors
    /// As [`Region::of_pixels`] and [`Edit::inpaint`].
    pub fn edit(&self, picture: &Picture) -> Result<Edit, InferError> {
        Edit::inpaint(picture.clone(), Region::of_pixels(picture, self.mask.marked().to_vec())?)
    }

    /// The cells that it opens have to be found again.
    pub fn mask_changed(&mut self) {
        self.open.revision = u64::MAX;
    }

    /// Finds the cells that the mask opens, if the mask has changed. Pictures of another size than the model's have none
    /// here: their windows take long to find.
    pub fn update_open(&mut self, picture: &Picture, model: &ImageModel) {
        if self.open.revision == self.mask.revision() {
            return;
        }
        let (width, height, _) = model.codec().shape();
        let is_same = (picture.width(), picture.height()) == (width, height) && self.mask.size() == (width, height);
        let windows = if is_same {
            self.edit(picture).and_then(|edit| model.open_windows(&edit)).unwrap_or_default()
        } else {
            Vec::new()
        };
        let grid = model.grid();
        let (cell_width, cell_height) = (width as f32 / grid.columns as f32, height as f32 / grid.rows as f32);
        let rectangle = |cell: usize| {
            let (row, column) = (cell / grid.columns, cell % grid.columns);
            [column as f32 * cell_width, row as f32 * cell_height, cell_width, cell_height]
        };
        let opened = windows.iter().flat_map(|window| (0..window.cells.len()).filter(|&cell| window.cells[cell]));
        self.open = OpenCells { revision: self.mask.revision(), cells: opened.map(rectangle).collect() };
    }
}

/// Whether a picture can be edited in its own size.
pub fn has_editable_size(picture: &Picture, model: &ImageModel) -> bool {
    let (width, height, _) = model.codec().shape();
    (width..=MOST_TIMES * width).contains(&picture.width())
        && (height..=MOST_TIMES * height).contains(&picture.height())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::tiny::tiny;

    #[test]
    fn the_cells_of_a_mask_are_found_once_for_each_stroke() {
        let model = tiny(["a"]);
        let picture = Picture::filled(12, 16, &[0]);
        let mut editing = Editing::new(Target::Opened, &picture, String::new());
        editing.update_open(&picture, &model);
        assert!(editing.open.cells.is_empty());
        editing.mask.stroke([2.5, 3.5], [4.5, 3.5], 1.0, false);
        editing.update_open(&picture, &model);
        assert_eq!(editing.open.cells, [[2.0, 3.0, 1.0, 1.0], [3.0, 3.0, 1.0, 1.0], [4.0, 3.0, 1.0, 1.0]]);
        editing.mask.clear();
        editing.update_open(&picture, &model);
        assert!(editing.open.cells.is_empty() && editing.edit(&picture).is_err());
        let size = |width, height| has_editable_size(&Picture::filled(width, height, &[0]), &model);
        assert!(size(12, 16) && size(48, 20) && !size(11, 16) && !size(49, 16));
    }
}
