//! What the views of text and of pictures have in common.

use std::ops::RangeInclusive;

use eframe::egui::emath::Numeric;
use eframe::egui::{
    self, Align2, Button, Color32, ComboBox, CursorIcon, Frame, Label, ProgressBar, RichText, Sense, Slider,
    SliderClamping, Stroke, StrokeKind, TextEdit, Ui, vec2,
};
use pgm_infer::OrderKind;

use crate::app::App;
use crate::paint::Palette;
use crate::settings::new_seed;

/// Width of a setting's control.
const WIDTH: f32 = 176.0;

/// The name of a setting.
pub fn name(ui: &mut Ui, name: &str, about: &str) {
    ui.add(Label::new(name).sense(Sense::hover())).on_hover_text(about);
}

/// The decoding order.
pub fn order(ui: &mut Ui, order: &mut String) {
    ComboBox::from_id_salt("order").width(WIDTH).height(360.0).selected_text(order.clone()).show_ui(ui, |ui| {
        for name in OrderKind::NAMES {
            ui.selectable_value(order, name.to_string(), name);
        }
    });
}

/// The seed.
pub fn seed(ui: &mut Ui, seed: &mut String) {
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        let edit = TextEdit::singleline(seed).hint_text("random").align(Align2::LEFT_CENTER);
        ui.add(edit.desired_width(92.0).min_size(vec2(0.0, 28.0)));
        if ui.button("New").on_hover_text("A new seed, which then stays").clicked() {
            *seed = new_seed().to_string();
        }
        let clear = ui.add_enabled(!seed.is_empty(), Button::new("×"));
        if clear.on_hover_text("A new seed each time").clicked() {
            seed.clear();
        }
    });
}

/// A slider that leaves a value as it is until it is moved: a model's default may have more digits, or lie outside.
pub fn slider<N: Numeric>(value: &mut N, range: RangeInclusive<N>) -> Slider<'_> {
    Slider::new(value, range).clamping(SliderClamping::Edits)
}

/// The device. The model is opened again when it changes.
pub fn device(ui: &mut Ui, app: &mut App) {
    let mut is_changed = false;
    let device = &mut app.settings.device;
    ComboBox::from_id_salt("device").width(WIDTH).selected_text(device.clone()).show_ui(ui, |ui| {
        for name in &app.devices {
            is_changed |= ui.selectable_value(device, name.clone(), name.as_str()).changed();
        }
    });
    if is_changed {
        app.reopen();
    }
}

/// The buttons that start and cancel, and the share that is done, or a hint.
pub fn run_buttons(ui: &mut Ui, app: &mut App, label: &str, can_start: bool, done: Option<f32>, hint: &str) {
    let palette = Palette::of(ui.visuals());
    ui.horizontal(|ui| {
        let label = RichText::new(label).color(Color32::WHITE);
        let start = Button::new(label).fill(palette.accent).min_size(vec2(108.0, 32.0));
        if ui.add_enabled(app.can_generate() && can_start, start).on_hover_text("Ctrl+Enter").clicked() {
            app.generate();
        }
        let cancel = Button::new("Cancel").min_size(vec2(80.0, 32.0));
        if ui.add_enabled(app.is_running(), cancel).on_hover_text("Escape").clicked() {
            app.cancel();
        }
        match done {
            Some(done) => {
                ui.add(ProgressBar::new(done).desired_height(8.0).fill(palette.accent));
            }
            None => {
                ui.weak(hint);
            }
        }
    });
}

/// A card of the history; true when it was clicked.
pub fn card(ui: &mut Ui, title: &str, figures: &str, about: &str) -> bool {
    let frame = Frame::new().fill(ui.visuals().faint_bg_color).corner_radius(6).inner_margin(10);
    let stroke = ui.visuals().widgets.noninteractive.bg_stroke;
    let card = frame.stroke(stroke).show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.spacing_mut().item_spacing.y = 3.0;
        ui.add(Label::new(title).truncate().selectable(false));
        ui.add(Label::new(RichText::new(figures).small().weak()).truncate().selectable(false));
    });
    let card = card.response.interact(Sense::click()).on_hover_text(about);
    let is_clicked = card.clicked();
    if card.hovered() {
        let accent = Stroke::new(1.0, Palette::of(ui.visuals()).accent);
        ui.painter().rect_stroke(card.rect, 6.0, accent, StrokeKind::Inside);
    }
    card.on_hover_cursor(CursorIcon::PointingHand);
    is_clicked
}

/// The heading of the history; true when it is to be cleared.
pub fn history_heading(ui: &mut Ui, has_entries: bool) -> bool {
    let mut is_cleared = false;
    ui.horizontal(|ui| {
        ui.label(RichText::new("History").heading());
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            is_cleared = has_entries && ui.button("Clear").clicked();
        });
    });
    is_cleared
}
