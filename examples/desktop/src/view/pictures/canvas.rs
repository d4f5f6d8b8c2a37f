//! The picture that is edited: the brush paints on it what is drawn again.

use std::sync::Arc;

use eframe::egui::{
    Align, Button, Color32, CursorIcon, Frame, Id, Layout, Margin, Painter, PointerButton, Pos2, Rect, Response,
    RichText, Sense, Slider, Stroke, StrokeKind, Ui, pos2, vec2,
};

use super::grid::WHOLE;
use super::textures::{Key, Textures, color_image};
use crate::app::App;
use crate::paint::Palette;
use crate::pictures::drawing::Shown;
use crate::pictures::editing::Editing;
use crate::view::fields;

/// Id of the picture's widget.
pub const CANVAS: &str = "pgm-canvas";

const CELL: Color32 = Color32::from_rgb(0xff, 0xb0, 0x20);
const MARKED: Color32 = Color32::from_rgb(0x2f, 0x8c, 0xff);

/// The canvas with its tools.
pub fn show(ui: &mut Ui, app: &mut App, textures: &mut Textures) {
    let Some(shown) = app.canvas().cloned() else {
        app.close_editor();
        return;
    };
    title(ui, app, &shown);
    let Some(target) = app.pictures.editing.as_ref().map(|editing| editing.target) else { return };
    tools(ui, app, &shown);
    let running = app.pictures.run.as_ref().filter(|run| run.is_running());
    let refills = running.is_some_and(|run| run.target == Some(target));
    let done = running.map(|run| run.step as f32 / run.n_steps.max(1) as f32);
    let (is_marked, is_refilled) = app.pictures.editing.as_ref().map_or((false, false), |editing| {
        (!editing.mask.is_empty(), editing.refilled == Some(editing.mask.revision()))
    });
    let hint = match (is_marked, is_refilled) {
        (false, _) => "Paint over what is to be drawn again.",
        (true, false) => "Orange cells are drawn again, all else stays.",
        (true, true) if app.pictures.settings.seed.is_empty() => {
            "Point at the picture to see the mask. Refill once more for another."
        }
        (true, true) => "Point at the picture to see the mask. Another seed draws another.",
    };
    fields::run_buttons(ui, app, "Refill", is_marked, done, hint);
    ui.add_space(2.0);
    let palette = Palette::of(ui.visuals());
    Frame::new()
        .fill(palette.text_background)
        .stroke(ui.visuals().widgets.noninteractive.bg_stroke)
        .corner_radius(6)
        .inner_margin(Margin::same(12))
        .show(ui, |ui| {
            let (area, _) = ui.allocate_exact_size(ui.available_size(), Sense::hover());
            let rect = fitted(area, shown.picture.width(), shown.picture.height());
            let texture = textures.get(ui.ctx(), Key::Canvas, &shown, palette.open);
            let painter = ui.painter_at(area.expand(2.0));
            painter.image(texture, rect, WHOLE, Color32::WHITE);
            painter.rect_stroke(rect, 0.0, Stroke::new(1.0, palette.open), StrokeKind::Outside);
            let response = ui.interact(rect, Id::unique(CANVAS), Sense::click_and_drag());
            if !refills {
                paint(&response, app);
                let hovers = response.hovered() || response.dragged();
                if let Some(editing) = app.pictures.editing.as_ref().filter(|_| hovers || !is_refilled) {
                    overlay(&painter, rect, editing);
                }
                cursor(&painter, rect, response, app);
            }
        });
}

fn title(ui: &mut Ui, app: &mut App, shown: &Arc<Shown>) {
    let Some(target) = app.pictures.editing.as_ref().map(|editing| editing.target) else { return };
    let (name, n_before) = app
        .pictures
        .drawing(target)
        .map_or_else(Default::default, |drawing| (drawing.name.clone(), drawing.before.len()));
    let is_idle = !app.pictures.is_running();
    ui.horizontal(|ui| {
        let back = ui.button("Back to the grid").on_hover_text("Escape").clicked();
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            if ui.add_enabled(!app.choosing && shown.open.is_empty(), Button::new("Save…")).clicked() {
                app.save_picture(target);
            }
            if ui.add_enabled(shown.open.is_empty(), Button::new("Copy")).clicked() {
                ui.ctx().copy_image(color_image(&shown.picture));
            }
            let undo = ui.add_enabled(n_before > 0 && is_idle, Button::new("Undo refill"));
            if undo.on_hover_text("Ctrl+Z brings the picture before back").clicked() {
                app.undo();
            }
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                ui.add(eframe::egui::Label::new(RichText::new(name).heading()).truncate());
                ui.weak(format!("{} x {}", shown.picture.width(), shown.picture.height()));
            });
        });
        if back {
            app.close_editor();
        }
    });
}

