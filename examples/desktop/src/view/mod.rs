//! Draws the state and passes clicks and keys to it.
//!
//! | file | what |
//! |---|---|
//! | `header.rs`, `status.rs`, `dropped.rs` | the window's edges; files that are dropped onto it |
//! | `editor.rs`, `side_panel.rs` | the view of text |
//! | `pictures/` | the view of pictures |
//! | `fields.rs` | what both views have: settings, buttons, cards of the history |

mod dropped;
mod editor;
mod fields;
mod header;
mod pictures;
pub(crate) mod side_panel;
mod status;

use eframe::egui::{CentralPanel, Color32, Context, Frame, Key, Margin, Modifiers, Panel, TextStyle, Ui, vec2};

use self::pictures::PictureView;
pub use self::pictures::canvas::CANVAS;
use self::status::Status;
use crate::app::App;

/// State of the drawing alone.
#[derive(Debug, Default)]
pub struct AppView {
    status: Status,
    pictures: PictureView,
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
        Panel::top("model").frame(panel(ui).inner_margin(margin(16, 10))).show(ui, |ui| header::header(ui, app));
        Panel::bottom("status").frame(panel(ui).inner_margin(margin(16, 6))).show(ui, |ui| self.status.show(ui, app));
        Panel::right("side").frame(panel(ui).inner_margin(margin(16, 12))).exact_size(316.0).resizable(false).show(
            ui,
            |ui| {
                if app.shows_pictures {
                    self.pictures.side_panel(ui, app);
                } else {
                    side_panel::show(ui, app);
                }
            },
        );
        CentralPanel::no_frame().frame(panel(ui).inner_margin(margin(16, 12))).show(ui, |ui| {
            header::error(ui, app);
            if app.shows_pictures {
                self.pictures.centre(ui, app);
            } else {
                editor::editor(ui, app);
                ui.add_space(6.0);
                editor::result(ui, app);
            }
        });
        dropped::handle(ui.ctx(), app);
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
    let edits = app.shows_pictures && app.pictures.editing.is_some();
    if edits && !context.text_edit_focused() {
        if pressed(Key::Z, Modifiers::COMMAND) {
            app.undo();
        }
        if pressed(Key::Escape, Modifiers::NONE) {
            app.close_editor();
        }
    }
}
