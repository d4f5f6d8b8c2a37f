//! The grid of pictures, as it fills.

use eframe::egui::{
    Align, Align2, Button, Color32, CursorIcon, FontId, Frame, Layout, Margin, Rect, RichText, ScrollArea, Sense,
    Slider, Stroke, StrokeKind, Ui, Vec2, pos2, vec2,
};

use super::textures::{Key, Textures, color_image};
use crate::app::App;
use crate::paint::Palette;
use crate::pictures::drawing::Drawing;
use crate::pictures::editing::Target;
use crate::view::fields;
use crate::worker::Choice;

const GAP: f32 = 8.0;
const NAME_HEIGHT: f32 = 18.0;
/// The whole texture.
pub const WHOLE: Rect = Rect { min: pos2(0.0, 0.0), max: pos2(1.0, 1.0) };

/// The grid with its buttons.
pub fn show(ui: &mut Ui, app: &mut App, textures: &mut Textures, side: &mut f32) {
    let palette = Palette::of(ui.visuals());
    ui.horizontal(|ui| {
        ui.label(RichText::new("Pictures").heading());
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let has_complete = app.pictures.grid.iter().any(Drawing::is_complete);
            let save = ui.add_enabled(has_complete && !app.choosing, Button::new("Save sheet…"));
            if save.on_hover_text("All pictures in one PNG, with the names of their classes").clicked() {
                app.save_sheet();
            }
            let open = ui.add_enabled(!app.choosing, Button::new("Edit a file…"));
            if open.on_hover_text("Choose a picture to edit, or drop one onto the window").clicked() {
                app.choose(Choice::Picture);
            }
            if let Some(name) = app.pictures.opened.as_ref().map(|opened| shortened(&opened.name, 24)) {
                let again = ui.button(format!("Go on with {name}"));
                if again.on_hover_text("The picture of a file that was edited last, as it is now").clicked() {
                    app.edit(Target::Opened);
                }
            }
            ui.add(Slider::new(side, 24.0..=320.0).show_value(false)).on_hover_text("Size of the pictures");
            ui.weak("Size");
        });
    });
    let running = app.pictures.run.as_ref().filter(|run| run.is_running());
    let done = running.map(|run| run.step as f32 / run.n_steps.max(1) as f32);
    fields::run_buttons(ui, app, "Generate", true, done, "Ctrl+Enter draws, Escape stops.");
    ui.add_space(2.0);
    textures.keep(app.pictures.grid.len());
    Frame::new()
        .fill(palette.text_background)
        .stroke(ui.visuals().widgets.noninteractive.bg_stroke)
        .corner_radius(6)
        .inner_margin(Margin::symmetric(12, 10))
        .show(ui, |ui| {
            ScrollArea::vertical().id_salt("grid").auto_shrink(false).show(ui, |ui| {
                if app.pictures.grid.is_empty() {
                    ui.weak(
                        "What the model draws appears here, anywhere in a picture at once. Click a picture to edit it.",
                    );
                } else {
                    pictures(ui, app, textures, *side);
                }
            });
        });
}

enum Action {
    Edit,
    Save,
    Copy,
    CopySeed,
}

