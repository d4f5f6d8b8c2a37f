//! The view of pictures: the grid or the canvas in the centre, settings and history at the side.

pub mod canvas;
mod chips;
mod grid;
mod side_panel;
mod textures;

use eframe::egui::Ui;

use self::textures::Textures;
use crate::app::App;

/// State of the drawing alone.
#[derive(Debug)]
pub struct PictureView {
    textures: Textures,
    // Side of a picture of the grid, in points.
    side: f32,
    // What is typed to find a class.
    filter: String,
}

impl Default for PictureView {
    fn default() -> Self {
        Self { textures: Textures::default(), side: 84.0, filter: String::new() }
    }
}

impl PictureView {
    /// The centre of the window.
    pub fn centre(&mut self, ui: &mut Ui, app: &mut App) {
        if app.pictures.editing.is_some() {
            canvas::show(ui, app, &mut self.textures);
        } else {
            grid::show(ui, app, &mut self.textures, &mut self.side);
        }
    }

    /// The side panel.
    pub fn side_panel(&mut self, ui: &mut Ui, app: &mut App) {
        side_panel::show(ui, app, &mut self.filter);
    }
}
