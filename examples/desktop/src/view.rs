//! Draws the state and hands clicks and keys to it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use eframe::egui::text::{CCursor, CCursorRange};
use eframe::egui::{
    self, Align, Button, CentralPanel, Color32, ComboBox, Context, DragValue, Frame, Grid, Id, Key, Label, Layout,
    Margin, Modifiers, Panel, ProgressBar, RichText, ScrollArea, Sense, Slider, TextEdit, TextStyle, Ui, vec2,
};
use memory_stats::memory_stats;
use pgm_infer::OrderKind;

use crate::app::{App, Model, Phase};
use crate::blanks;
use crate::paint::{self, Palette};
use crate::worker::Source;

const EDITOR: &str = "pgm-editor";

/// What only drawing needs to remember.
#[derive(Debug, Default)]
pub struct View {
    memory: Option<(Instant, usize)>,
}

/// Sizes that are the same in both themes.
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
        // The usual grey of labels is hard to read on either ground.
        let label = if style.visuals.dark_mode { Color32::from_gray(0xc8) } else { Color32::from_gray(0x38) };
        style.visuals.widgets.noninteractive.fg_stroke.color = label;
        let (light, dark) = (Color32::from_rgb(0xb3, 0x1b, 0x1b), Color32::from_rgb(0xff, 0x9a, 0x90));
        style.visuals.error_fg_color = if style.visuals.dark_mode { dark } else { light };
    });
}

impl View {
    /// One frame.
    pub fn show(&mut self, ui: &mut Ui, app: &mut App) {
        keys(ui.ctx(), app);
        let margin = |horizontal, vertical| Margin::symmetric(horizontal, vertical);
        let panel = |ui: &Ui| Frame::new().fill(ui.visuals().panel_fill);
        Panel::top("model").frame(panel(ui).inner_margin(margin(16, 10))).show(ui, |ui| header(ui, app));
        Panel::bottom("status").frame(panel(ui).inner_margin(margin(16, 6))).show(ui, |ui| self.status(ui, app));
        Panel::right("side")
            .frame(panel(ui).inner_margin(margin(16, 12)))
            .exact_size(316.0)
            .resizable(false)
            .show(ui, |ui| side(ui, app));
        CentralPanel::no_frame().frame(panel(ui).inner_margin(margin(16, 12))).show(ui, |ui| {
            if let Some(error) = app.error.clone() {
                message(ui, app, &error);
            }
            editor(ui, app);
            ui.add_space(6.0);
            result(ui, app);
        });
        dropped(ui.ctx(), app);
    }