fn tools(ui: &mut Ui, app: &mut App, shown: &Arc<Shown>) {
    let is_idle = !app.pictures.is_running();
    let largest = (shown.picture.width().max(shown.picture.height()) as f32 / 2.0).max(2.0);
    let mut use_original = false;
    ui.horizontal(|ui| {
        let brush = &mut app.pictures.brush;
        brush.size = brush.size.min(largest);
        ui.selectable_value(&mut brush.erases, false, "Brush").on_hover_text("The left button marks");
        ui.selectable_value(&mut brush.erases, true, "Eraser").on_hover_text("So does the right button");
        ui.weak("Size");
        ui.add(Slider::new(&mut brush.size, 1.0..=largest).max_decimals(0).suffix(" px"));
        let Some(editing) = &mut app.pictures.editing else { return };
        let clear = ui.add_enabled(is_idle && !editing.mask.is_empty(), Button::new("Clear mask"));
        if clear.clicked() {
            editing.mask.clear();
        }
        if let Some(original) = &editing.original {
            let text = format!("Use {} x {}", original.width(), original.height());
            let about = "Edit the file in its own size, in windows of the model's size";
            use_original = ui.add_enabled(is_idle, Button::new(text)).on_hover_text(about).clicked();
        }
    });
    if use_original {
        app.use_original_size();
    }
}

// The picture in the middle, as large as there is room for; enlarged by a whole number.
fn fitted(area: Rect, width: usize, height: usize) -> Rect {
    let size = vec2(width as f32, height as f32);
    let factor = (area.width() / size.x).min(area.height() / size.y);
    let factor = if factor >= 1.0 { factor.floor() } else { factor };
    let rect = Rect::from_center_size(area.center(), size * factor);
    // Whole points keep the pixels equal.
    Rect::from_min_size(pos2(rect.min.x.round(), rect.min.y.round()), rect.size())
}

fn paint(response: &Response, app: &mut App) {
    let erases = app.pictures.brush.erases || response.ctx.input(|input| input.pointer.secondary_down());
    let size = app.pictures.brush.size;
    let Some(editing) = &mut app.pictures.editing else { return };
    let scale = response.rect.width() / editing.mask.size().0 as f32;
    let point = |at: Pos2| [(at.x - response.rect.min.x) / scale, (at.y - response.rect.min.y) / scale];
    let at = response.interact_pointer_pos().map(point);
    match at {
        Some(at) if response.is_pointer_button_down_on() => {
            editing.mask.stroke(editing.stroke.unwrap_or(at), at, size, erases);
            editing.stroke = Some(at);
        }
        // A click may begin and end between two frames.
        Some(at) if editing.stroke.is_none() && (response.clicked() || response.secondary_clicked()) => {
            let erases = erases || response.clicked_by(PointerButton::Secondary);
            editing.mask.stroke(at, at, size, erases);
        }
        _ => editing.stroke = None,
    }
    app.update_open_cells();
}

// The cells that are drawn again, and on them what is marked.
fn overlay(painter: &Painter, rect: Rect, editing: &Editing) {
    let (width, height) = editing.mask.size();
    let scale = rect.width() / width as f32;
    let part = |x: f32, y: f32, width: f32, height: f32| {
        Rect::from_min_size(rect.min + vec2(x, y) * scale, vec2(width, height) * scale)
    };
    for &[x, y, width, height] in &editing.open.cells {
        painter.rect_filled(part(x, y, width, height), 0.0, CELL.gamma_multiply(0.35));
        painter.rect_stroke(part(x, y, width, height), 0.0, Stroke::new(1.0, CELL), StrokeKind::Inside);
    }
    for y in 0..height {
        let row = &editing.mask.marked()[y * width..][..width];
        let mut x = 0;
        while x < width {
            let n = row[x..].iter().take_while(|marked| **marked).count();
            if n > 0 {
                painter.rect_filled(part(x as f32, y as f32, n as f32, 1.0), 0.0, MARKED.gamma_multiply(0.45));
            }
            x += n.max(1);
        }
    }
}

fn cursor(painter: &Painter, rect: Rect, response: Response, app: &App) {
    if let (Some(at), Some(editing)) = (response.hover_pos(), &app.pictures.editing) {
        let radius = app.pictures.brush.size / 2.0 * rect.width() / editing.mask.size().0 as f32;
        painter.circle_stroke(at, radius + 1.0, Stroke::new(1.0, Color32::BLACK));
        painter.circle_stroke(at, radius, Stroke::new(1.0, Color32::WHITE));
    }
    response.on_hover_cursor(CursorIcon::Crosshair);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_picture_is_enlarged_by_a_whole_number_and_a_large_one_fits() {
        let area = Rect::from_min_size(pos2(10.0, 20.0), vec2(300.0, 200.0));
        assert_eq!(fitted(area, 28, 28).size(), vec2(196.0, 196.0));
        let large = fitted(area, 600, 300);
        assert!(large.size() == vec2(300.0, 150.0) && area.contains_rect(large));
    }
}
