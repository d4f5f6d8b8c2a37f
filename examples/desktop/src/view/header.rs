//! The upper edge of the window: the model, and the last error.

use eframe::egui::{Align, Button, Color32, Frame, Label, Layout, Margin, ProgressBar, RichText, Ui};

use crate::app::{App, ModelState};
use crate::models::{Model, ModelSource, OpenModel};
use crate::worker::Choice;

/// The model's name and figures, and the buttons that open another.
pub fn header(ui: &mut Ui, app: &mut App) {
    ui.horizontal(|ui| {
        let (name, about, is_bundled) = match &app.model {
            ModelState::Absent => ("No model is open".to_string(), String::new(), false),
            ModelState::Opening { source, .. } => (source.name(), String::new(), *source == ModelSource::Bundled),
            ModelState::Ready { source, opened } => (source.name(), figures(opened), *source == ModelSource::Bundled),
        };
        let has_codec = matches!(&app.model, ModelState::Ready { opened, .. } if opened.codec.is_some());
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let open = ui.add_enabled(!app.choosing, Button::new("Open model…"));
            if open.on_hover_text("Choose a model folder, or drop one onto the window").clicked() {
                app.choose(Choice::Model);
            }
            if has_codec {
                let codec = ui.add_enabled(!app.choosing, Button::new("Codec…"));
                if codec.on_hover_text("Choose the codec of the model's codes, or drop one onto the window").clicked() {
                    app.choose(Choice::Codec);
                }
            }
            if !is_bundled && ui.button("Built-in model").clicked() {
                app.open(ModelSource::Bundled);
            }
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                ui.add(Label::new(RichText::new(name).heading().strong()).truncate());
                match &app.model {
                    ModelState::Opening { share, .. } => {
                        ui.add(ProgressBar::new(*share as f32).desired_width(220.0).show_percentage());
                    }
                    _ => {
                        ui.add(Label::new(RichText::new(about).weak()).truncate());
                    }
                }
            });
        });
    });
}

fn figures(opened: &OpenModel) -> String {
    let (n_parameters, about) = match &opened.model {
        Model::Text(engine) => {
            let model = engine.model();
            (model.n_parameters(), format!("rows of {} tokens", model.config().backbone().length))
        }
        Model::Pictures(engine) => {
            let model = engine.model();
            let (width, height, _) = model.codec().shape();
            let [rows, columns] = model.image().grid;
            let cells =
                if model.codec().is_exact() { String::new() } else { format!(" from {columns} x {rows} codes") };
            (model.n_parameters(), format!("pictures of {width} x {height}{cells}"))
        }
    };
    format!("{} parameters   ·   {about}   ·   on {}", short(n_parameters), opened.device)
}

// 1_234_567 becomes "1.2 M".
fn short(n: usize) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.0} k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.1} G", n as f64 / 1e9),
    }
}

/// The last error.
pub fn error(ui: &mut Ui, app: &mut App) {
    if let Some(error) = app.error.clone() {
        let color = ui.visuals().error_fg_color;
        let (is_dismissed, wants_codec) = message(ui, &error, color, app.wants_codec.is_some());
        if is_dismissed {
            (app.error, app.wants_codec) = (None, None);
        }
        if wants_codec {
            app.choose(Choice::Codec);
        }
    }
}

// Whether it was dismissed, and whether the codec's button was clicked.
fn message(ui: &mut Ui, text: &str, color: Color32, has_codec_button: bool) -> (bool, bool) {
    let (mut is_dismissed, mut wants_codec) = (false, false);
    let frame = Frame::new().fill(color.gamma_multiply(0.12)).corner_radius(6).inner_margin(Margin::symmetric(12, 6));
    frame.show(ui, |ui| {
        ui.horizontal(|ui| {
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                is_dismissed = ui.add(Button::new("×").frame(false)).on_hover_text("Dismiss").clicked();
                wants_codec = has_codec_button && ui.button("Choose codec…").clicked();
                ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                    ui.add(Label::new(RichText::new(text).color(color)).wrap());
                });
            });
        });
    });
    (is_dismissed, wants_codec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_short() {
        for (n, text) in [(999, "999"), (570_000, "570 k"), (281_378_000, "281.4 M"), (2_000_000_000, "2.0 G")] {
            assert_eq!(short(n), text);
        }
    }
}
