//! The side panel: the settings and the history.

use eframe::egui::{
    self, Align, Button, ComboBox, DragValue, Frame, Grid, Label, Layout, RichText, ScrollArea, Sense, Slider,
    TextEdit, Ui, vec2,
};
use pgm_infer::OrderKind;

use crate::app::App;
use crate::paint::Palette;

/// The side panel.
pub fn show(ui: &mut Ui, app: &mut App) {
    ui.label(RichText::new("Settings").heading());
    let mut device_changed = false;
    Grid::new("settings").num_columns(2).spacing(vec2(12.0, 8.0)).show(ui, |ui| {
        let settings = &mut app.settings;
        let name = |ui: &mut Ui, name: &str, about: &str| {
            ui.add(Label::new(name).sense(Sense::hover())).on_hover_text(about);
        };
        name(ui, "Steps", "Network evaluations; fewer than blank tokens write several at once");
        ui.add(Slider::new(&mut settings.steps, 1..=4096).logarithmic(true));
        ui.end_row();
        name(ui, "Temperature", "Divides the logits; 0 takes the most probable token");
        ui.add(Slider::new(&mut settings.temperature, 0.0..=2.0).max_decimals(2));
        ui.end_row();
        name(ui, "Top-p", "Keeps the most probable tokens that hold this probability; 1 keeps all");
        ui.add(Slider::new(&mut settings.top_p, 0.01..=1.0).max_decimals(2));
        ui.end_row();
        name(ui, "Top-k", "Keeps this many of the most probable tokens");
        let shown = |n: f64, _: std::ops::RangeInclusive<usize>| if n < 1.0 { "all".into() } else { format!("{n:.0}") };
        let read = |text: &str| if text.trim() == "all" { Some(0.0) } else { text.trim().parse().ok() };
        ui.add(DragValue::new(&mut settings.top_k).range(0..=100_000).custom_formatter(shown).custom_parser(read));
        ui.end_row();
        name(ui, "Order", "Which open positions a step writes; docs/orders.md compares them");
        ComboBox::from_id_salt("order").width(176.0).height(360.0).selected_text(settings.order.clone()).show_ui(
            ui,
            |ui| {
                for order in OrderKind::NAMES {
                    ui.selectable_value(&mut settings.order, order.to_string(), order);
                }
            },
        );
        ui.end_row();
        name(ui, "Seed", "The same seed, text and settings write the same again");
        ui.horizontal(|ui| {
            let edit =
                TextEdit::singleline(&mut settings.seed).hint_text("new each time").align(egui::Align2::LEFT_CENTER);
            ui.add(edit.desired_width(134.0).min_size(vec2(0.0, 28.0)));
            let clear = ui.add_enabled(!settings.seed.is_empty(), Button::new("×"));
            if clear.on_hover_text("A new seed each time").clicked() {
                settings.seed.clear();
            }
        });
        ui.end_row();
        name(ui, "Device", "Where the model computes; changing it opens the model again");
        ComboBox::from_id_salt("device").width(176.0).selected_text(settings.device.clone()).show_ui(ui, |ui| {
            for device in &app.devices {
                device_changed |= ui.selectable_value(&mut settings.device, device.clone(), device.as_str()).changed();
            }
        });
        ui.end_row();
    });
    if device_changed {
        app.reopen();
    }
    ui.add_space(4.0);
    ui.separator();
    history(ui, app);
}

fn history(ui: &mut Ui, app: &mut App) {
    ui.horizontal(|ui| {
        ui.label(RichText::new("History").heading());
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            if app.history.get(0).is_some() && ui.button("Clear").clicked() {
                app.history.clear();
            }
        });
    });
    if app.history.get(0).is_none() {
        ui.weak("Results appear here. A click brings one back, with its text, seed and settings.");
        return;
    }
    let mut restored = None;
    ScrollArea::vertical().id_salt("history").auto_shrink(false).show(ui, |ui| {
        ui.spacing_mut().item_spacing.y = 6.0;
        for (index, entry) in app.history.iter().enumerate() {
            let frame = Frame::new().fill(ui.visuals().faint_bg_color).corner_radius(6).inner_margin(10);
            let stroke = ui.visuals().widgets.noninteractive.bg_stroke;
            let card = frame.stroke(stroke).show(ui, |ui| {
                ui.set_width(ui.available_width());
                ui.spacing_mut().item_spacing.y = 3.0;
                let text = entry.text.replace(char::is_whitespace, " ");
                ui.add(Label::new(text).truncate().selectable(false));
                let about = format!("seed {}  ·  {} steps  ·  {:.1} s", entry.seed, entry.steps, entry.seconds);
                ui.add(Label::new(RichText::new(about).small().weak()).truncate().selectable(false));
            });
            let about = format!(
                "{}\n\n{}: {}, temperature {}, top-p {}, top-k {}",
                entry.text,
                entry.model,
                entry.settings.order,
                entry.settings.temperature,
                entry.settings.top_p,
                entry.settings.top_k
            );
            let card = card.response.interact(Sense::click()).on_hover_text(about);
            if card.clicked() {
                restored = Some(index);
            }
            if card.hovered() {
                ui.painter().rect_stroke(
                    card.rect,
                    6.0,
                    egui::Stroke::new(1.0, Palette::of(ui.visuals()).accent),
                    egui::StrokeKind::Inside,
                );
            }
            card.on_hover_cursor(egui::CursorIcon::PointingHand);
        }
    });
    if let Some(index) = restored {
        app.restore(index);
    }
}