    fn status(&mut self, ui: &mut Ui, app: &App) {
        let now = Instant::now();
        if self.memory.is_none_or(|(at, _)| now - at > Duration::from_secs(1)) {
            self.memory = memory_stats().map(|memory| (now, memory.physical_mem));
        }
        ui.horizontal(|ui| {
            let what = match (&app.run, &app.model) {
                (_, Model::Opening { .. }) => "Opening the model".to_string(),
                (_, Model::Absent) => "No model".to_string(),
                (None, _) => "Ready".to_string(),
                (Some(run), _) => match run.phase {
                    Phase::SampleRow => format!("Step {} of {}", run.step, run.n_steps),
                    Phase::Complete => format!("Done in {} steps", run.step),
                    Phase::Cancelled => format!("Cancelled at step {} of {}", run.step, run.n_steps),
                    Phase::Failed => format!("Failed at step {} of {}", run.step, run.n_steps),
                },
            };
            ui.label(what);
            if let Some(run) = &app.run {
                ui.weak(format!("{:.1} s", run.seconds()));
                if let Some(speed) = run.speed() {
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

fn keys(context: &Context, app: &mut App) {
    // Before the editor sees them.
    let pressed = |key, modifiers| context.input_mut(|input| input.consume_key(modifiers, key));
    if pressed(Key::Enter, Modifiers::COMMAND) {
        app.generate();
    }
    if app.is_running() && pressed(Key::Escape, Modifiers::NONE) {
        app.cancel();
    }
}

fn dropped(context: &Context, app: &mut App) {
    let (hovering, dropped) = context.input(|input| {
        let dropped = input.raw.dropped_files.first().map(|file| file.path().to_path_buf());
        (!input.raw.hovered_files.is_empty(), dropped)
    });
    if let Some(path) = dropped {
        // Whoever drops one file of a model means the model.
        let folder = if path.is_file() { path.parent().map(PathBuf::from).unwrap_or(path) } else { path };
        app.open(Source::Folder(folder));
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
            Model::Absent => ("No model is open".to_string(), String::new(), false),
            Model::Opening { source, .. } => (source.name(), String::new(), *source == Source::Bundled),
            Model::Ready { source, opened } => {
                let model = opened.engine.model();
                let about = format!(
                    "{} parameters   ·   rows of {} tokens   ·   on {}",
                    short(model.n_parameters()),
                    model.config().backbone().length,
                    opened.device
                );
                (source.name(), about, *source == Source::Bundled)
            }
        };
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let open = ui.add_enabled(!app.choosing, Button::new("Open model…"));
            if open.on_hover_text("Choose a model folder, or drop one onto the window").clicked() {
                app.choose();
            }
            if !is_bundled && ui.button("Built-in model").clicked() {
                app.open(Source::Bundled);
            }
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                ui.add(Label::new(RichText::new(name).heading().strong()).truncate());
                match &app.model {
                    Model::Opening { share, .. } => {
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

// 1234567 as 1.2 M.
fn short(n: usize) -> String {
    match n {
        0..1_000 => n.to_string(),
        1_000..1_000_000 => format!("{:.0} k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.1} G", n as f64 / 1e9),
    }
}

fn message(ui: &mut Ui, app: &mut App, error: &str) {
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

fn editor(ui: &mut Ui, app: &mut App) {
    let id = Id::unique(EDITOR);
    let mut wanted = None;
    ui.horizontal(|ui| {
        ui.label(RichText::new("Text").heading());
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let mut insert = |ui: &mut Ui, blank: &str, about: &str| {
                if ui.button(RichText::new(blank).monospace()).on_hover_text(about).clicked() {
                    wanted = Some(blank.to_string());
                }
            };
            insert(ui, "{*}", "A blank as long as there is room for");
            let n = app.settings.blank;
            insert(ui, "___", &format!("A blank of {n} tokens, as underscores"));
            insert(ui, &format!("{{{n}}}"), &format!("A blank of {n} tokens"));
            ui.add(DragValue::new(&mut app.settings.blank).range(1..=4096).suffix(" tokens"))
                .on_hover_text("Length of a new blank; drag or type");
            ui.weak("Insert blank:");
        });
    });
    let palette = Palette::of(ui.visuals());
    let mut layouter = |ui: &Ui, text: &dyn egui::TextBuffer, width: f32| {
        ui.fonts_mut(|fonts| fonts.layout_job(paint::editing(text.as_str(), &palette, width)))
    };
    let height = (ui.available_height() * 0.34).clamp(96.0, 280.0);
    Frame::new().fill(palette.paper).stroke(ui.visuals().widgets.noninteractive.bg_stroke).corner_radius(6).show(
        ui,
        |ui| {
            ScrollArea::vertical()
                .id_salt("text")
                .max_height(height)
                .min_scrolled_height(height)
                .auto_shrink(false)
                .show(ui, |ui| {
                    TextEdit::multiline(&mut app.text)
                        .id(id)
                        .frame(Frame::new().inner_margin(Margin::symmetric(12, 10)))
                        .desired_width(f32::INFINITY)
                        .min_size(vec2(0.0, height))
                        .hint_text("A text with blanks such as {12}, ___ or {*}; without any it is continued.")
                        .layouter(&mut layouter)
                        .show(ui);
                });
        },
    );
    // Only now: the editor lets go of the keyboard when something else is clicked.
    if let Some(blank) = wanted {
        put(ui.ctx(), id, app, &blank);
    }
    ui.horizontal(|ui| {
        let label = RichText::new("Generate").color(Color32::WHITE);
        let generate = Button::new(label).fill(palette.accent).min_size(vec2(108.0, 32.0));
        if ui.add_enabled(app.can_generate(), generate).on_hover_text("Ctrl+Enter").clicked() {
            app.generate();
        }
        let cancel = Button::new("Cancel").min_size(vec2(80.0, 32.0));
        if ui.add_enabled(app.is_running(), cancel).on_hover_text("Escape").clicked() {
            app.cancel();
        }
        match &app.run {
            Some(run) if run.phase == Phase::SampleRow => {
                let share = run.step as f32 / run.n_steps.max(1) as f32;
                ui.add(ProgressBar::new(share).desired_height(8.0).fill(palette.accent));
            }
            _ => {
                ui.weak("Ctrl+Enter fills the blanks, Escape stops.");
            }
        }
    });
}

// Puts a blank where the editor's cursor is, or at the end.
fn put(context: &Context, id: Id, app: &mut App, blank: &str) {
    let mut state = TextEdit::load_state(context, id).unwrap_or_default();
    let end = app.text.chars().count();
    let selected = state.cursor.char_range().map_or(end..end, |range| {
        let range = range.as_sorted_char_range();
        range.start.0..range.end.0
    });
    let cursor = CCursor::new(blanks::insert(&mut app.text, selected, blank));
    state.cursor.set_char_range(Some(CCursorRange::one(cursor)));
    state.store(context, id);
    context.memory_mut(|memory| memory.request_focus(id));
}

fn result(ui: &mut Ui, app: &mut App) {
    let palette = Palette::of(ui.visuals());
    ui.horizontal(|ui| {
        ui.label(RichText::new("Result").heading());
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let there = !app.shown.is_empty();
            if ui.add_enabled(there, Button::new("Copy text")).clicked() {
                ui.ctx().copy_text(app.shown_text());
            }
            if let Some(seed) = app.shown_seed
                && ui.button("Copy seed").on_hover_text(format!("Seed {seed}")).clicked()
            {
                ui.ctx().copy_text(seed.to_string());
            }
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| legend(ui, &palette));
        });
    });
    Frame::new()
        .fill(palette.paper)
        .stroke(ui.visuals().widgets.noninteractive.bg_stroke)
        .corner_radius(6)
        .inner_margin(Margin::symmetric(12, 10))
        .show(ui, |ui| {
            ScrollArea::vertical().id_salt("result").auto_shrink(false).show(ui, |ui| {
                if app.shown.is_empty() {
                    ui.weak("What the model writes appears here, anywhere in the text at once.");
                } else {
                    let job = paint::filling(&app.shown, &palette, ui.available_width());
                    ui.add(Label::new(job).selectable(true));
                }
            });
        });
}

fn legend(ui: &mut Ui, palette: &Palette) {
    if ui.available_width() < 250.0 {
        return;
    }
    ui.add_space(8.0);
    ui.spacing_mut().item_spacing.x = 12.0;
    ui.label(RichText::new("given").small().color(palette.given));
    ui.label(RichText::new("written").small().color(palette.written));
    ui.label(RichText::new(" new ").small().color(palette.new_text).background_color(palette.new_ground));
    ui.label(RichText::new(" open ").small().background_color(palette.open));
}

fn side(ui: &mut Ui, app: &mut App) {
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
