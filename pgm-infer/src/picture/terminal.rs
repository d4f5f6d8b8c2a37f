//! Pictures in a terminal: each letter is two pixels, the upper and the lower half of a block.

use std::fmt::Write as _;

use super::pixels::Picture;

/// The picture as lines of coloured half blocks, at most `most_columns` letters wide; a larger picture is sampled.
pub fn half_blocks(picture: &Picture, most_columns: usize) -> String {
    let step = picture.width().div_ceil(most_columns.max(1));
    let (columns, rows) = (picture.width() / step, (picture.height() / step).max(1));
    let colour = |x: usize, y: usize| -> [u8; 3] {
        let pixel = picture.pixel((x * step).min(picture.width() - 1), (y * step).min(picture.height() - 1));
        if pixel.len() == 3 { [pixel[0], pixel[1], pixel[2]] } else { [pixel[0]; 3] }
    };
    let mut text = String::new();
    for y in (0..rows).step_by(2) {
        let mut last = None;
        for x in 0..columns {
            // In an odd last line the lower half repeats the upper one.
            let pair = (colour(x, y), colour(x, if y + 1 < rows { y + 1 } else { y }));
            if last != Some(pair) {
                let ([r, g, b], [s, h, c]) = pair;
                let _ = write!(text, "\x1b[38;2;{r};{g};{b};48;2;{s};{h};{c}m");
                last = Some(pair);
            }
            text.push('▀');
        }
        text.push_str("\x1b[0m\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lines_of_pixels_are_one_line_of_half_blocks() {
        let picture = Picture::new(2, 3, 1, vec![1, 2, 3, 4, 5, 6]);
        let text = half_blocks(&picture, 80);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0], "\x1b[38;2;1;1;1;48;2;3;3;3m▀\x1b[38;2;2;2;2;48;2;4;4;4m▀\x1b[0m");
        assert!(lines[1].contains("38;2;5;5;5;48;2;5;5;5"), "{}", lines[1]);
        let narrow = half_blocks(&Picture::filled(100, 60, &[1, 2, 3]), 40);
        assert_eq!((narrow.lines().count(), narrow.lines().next().unwrap().matches('▀').count()), (10, 33));
    }
}