fn pictures(ui: &mut Ui, app: &mut App, textures: &mut Textures, side: f32) {
    let palette = Palette::of(ui.visuals());
    let size = shown_size(&app.pictures.grid[0], side);
    let has_names = app.pictures.grid.iter().any(|drawing| !drawing.name.is_empty());
    let cell = size + vec2(0.0, if has_names { NAME_HEIGHT } else { 0.0 });
    let n_columns = columns(ui.available_width(), cell.x, &app.pictures.grid);
    let n_rows = app.pictures.grid.len().div_ceil(n_columns);
    let all = vec2(n_columns as f32 * (cell.x + GAP) - GAP, n_rows as f32 * (cell.y + GAP) - GAP);
    let (area, _) = ui.allocate_exact_size(all, Sense::hover());
    let mut action = None;
    for (index, drawing) in app.pictures.grid.iter().enumerate() {
        let (row, column) = ((index / n_columns) as f32, (index % n_columns) as f32);
        let place = Rect::from_min_size(area.min + vec2(column * (cell.x + GAP), row * (cell.y + GAP)), cell);
        if !ui.is_rect_visible(place) {
            continue;
        }
        let rect = Rect::from_min_size(place.min, size);
        let texture = textures.get(ui.ctx(), Key::Grid(index), &drawing.shown, palette.open);
        ui.painter().image(texture, rect, WHOLE, Color32::WHITE);
        if has_names {
            let at = pos2(rect.center().x, rect.bottom() + 2.0);
            let name = shortened(&drawing.name, (cell.x / 6.5) as usize);
            ui.painter().text(at, Align2::CENTER_TOP, name, FontId::proportional(12.5), palette.given);
        }
        let is_complete = drawing.is_complete();
        let response = ui.interact(rect, ui.scope_id().with(("picture", index)), Sense::click());
        if response.hovered() && is_complete {
            ui.painter().rect_stroke(rect, 0.0, Stroke::new(2.0, palette.accent), StrokeKind::Outside);
        }
        if response.clicked() && is_complete {
            action = Some((index, Action::Edit));
        }
        response.context_menu(|ui| {
            for (name, clicked) in [("Edit", Action::Edit), ("Save…", Action::Save), ("Copy", Action::Copy)] {
                if ui.add_enabled(is_complete, Button::new(name)).clicked() {
                    action = Some((index, clicked));
                    ui.close();
                }
            }
            if ui.add_enabled(drawing.seed.is_some(), Button::new("Copy seed")).clicked() {
                action = Some((index, Action::CopySeed));
                ui.close();
            }
        });
        let seed = drawing.seed.map_or_else(String::new, |seed| format!("seed {seed}"));
        let about = if is_complete { "click to edit, right click for more" } else { "not complete" };
        let response = response.on_hover_text(format!("{}\n{seed}\n{about}", drawing.name).trim());
        if is_complete {
            response.on_hover_cursor(CursorIcon::PointingHand);
        }
    }
    match action {
        Some((index, Action::Edit)) => app.edit(Target::Grid(index)),
        Some((index, Action::Save)) => app.save_picture(Target::Grid(index)),
        Some((index, Action::CopySeed)) => {
            let seed = app.pictures.grid[index].seed;
            ui.ctx().copy_text(seed.map_or_else(String::new, |seed| seed.to_string()));
        }
        Some((index, Action::Copy)) => ui.ctx().copy_image(color_image(&app.pictures.grid[index].shown.picture)),
        None => {}
    }
}

// Small pictures are enlarged by a whole number, so that their pixels are equal squares.
fn shown_size(drawing: &Drawing, side: f32) -> Vec2 {
    let picture = &drawing.shown.picture;
    let (width, height) = (picture.width() as f32, picture.height() as f32);
    let factor = side / width.max(height);
    let factor = if factor >= 1.0 { factor.round() } else { factor };
    vec2(width, height) * factor
}

// As many as there is room for; a multiple of the pictures of a class, if that many fit.
fn columns(available: f32, width: f32, grid: &[Drawing]) -> usize {
    let most = (((available + GAP) / (width + GAP)) as usize).max(1);
    let n = grid.iter().take_while(|drawing| drawing.class == grid[0].class).count();
    if n < grid.len() && n <= most { most / n * n } else { most }
}

fn shortened(name: &str, most: usize) -> String {
    let n = name.chars().count();
    if n <= most.max(2) { name.to_string() } else { name.chars().take(most.max(2) - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::drawing::Shown;

    fn drawing(class: &str, shape: (usize, usize, usize)) -> Drawing {
        let (name, class) = (class.to_string(), class.to_string());
        Drawing { name, class, seed: None, shown: Shown::blank(shape), before: Vec::new() }
    }

    #[test]
    fn small_pictures_are_enlarged_by_a_whole_number_and_large_ones_shrink() {
        assert_eq!(shown_size(&drawing("a", (28, 28, 1)), 84.0), vec2(84.0, 84.0));
        assert_eq!(shown_size(&drawing("a", (28, 14, 1)), 100.0), vec2(112.0, 56.0));
        assert_eq!(shown_size(&drawing("a", (256, 128, 3)), 64.0), vec2(64.0, 32.0));
    }

    #[test]
    fn a_line_holds_whole_classes_if_they_fit() {
        let grid = |n: usize| -> Vec<Drawing> {
            ["a", "b"].iter().flat_map(|class| vec![drawing(class, (8, 8, 1)); n]).collect()
        };
        assert_eq!(columns(800.0, 92.0, &grid(3)), 6);
        assert_eq!(columns(800.0, 92.0, &grid(9)), 8);
        assert_eq!(columns(10.0, 92.0, &grid(3)), 1);
        assert_eq!((shortened("a dog", 9), shortened("a long name", 6)), ("a dog".into(), "a lon…".into()));
    }
}
