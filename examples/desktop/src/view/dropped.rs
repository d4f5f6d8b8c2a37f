//! Files that are dropped onto the window.

use eframe::egui::{Align2, Context, FontId, Id, LayerId, Order};

use crate::app::App;

/// Opens a dropped file, and says what can be dropped while one hovers.
pub fn handle(context: &Context, app: &mut App) {
    let (hovering, dropped) = context.input(|input| {
        let dropped = input.raw.dropped_files.first().map(|file| file.path().to_path_buf());
        (!input.raw.hovered_files.is_empty(), dropped)
    });
    if let Some(path) = dropped {
        app.open_path(path);
    }
    if hovering {
        let area = context.content_rect();
        let painter = context.layer_painter(LayerId::new(Order::Foreground, Id::unique("pgm-drop")));
        let visuals = context.global_style().visuals.clone();
        painter.rect_filled(area, 0.0, visuals.panel_fill.gamma_multiply(0.9));
        let what = if app.shows_pictures { "Drop a picture, a model folder or a codec" } else { "Drop a model folder" };
        painter.text(
            area.center(),
            Align2::CENTER_CENTER,
            what,
            FontId::proportional(22.0),
            visuals.strong_text_color(),
        );
    }
}
