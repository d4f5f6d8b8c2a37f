//! Draws the state and passes clicks and keys to it.

mod editor;
mod side_panel;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use eframe::egui::{
    self, Align, Button, CentralPanel, Color32, Context, Frame, Id, Key, Label, Layout, Margin, Modifiers, Panel,
    ProgressBar, RichText, TextStyle, Ui, vec2,
};
use memory_stats::memory_stats;

use crate::app::{App, ModelState};
use crate::generation::GenerationPhase;
use crate::worker::ModelSource;

/// State of the drawing alone: the last measurement of memory.
#[derive(Debug, Default)]
pub struct AppView {
    memory: Option<(Instant, usize)>,
}

/// Sets fonts, spacing and colours for both themes.
pub fn set_style(context: &Context) {
    context.all_styles_mut(|style| {
        for (text_style, size) in [
            (TextStyle::Body, 14.5),
            (TextStyle::Button, 14.5),
            (TextStyle::Small, 12.5),
            (TextStyle::Heading, 18.0),
            (TextStyle::Monospace, 14.0),
        ] {
            if let Some(font) = style.text_styles.get_mut(&text_style) {
                font.size = size;
            }
        }
        style.spacing.item_spacing = vec2(8.0, 8.0);
        style.spacing.button_padding = vec2(10.0, 5.0);
        style.spacing.interact_size.y = 28.0;
        style.spacing.slider_width = 120.0;
        // egui's default grey of labels has too little contrast.
        let label = if style.visuals.dark_mode { Color32::from_gray(0xc8) } else { Color32::from_gray(0x38) };
        style.visuals.widgets.noninteractive.fg_stroke.color = label;
        let (light, dark) = (Color32::from_rgb(0xb3, 0x1b, 0x1b), Color32::from_rgb(0xff, 0x9a, 0x90));
        style.visuals.error_fg_color = if style.visuals.dark_mode { dark } else { light };
    });
}

impl AppView {
    /// Draws one frame.
    pub fn show(&mut self, ui: &mut Ui, app: &mut App) {
        handle_keys(ui.ctx(), app);
        let margin = |horizontal, vertical| Margin::symmetric(horizontal, vertical);
        let panel = |ui: &Ui| Frame::new().fill(ui.visuals().panel_fill);
        Panel::top("model").frame(panel(ui).inner_margin(margin(16, 10))).show(ui, |ui| header(ui, app));
        Panel::bottom("status").frame(panel(ui).inner_margin(margin(16, 6))).show(ui, |ui| self.status(ui, app));
        Panel::right("side")
            .frame(panel(ui).inner_margin(margin(16, 12)))
            .exact_size(316.0)
            .resizable(false)
            .show(ui, |ui| side_panel::show(ui, app));
        CentralPanel::no_frame().frame(panel(ui).inner_margin(margin(16, 12))).show(ui, |ui| {
            if let Some(error) = app.error.clone() {
                error_message(ui, app, &error);
            }
            editor::editor(ui, app);
            ui.add_space(6.0);
            editor::result(ui, app);
        });
        handle_dropped_files(ui.ctx(), app);
    }

    fn status(&mut self, ui: &mut Ui, app: &App) {
        let now = Instant::now();
        if self.memory.is_none_or(|(at, _)| now - at > Duration::from_secs(1)) {
            self.memory = memory_stats().map(|memory| (now, memory.physical_mem));
        }
        ui.horizontal(|ui| {
            let what = match (&app.generation, &app.model) {
                (_, ModelState::Opening { .. }) => "Opening the model".to_string(),
                (_, ModelState::Absent) => "No model".to_string(),
                (None, _) => "Ready".to_string(),
                (Some(generation), _) => match generation.phase {
                    GenerationPhase::Running => format!("Step {} of {}", generation.step, generation.n_steps),
                    GenerationPhase::Complete => format!("Done in {} steps", generation.step),
                    GenerationPhase::Cancelled => {
                        format!("Cancelled at step {} of {}", generation.step, generation.n_steps)
                    }
                    GenerationPhase::Failed => format!("Failed at step {} of {}", generation.step, generation.n_steps),
                },
            };
            ui.label(what);
            if let Some(generation) = &app.generation {
                ui.weak(format!("{:.1} s", generation.seconds()));
                if let Some(speed) = generation.speed() {
                    ui.weak(format!("{speed:.0} tokens/s"));
                }
            }
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                if let Some((_, bytes)) = self.memory {
                    ui.weak(format!("{} MB memory", bytes / 1_000_000))
                        .on_hover_text("Resident memory of this program");
                }
            });
        });
    }
}

fn handle_keys(context: &Context, app: &mut App) {
    // Consumed here, before the editor gets them.
    let pressed = |key, modifiers| context.input_mut(|input| input.consume_key(modifiers, key));
    if pressed(Key::Enter, Modifiers::COMMAND) {
        app.generate();
    }
    if app.is_running() && pressed(Key::Escape, Modifiers::NONE) {
        app.cancel();
    }
}

fn handle_dropped_files(context: &Context, app: &mut App) {
    let (hovering, dropped) = context.input(|input| {
        let dropped = input.raw.dropped_files.first().map(|file| file.path().to_path_buf());
        (!input.raw.hovered_files.is_empty(), dropped)
    });
    if let Some(path) = dropped {
        // A file of a model folder stands for the folder.
        let folder = if path.is_file() { path.parent().map(PathBuf::from).unwrap_or(path) } else { path };
        app.open(ModelSource::Folder(folder));
    }
    if hovering {
        let area = context.content_rect();
        let painter = context.layer_painter(egui::LayerId::new(egui::Order::Foreground, Id::unique("pgm-drop")));
        let visuals = context.global_style().visuals.clone();
        painter.rect_filled(area, 0.0, visuals.panel_fill.gamma_multiply(0.9));
        let font = egui::FontId::proportional(22.0);
        painter.text(
            area.center(),
            egui::Align2::CENTER_CENTER,
            "Drop a model folder",
            font,
            visuals.strong_text_color(),
        );
    }
}

fn header(ui: &mut Ui, app: &mut App) {
    ui.horizontal(|ui| {
        let (name, about, is_bundled) = match &app.model {
            ModelState::Absent => ("No model is open".to_string(), String::new(), false),
            ModelState::Opening { source, .. } => (source.name(), String::new(), *source == ModelSource::Bundled),
            ModelState::Ready { source, opened } => {
                let model = opened.engine.model();
                let about = format!(
                    "{} parameters   ·   rows of {} tokens   ·   on {}",
                    short(model.n_parameters()),
                    model.config().backbone().length,
                    opened.device
                );
                (source.name(), about, *source == ModelSource::Bundled)
            }
        };
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let open = ui.add_enabled(!app.choosing, Button::new("Open model…"));
            if open.on_hover_text("Choose a model folder, or drop one onto the window").clicked() {
                app.choose_folder();
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

// 1_234_567 becomes "1.2 M".
fn short(n: usize) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.0} k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.1} G", n as f64 / 1e9),
    }
}

fn error_message(ui: &mut Ui, app: &mut App, error: &str) {
    let color = ui.visuals().error_fg_color;
    Frame::new().fill(color.gamma_multiply(0.12)).corner_radius(6).inner_margin(Margin::symmetric(12, 6)).show(
        ui,
        |ui| {
            ui.horizontal(|ui| {
                ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                    if ui.add(Button::new("×").frame(false)).on_hover_text("Dismiss").clicked() {
                        app.error = None;
                    }
                    ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                        ui.add(Label::new(RichText::new(error).color(color)).wrap());
                    });
                });
            });
        },
    );
}
