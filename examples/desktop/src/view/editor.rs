//! The centre of the window: the editor, the buttons and the result.

use eframe::egui::text::{CCursor, CCursorRange};
use eframe::egui::{
    self, Align, Button, Context, DragValue, Frame, Id, Label, Layout, Margin, RichText, ScrollArea, TextEdit, Ui, vec2,
};

use super::fields;
use crate::app::App;
use crate::blanks;
use crate::generation::GenerationPhase;
use crate::paint::{self, Palette};

const EDITOR: &str = "pgm-editor";

/// The editor with its toolbar and the buttons.
pub fn editor(ui: &mut Ui, app: &mut App) {
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
        ui.fonts_mut(|fonts| fonts.layout_job(paint::editor_layout(text.as_str(), &palette, width)))
    };
    let height = (ui.available_height() * 0.34).clamp(96.0, 280.0);
    Frame::new()
        .fill(palette.text_background)
        .stroke(ui.visuals().widgets.noninteractive.bg_stroke)
        .corner_radius(6)
        .show(ui, |ui| {
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
        });
    // After the editor is drawn: it loses the focus when the button is clicked.
    if let Some(blank) = wanted {
        insert_blank(ui.ctx(), id, app, &blank);
    }
    let running = app.generation.as_ref().filter(|generation| generation.phase == GenerationPhase::Running);
    let done = running.map(|generation| generation.step as f32 / generation.n_steps.max(1) as f32);
    fields::run_buttons(ui, app, "Generate", true, done, "Ctrl+Enter fills the blanks, Escape stops.");
}

// Inserts a blank at the editor's cursor, or at the end.
fn insert_blank(context: &Context, id: Id, app: &mut App, blank: &str) {
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

/// The result as it fills.
pub fn result(ui: &mut Ui, app: &mut App) {
    let palette = Palette::of(ui.visuals());
    ui.horizontal(|ui| {
        ui.label(RichText::new("Result").heading());
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            let has_result = !app.shown.is_empty();
            if ui.add_enabled(has_result, Button::new("Copy text")).clicked() {
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
        .fill(palette.text_background)
        .stroke(ui.visuals().widgets.noninteractive.bg_stroke)
        .corner_radius(6)
        .inner_margin(Margin::symmetric(12, 10))
        .show(ui, |ui| {
            ScrollArea::vertical().id_salt("result").auto_shrink(false).show(ui, |ui| {
                if app.shown.is_empty() {
                    ui.weak("What the model writes appears here, anywhere in the text at once.");
                } else {
                    let job = paint::result_layout(&app.shown, &palette, ui.available_width());
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
    ui.label(RichText::new(" new ").small().color(palette.new_text).background_color(palette.new_background));
    ui.label(RichText::new(" open ").small().background_color(palette.open));
}
