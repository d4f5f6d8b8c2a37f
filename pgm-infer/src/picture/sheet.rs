//! Many pictures in one, with the names of their classes.

use super::font::{TEXT_HEIGHT, dots, text_width};
use super::pixels::Picture;

/// Pictures of one class.
#[derive(Clone, Debug)]
pub struct SheetRow {
    /// What is written beside them; empty for nothing.
    pub label: String,
    /// The pictures, all of one size and with the same channels.
    pub pictures: Vec<Picture>,
}

const GAP: usize = 4;
const BACKGROUND: u8 = 24;
const INK: u8 = 230;
/// Pictures of a line, at most; a class with more has several lines.
const MOST_COLUMNS: usize = 16;
/// Smaller pictures are enlarged to about this many pixels.
const READABLE: usize = 64;
/// Letters of a label.
const MOST_LETTERS: usize = 24;
const LETTER_SCALE: usize = 2;

/// A sheet of pictures: a line or more for each class with its name at the left; a near-square for one class, with its name
/// above. Small pictures are enlarged, each pixel to a square.
///
/// # Panics
/// Without a picture.
pub fn contact_sheet(rows: &[SheetRow]) -> Picture {
    let first = rows.iter().find_map(|row| row.pictures.first()).expect("a sheet has at least one picture");
    let factor = READABLE.div_ceil(first.width().max(first.height())).max(1);
    let (width, height) = (factor * first.width(), factor * first.height());
    let channels = rows.iter().flat_map(|row| &row.pictures).map(Picture::channels).max().unwrap_or(1);
    let is_single = rows.len() == 1;
    let most = rows.iter().map(|row| row.pictures.len()).max().unwrap_or(1);
    let n_columns = if is_single { near_square(most) } else { most.min(MOST_COLUMNS) };
    let label = |row: &SheetRow| row.label.chars().take(MOST_LETTERS).collect::<String>();
    let label_width = rows.iter().map(|row| LETTER_SCALE * text_width(&label(row))).max().unwrap_or(0);
    let has_labels = label_width > 0;
    // The label stands above a single class, else at the left.
    let left = if has_labels && !is_single { label_width + GAP } else { 0 };
    let top = if has_labels && is_single { LETTER_SCALE * TEXT_HEIGHT + GAP } else { 0 };
    let n_lines: usize = rows.iter().map(|row| row.pictures.len().div_ceil(n_columns)).sum();
    let sheet_width = (GAP + left + n_columns * (width + GAP)).max(2 * GAP + label_width);
    let sheet_height = GAP + top + n_lines * (height + GAP);
    let mut sheet = Picture::filled(sheet_width, sheet_height, &vec![BACKGROUND; channels]);
    let mut y = GAP + top;
    for row in rows {
        let at = if is_single { GAP } else { y + (height.saturating_sub(LETTER_SCALE * TEXT_HEIGHT)) / 2 };
        write(&mut sheet, &label(row), GAP, at);
        for line in row.pictures.chunks(n_columns) {
            for (column, picture) in line.iter().enumerate() {
                let picture = picture.enlarged(factor).with_channels(channels);
                sheet.paste(&picture, GAP + left + column * (width + GAP), y);
            }
            y += height + GAP;
        }
    }
    sheet
}

fn near_square(n: usize) -> usize {
    (1..).find(|side| side * side >= n).unwrap_or(1)
}

fn write(sheet: &mut Picture, text: &str, left: usize, top: usize) {
    for (x, y) in dots(text) {
        for (dx, dy) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let (x, y) = (left + LETTER_SCALE * x + dx, top + LETTER_SCALE * y + dy);
            if x < sheet.width() && y < sheet.height() {
                sheet.pixel_mut(x, y).fill(INK);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(label: &str, colours: &[u8]) -> SheetRow {
        let pictures = colours.iter().map(|&colour| Picture::filled(30, 20, &[colour])).collect();
        SheetRow { label: label.into(), pictures }
    }

    fn count(sheet: &Picture, value: u8) -> usize {
        sheet.pixels().iter().filter(|&&pixel| pixel == value).count()
    }

    #[test]
    fn classes_are_lines_with_their_names_and_every_picture_is_there() {
        let sheet = contact_sheet(&[row("cat", &[10, 20]), row("a dog", &[30])]);
        // Enlarged three times: 90 x 60 pixels each.
        for colour in [10, 20, 30] {
            assert_eq!(count(&sheet, colour), 5400);
        }
        let letters = dots("cat").count() + dots("a dog").count();
        assert_eq!(count(&sheet, INK), 4 * letters);
        let at = |colour| sheet.pixels().iter().position(|&pixel| pixel == colour).unwrap();
        assert!(at(30) > at(10) && at(20) - at(10) == 90 + GAP);
    }

    #[test]
    fn one_class_is_a_near_square_under_its_name() {
        let sheet = contact_sheet(&[row("7", &[1, 2, 3, 4, 5])]);
        assert_eq!((sheet.width(), sheet.height()), (GAP + 3 * (90 + GAP), GAP + 10 + GAP + 2 * (60 + GAP)));
        assert_eq!(count(&sheet, INK), 4 * dots("7").count());
        let plain = contact_sheet(&[row("", &[1, 2])]);
        assert_eq!((count(&plain, INK), plain.height()), (0, 2 * GAP + 60));
        let many = contact_sheet(&[row("a", &[1; 20]), row("b", &[2; 3])]);
        assert_eq!(many.height(), GAP + 3 * (60 + GAP), "20 pictures have two lines");
    }
}
