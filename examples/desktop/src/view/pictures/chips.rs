//! The classes of a model as buttons.

use eframe::egui::{RichText, ScrollArea, TextEdit, Ui, vec2};
use pgm_infer::ImageModel;

/// A model with more classes has a field to find one.
const FEW: usize = 24;
/// Classes that are shown at once, at most.
const MOST_SHOWN: usize = 200;

/// What was clicked.
pub enum Clicked {
    /// A class.
    Class(usize),
    /// The button for all classes.
    All,
    /// The button for no class in particular.
    None,
}

/// Draws the buttons; `selected` are the classes that are chosen.
pub fn show(
    ui: &mut Ui,
    model: &ImageModel,
    selected: &[Option<usize>],
    has_all: bool,
    filter: &mut String,
) -> Option<Clicked> {
    let (image, mut clicked) = (model.image(), None);
    let n = image.n_classes;
    if n > FEW {
        let hint = format!("find one of {n} classes");
        ui.add(TextEdit::singleline(filter).hint_text(hint).desired_width(f32::INFINITY).min_size(vec2(0.0, 28.0)));
    } else {
        filter.clear();
    }
    let wanted = filter.trim().to_lowercase();
    ScrollArea::vertical().id_salt("classes").max_height(108.0).auto_shrink([false, true]).show(ui, |ui| {
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing = vec2(4.0, 4.0);
            let mut chip = |ui: &mut Ui, is_selected: bool, text: &str, about: &str, click: Clicked| {
                let chip = ui.selectable_label(is_selected, RichText::new(text).size(13.5));
                if chip.on_hover_text(about).clicked() {
                    clicked = Some(click);
                }
            };
            if wanted.is_empty() {
                chip(ui, selected.contains(&None), "no class", "No class in particular", Clicked::None);
                if has_all && n > 1 {
                    chip(ui, selected.len() == n, "all", "All classes", Clicked::All);
                }
            }
            let names = (0..n).map(|class| (class, image.class_name(class)));
            let found = names.filter(|(class, name)| {
                wanted.is_empty() || name.to_lowercase().contains(&wanted) || class.to_string() == wanted
            });
            for (class, name) in found.take(MOST_SHOWN) {
                chip(ui, selected.contains(&Some(class)), &name, &format!("Class {class}"), Clicked::Class(class));
            }
        });
    });
    clicked
}
