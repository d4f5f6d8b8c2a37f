//! A bitmap font of 3 x 5 pixels, for the names of classes. Letters have no lower case.

/// Pixels of a glyph's row, and rows of a glyph.
const WIDTH: usize = 3;
const HEIGHT: usize = 5;

// Rows from the top; of a row's three bits the highest is the left one.
const GLYPHS: [(char, [u8; HEIGHT]); 57] = [
    ('0', [7, 5, 5, 5, 7]),
    ('1', [2, 6, 2, 2, 7]),
    ('2', [7, 1, 7, 4, 7]),
    ('3', [7, 1, 3, 1, 7]),
    ('4', [5, 5, 7, 1, 1]),
    ('5', [7, 4, 7, 1, 7]),
    ('6', [7, 4, 7, 5, 7]),
    ('7', [7, 1, 2, 2, 2]),
    ('8', [7, 5, 7, 5, 7]),
    ('9', [7, 5, 7, 1, 7]),
    ('A', [2, 5, 7, 5, 5]),
    ('B', [6, 5, 6, 5, 6]),
    ('C', [3, 4, 4, 4, 3]),
    ('D', [6, 5, 5, 5, 6]),
    ('E', [7, 4, 6, 4, 7]),
    ('F', [7, 4, 6, 4, 4]),
    ('G', [3, 4, 5, 5, 3]),
    ('H', [5, 5, 7, 5, 5]),
    ('I', [7, 2, 2, 2, 7]),
    ('J', [1, 1, 1, 5, 2]),
    ('K', [5, 5, 6, 5, 5]),
    ('L', [4, 4, 4, 4, 7]),
    ('M', [5, 7, 7, 5, 5]),
    ('N', [6, 5, 5, 5, 5]),
    ('O', [2, 5, 5, 5, 2]),
    ('P', [6, 5, 6, 4, 4]),
    ('Q', [2, 5, 5, 7, 3]),
    ('R', [6, 5, 6, 5, 5]),
    ('S', [3, 4, 2, 1, 6]),
    ('T', [7, 2, 2, 2, 2]),
    ('U', [5, 5, 5, 5, 7]),
    ('V', [5, 5, 5, 5, 2]),
    ('W', [5, 5, 7, 7, 5]),
    ('X', [5, 5, 2, 5, 5]),
    ('Y', [5, 5, 2, 2, 2]),
    ('Z', [7, 1, 2, 4, 7]),
    (' ', [0, 0, 0, 0, 0]),
    ('-', [0, 0, 7, 0, 0]),
    ('_', [0, 0, 0, 0, 7]),
    ('.', [0, 0, 0, 0, 2]),
    (',', [0, 0, 0, 2, 4]),
    (':', [0, 2, 0, 2, 0]),
    (';', [0, 2, 0, 2, 4]),
    ('\'', [2, 2, 0, 0, 0]),
    ('"', [5, 5, 0, 0, 0]),
    ('!', [2, 2, 2, 0, 2]),
    ('?', [7, 1, 2, 0, 2]),
    ('/', [1, 1, 2, 4, 4]),
    ('\\', [4, 4, 2, 1, 1]),
    ('(', [1, 2, 2, 2, 1]),
    (')', [4, 2, 2, 2, 4]),
    ('[', [3, 2, 2, 2, 3]),
    (']', [6, 2, 2, 2, 6]),
    ('+', [0, 2, 7, 2, 0]),
    ('=', [0, 7, 0, 7, 0]),
    ('#', [5, 7, 5, 7, 5]),
    ('&', [2, 5, 2, 5, 3]),
];
/// In place of a letter that the font lacks.
const UNKNOWN: [u8; HEIGHT] = [7, 7, 7, 7, 7];

/// Width of a text in pixels at scale 1.
pub(super) fn text_width(text: &str) -> usize {
    (text.chars().count() * (WIDTH + 1)).saturating_sub(1)
}

/// Height of a text in pixels at scale 1.
pub(super) const TEXT_HEIGHT: usize = HEIGHT;

/// The dots of a text at scale 1, as columns and rows.
pub(super) fn dots(text: &str) -> impl Iterator<Item = (usize, usize)> {
    text.chars().enumerate().flat_map(|(place, letter)| {
        let upper = letter.to_ascii_uppercase();
        let glyph = GLYPHS.iter().find(|(known, _)| *known == upper).map_or(UNKNOWN, |(_, glyph)| *glyph);
        let is_dot = move |&(x, y): &(usize, usize)| glyph[y] >> (WIDTH - 1 - x) & 1 == 1;
        let places = (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (x, y)));
        places.filter(is_dot).map(move |(x, y)| (place * (WIDTH + 1) + x, y))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_letter_of_a_name_has_a_glyph_of_its_own() {
        let mut seen = Vec::new();
        for letter in ('0'..='9').chain('A'..='Z').chain("-_.,:;'!?/()[]+=#&".chars()) {
            let glyph: Vec<_> = dots(&letter.to_string()).collect();
            assert!(!glyph.is_empty() && glyph.len() < 15, "{letter}");
            assert!(!seen.contains(&glyph), "{letter} looks like another");
            seen.push(glyph);
        }
        assert_eq!(dots("a").collect::<Vec<_>>(), dots("A").collect::<Vec<_>>());
        assert_eq!(dots("é").count(), 15, "a block");
        let width = dots("cat 9").map(|(x, _)| x).max().unwrap() + 1;
        assert_eq!(width, text_width("cat 9"));
        assert_eq!(text_width(""), 0);
    }
}
