//! Where the blanks of a text are, for the editor: to shade them, and to insert one at the cursor.

use std::ops::Range;

use pgm_infer::text::template::{SpanContent, spans};

/// The byte ranges of the blanks.
pub fn ranges(text: &str) -> Vec<Range<usize>> {
    let blanks = spans(text).into_iter().filter(|span| !matches!(span.content, SpanContent::Text(_)));
    blanks.map(|span| span.range).collect()
}

/// Puts a blank in the place of the selected characters; the cursor stands behind it then.
pub fn insert(text: &mut String, selected: Range<usize>, blank: &str) -> usize {
    let byte = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(byte, _)| byte);
    let range = byte(selected.start)..byte(selected.end.max(selected.start));
    let start = text[..range.start].chars().count();
    text.replace_range(range, blank);
    start + blank.chars().count()
}

#[cfg(test)]
mod tests {
    use pgm_infer::text::template::{Part, parse};

    use super::*;

    #[test]
    fn what_is_shaded_is_what_is_filled() {
        let cases =
            ["no blank", "{3}", "a {12}é____ z", "{x} {} __ {1", r"\{3} \___ \\ \n", "", r"a {*} b\{*}{*}", r"\\{2}é"];
        for text in cases {
            let shaded: Vec<&str> = ranges(text).into_iter().map(|range| &text[range]).collect();
            let filled = parse(text, 8).unwrap().iter().filter(|part| !matches!(part, Part::Text(_))).count();
            assert_eq!(shaded.len(), filled, "{text}: {shaded:?}");
            assert!(shaded.iter().all(|blank| parse(blank, 8).unwrap().len() == 1), "{text}: {shaded:?}");
        }
    }

    #[test]
    fn a_blank_takes_the_place_of_what_is_selected() {
        let mut text = "né là".to_string();
        assert_eq!(insert(&mut text, 3..5, "{12}"), 7);
        assert_eq!(text, "né {12}");
        assert_eq!(insert(&mut text, 99..99, "{*}"), 10);
        assert_eq!(text, "né {12}{*}");
    }
}
