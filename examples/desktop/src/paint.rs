//! Colours and text layouts: the editor's text with its blanks, and the result as it fills.
//!
//! Kinds of text differ in more than colour: new tokens have a background, open tokens have no letters.

use eframe::egui::text::{LayoutJob, TextFormat};
use eframe::egui::{Align, Color32, FontId, IconData, Visuals};
use pgm_infer::text::canvas::Segment;
use pgm_infer::text::template::blank_ranges;

/// Font size of the result.
pub const RESULT_SIZE: f32 = 17.0;
/// Font size of the editor.
pub const EDITOR_SIZE: f32 = 16.0;

/// The colours of a theme.
#[derive(Clone, Copy, Debug)]
pub struct Palette {
    /// Given text.
    pub given: Color32,
    /// Decoded text.
    pub written: Color32,
    /// Letters of new tokens.
    pub new_text: Color32,
    /// Background of new tokens.
    pub new_background: Color32,
    /// Open tokens.
    pub open: Color32,
    /// Letters of blanks in the editor.
    pub blank_text: Color32,
    /// Background of blanks in the editor.
    pub blank_background: Color32,
    /// The main button and progress bars.
    pub accent: Color32,
    /// Background of text.
    pub text_background: Color32,
}

impl Palette {
    /// The palette of a theme.
    pub fn of(visuals: &Visuals) -> Self {
        let rgb = Color32::from_rgb;
        if visuals.dark_mode {
            Self {
                given: rgb(0xe8, 0xea, 0xed),
                written: rgb(0x8a, 0xb9, 0xff),
                new_text: rgb(0x20, 0x18, 0x00),
                new_background: rgb(0xff, 0xcb, 0x52),
                open: rgb(0x42, 0x47, 0x52),
                blank_text: rgb(0xbf, 0xd8, 0xff),
                blank_background: rgb(0x2b, 0x40, 0x60),
                accent: rgb(0x2f, 0x6f, 0xd6),
                text_background: rgb(0x17, 0x19, 0x1d),
            }
        } else {
            Self {
                given: rgb(0x1b, 0x1d, 0x21),
                written: rgb(0x15, 0x57, 0xb0),
                new_text: rgb(0x2a, 0x1f, 0x00),
                new_background: rgb(0xff, 0xd9, 0x6b),
                open: rgb(0xd3, 0xd8, 0xe0),
                blank_text: rgb(0x0f, 0x44, 0x8c),
                blank_background: rgb(0xdc, 0xe9, 0xfb),
                accent: rgb(0x1f, 0x66, 0xd1),
                text_background: rgb(0xff, 0xff, 0xff),
            }
        }
    }
}

/// Layout of the result.
pub fn result_layout(segments: &[Segment], palette: &Palette, width: f32) -> LayoutJob {
    let mut job = LayoutJob::default();
    job.wrap.max_width = width;
    let font_id = FontId::proportional(RESULT_SIZE);
    let middle = TextFormat { font_id, valign: Align::Center, expand_bg: 0.0, ..TextFormat::default() };
    let plain = |color| TextFormat { line_height: Some(RESULT_SIZE * 1.6), color, ..middle.clone() };
    // Without a line height the background is as high as the letters.
    let on_background = |color, background| TextFormat { color, background, ..middle.clone() };
    let new = on_background(palette.new_text, palette.new_background);
    let cell = on_background(palette.open, palette.open);
    let gap = TextFormat { font_id: FontId::proportional(RESULT_SIZE * 0.4), ..plain(palette.given) };
    for segment in segments {
        match segment {
            Segment::Given { text } => job.append(&printable(text), 0.0, plain(palette.given)),
            Segment::Decoded { text } => job.append(&printable(text), 0.0, plain(palette.written)),
            Segment::New { text } => job.append(&printable(text), 0.0, new.clone()),
            Segment::Open { n } => {
                for _ in 0..*n {
                    // A letter in the colour of its background: spaces would vanish at line breaks.
                    job.append("n", 0.0, cell.clone());
                    job.append(" ", 0.0, gap.clone());
                }
            }
        }
    }
    job
}

/// Layout of the editor's text, with its blanks highlighted.
pub fn editor_layout(text: &str, palette: &Palette, width: f32) -> LayoutJob {
    let mut job = LayoutJob::default();
    job.wrap.max_width = width;
    let font_id = FontId::proportional(EDITOR_SIZE);
    let middle = TextFormat { font_id, valign: Align::Center, ..TextFormat::default() };
    let plain = TextFormat { line_height: Some(EDITOR_SIZE * 1.5), color: palette.given, ..middle.clone() };
    let blank = TextFormat { color: palette.blank_text, background: palette.blank_background, ..middle };
    let mut end = 0;
    for range in blank_ranges(text) {
        job.append(&text[end..range.start], 0.0, plain.clone());
        job.append(&text[range.clone()], 0.0, blank.clone());
        end = range.end;
    }
    job.append(&text[end..], 0.0, plain);
    job
}

// Models of bytes decode control characters, which cannot be drawn.
fn printable(text: &str) -> String {
    let visible = |letter: char| match letter {
        '\n' | '\t' => letter,
        letter if letter.is_control() => '·',
        letter => letter,
    };
    text.chars().map(visible).collect()
}

/// The window's icon: a grid with some filled cells.
pub fn icon() -> IconData {
    const SIDE: usize = 64;
    const FILLED: [u8; 9] = [1, 0, 1, 0, 2, 1, 1, 1, 0];
    let mut rgba = vec![0; SIDE * SIDE * 4];
    for y in 0..SIDE {
        for x in 0..SIDE {
            let (column, row) = (x.saturating_sub(5) / 18, y.saturating_sub(5) / 18);
            let inside = |at: usize| (5..59).contains(&at) && (1..17).contains(&((at - 5) % 18));
            if !(inside(x) && inside(y)) {
                continue;
            }
            let color = match FILLED[row.min(2) * 3 + column.min(2)] {
                0 => [0x9a, 0xa3, 0xb2, 0xff],
                1 => [0x2f, 0x6f, 0xd6, 0xff],
                _ => [0xff, 0xcb, 0x52, 0xff],
            };
            rgba[(y * SIDE + x) * 4..][..4].copy_from_slice(&color);
        }
    }
    IconData { rgba, width: SIDE as u32, height: SIDE as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_contain_the_whole_text() {
        let palette = Palette::of(&Visuals::light());
        let text = "né {12} __ ___ là";
        assert_eq!(editor_layout(text, &palette, 100.0).text, text);
        let segments = [
            Segment::Given { text: "a\u{7}".into() },
            Segment::Open { n: 2 },
            Segment::New { text: "b\n".into() },
            Segment::Decoded { text: "é".into() },
        ];
        assert_eq!(result_layout(&segments, &palette, 100.0).text, "a·n n b\né");
    }
}
