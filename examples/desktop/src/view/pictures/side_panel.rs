//! The side panel of pictures: classes, settings and history.

use eframe::egui::{DragValue, Grid, RichText, ScrollArea, TextEdit, Ui, vec2};

use super::chips::{self, Clicked};
use crate::app::App;
use crate::pictures::classes;
use crate::pictures::settings::MOST_PICTURES;
use crate::view::fields::{self, name};

/// The side panel.
pub fn show(ui: &mut Ui, app: &mut App, filter: &mut String) {
    let has_classes = app.model.pictures().is_none_or(|model| model.image().n_classes > 0);
    if has_classes {
        if app.pictures.editing.is_some() {
            refill_class(ui, app, filter);
        } else {
            grid_classes(ui, app, filter);
        }
    }
    ui.label(RichText::new("Settings").heading());
    settings(ui, app, has_classes);
    ui.add_space(4.0);
    ui.separator();
    history(ui, app);
}

fn grid_classes(ui: &mut Ui, app: &mut App, filter: &mut String) {
    ui.label(RichText::new("Classes").heading());
    let text = &mut app.pictures.settings.classes;
    let edit = TextEdit::singleline(text).hint_text("no class in particular").desired_width(f32::INFINITY);
    ui.add(edit.min_size(vec2(0.0, 28.0))).on_hover_text("Names or numbers with commas between them, or all");
    let Some(model) = app.model.pictures() else { return };
    let selected = classes::parse(text, model);
    if let Err(error) = &selected {
        ui.colored_label(ui.visuals().error_fg_color, error);
    }
    match chips::show(ui, model, &selected.unwrap_or_default(), true, filter) {
        Some(Clicked::Class(class)) => *text = classes::toggled(text, class, model),
        Some(Clicked::All) => *text = classes::format(&(0..model.image().n_classes).collect::<Vec<_>>(), model),
        Some(Clicked::None) => text.clear(),
        None => {}
    }
    ui.add_space(4.0);
}

fn refill_class(ui: &mut Ui, app: &mut App, filter: &mut String) {
    ui.label(RichText::new("Class of the refill").heading());
    let (Some(model), Some(editing)) = (app.model.pictures(), &mut app.pictures.editing) else { return };
    let selected = classes::parse(&editing.class, model).unwrap_or_default();
    match chips::show(ui, model, &selected, false, filter) {
        Some(Clicked::Class(class)) => editing.class = classes::name(class, model),
        Some(Clicked::None | Clicked::All) => editing.class.clear(),
        None => {}
    }
    ui.add_space(4.0);
}

fn settings(ui: &mut Ui, app: &mut App, has_classes: bool) {
    let (edits, model) = (app.pictures.editing.is_some(), app.model.pictures());
    let most_steps = model.map_or(1024, |model| model.grid().n_tokens().max(32));
    let has_class = match &app.pictures.editing {
        Some(editing) => !editing.class.is_empty(),
        None => !app.pictures.settings.classes.trim().is_empty(),
    };
    Grid::new("picture settings").num_columns(2).spacing(vec2(12.0, 8.0)).show(ui, |ui| {
        let settings = &mut app.pictures.settings;
        if !edits {
            name(ui, "Pictures", "Pictures of each class");
            ui.horizontal(|ui| {
                ui.add(DragValue::new(&mut settings.n).range(1..=MOST_PICTURES));
                if has_classes {
                    ui.weak("of each class");
                }
            });
            ui.end_row();
        }
        name(ui, "Steps", "Network evaluations; the fewer, the more cells each one draws");
        ui.add(fields::slider(&mut settings.steps, 1..=most_steps).logarithmic(true));
        ui.end_row();
        if has_classes {
            name(ui, "Guidance", "How much more the class counts; 0 is not guided and twice as fast");
            ui.horizontal(|ui| {
                ui.add_enabled_ui(has_class, |ui| {
                    ui.add(DragValue::new(&mut settings.guidance).range(0.0..=100.0).speed(0.05).max_decimals(2));
                    ui.checkbox(&mut settings.rises, "rising").on_hover_text("From 0 in the first step");
                })
                .response
                .on_disabled_hover_text("Guidance needs a class");
            });
            ui.end_row();
        }
        name(ui, "Temperature", "Divides the logits; 0 takes the most probable token");
        ui.add(fields::slider(&mut settings.temperature, 0.0..=2.0).max_decimals(2));
        ui.end_row();
        name(ui, "Order", "Which open cells a step draws; docs/orders.md compares them");
        fields::order(ui, &mut settings.order);
        ui.end_row();
        name(ui, "Seed", "The same seed, classes and settings draw the same again");
        fields::seed(ui, &mut settings.seed);
        ui.end_row();
        name(ui, "Device", "Where the model computes; changing it opens the model again");
        fields::device(ui, app);
        ui.end_row();
    });
}

fn history(ui: &mut Ui, app: &mut App) {
    if fields::history_heading(ui, app.pictures.history.get(0).is_some()) {
        app.pictures.history.clear();
    }
    if app.pictures.history.get(0).is_none() {
        ui.weak("Grids appear here. A click brings one back, with its settings and seed.");
        return;
    }
    let mut restored = None;
    ScrollArea::vertical().id_salt("picture history").auto_shrink(false).show(ui, |ui| {
        ui.spacing_mut().item_spacing.y = 6.0;
        for (index, entry) in app.pictures.history.iter().enumerate() {
            let settings = &entry.settings;
            let classes = if settings.classes.is_empty() { "no class" } else { &settings.classes };
            let title = format!("{} {}: {classes}", entry.n, if entry.n == 1 { "picture" } else { "pictures" });
            let figures = format!("seed {}  ·  {} steps  ·  {:.1} s", entry.seed, settings.steps, entry.seconds);
            let about = format!(
                "{title}\n\n{}: {}, guidance {}{}, temperature {}",
                entry.model,
                settings.order,
                settings.guidance,
                if settings.rises { ", rising" } else { "" },
                settings.temperature
            );
            if fields::card(ui, &title, &figures, &about) {
                restored = Some(index);
            }
        }
    });
    if let Some(index) = restored {
        app.restore_grid(index);
    }
}
