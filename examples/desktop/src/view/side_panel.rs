//! The side panel of text: the settings and the history.

use eframe::egui::{DragValue, Grid, RichText, ScrollArea, Ui, vec2};

use super::fields::{self, name};
use crate::app::App;

/// The side panel.
pub fn show(ui: &mut Ui, app: &mut App) {
    ui.label(RichText::new("Settings").heading());
    Grid::new("settings").num_columns(2).spacing(vec2(12.0, 8.0)).show(ui, |ui| {
        let settings = &mut app.settings;
        name(ui, "Steps", "Network evaluations; fewer than blank tokens write several at once");
        ui.add(fields::slider(&mut settings.steps, 1..=4096).logarithmic(true));
        ui.end_row();
        name(ui, "Temperature", "Divides the logits; 0 takes the most probable token");
        ui.add(fields::slider(&mut settings.temperature, 0.0..=2.0).max_decimals(2));
        ui.end_row();
        name(ui, "Top-p", "Keeps the most probable tokens that hold this probability; 1 keeps all");
        ui.add(fields::slider(&mut settings.top_p, 0.01..=1.0).max_decimals(2));
        ui.end_row();
        name(ui, "Top-k", "Keeps this many of the most probable tokens");
        let shown = |n: f64, _: std::ops::RangeInclusive<usize>| if n < 1.0 { "all".into() } else { format!("{n:.0}") };
        let read = |text: &str| if text.trim() == "all" { Some(0.0) } else { text.trim().parse().ok() };
        ui.add(DragValue::new(&mut settings.top_k).range(0..=100_000).custom_formatter(shown).custom_parser(read));
        ui.end_row();
        name(ui, "Order", "Which open positions a step writes; docs/orders.md compares them");
        fields::order(ui, &mut settings.order);
        ui.end_row();
        name(ui, "Seed", "The same seed, text and settings write the same again");
        fields::seed(ui, &mut settings.seed);
        ui.end_row();
        name(ui, "Device", "Where the model computes; changing it opens the model again");
        fields::device(ui, app);
        ui.end_row();
    });
    ui.add_space(4.0);
    ui.separator();
    history(ui, app);
}

fn history(ui: &mut Ui, app: &mut App) {
    if fields::history_heading(ui, app.history.get(0).is_some()) {
        app.history.clear();
    }
    if app.history.get(0).is_none() {
        ui.weak("Results appear here. A click brings one back, with its text, seed and settings.");
        return;
    }
    let mut restored = None;
    ScrollArea::vertical().id_salt("history").auto_shrink(false).show(ui, |ui| {
        ui.spacing_mut().item_spacing.y = 6.0;
        for (index, entry) in app.history.iter().enumerate() {
            let text = entry.text.replace(char::is_whitespace, " ");
            let figures = format!("seed {}  ·  {} steps  ·  {:.1} s", entry.seed, entry.steps, entry.seconds);
            let about = format!(
                "{}\n\n{}: {}, temperature {}, top-p {}, top-k {}",
                entry.text,
                entry.model,
                entry.settings.order,
                entry.settings.temperature,
                entry.settings.top_p,
                entry.settings.top_k
            );
            if fields::card(ui, &text, &figures, &about) {
                restored = Some(index);
            }
        }
    });
    if let Some(index) = restored {
        app.restore(index);
    }
}
