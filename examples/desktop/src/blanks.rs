//! Inserts a blank into the text of the editor.

use std::ops::Range;

/// Replaces the selected characters with a blank. Returns the character position after the blank, for the cursor.
pub fn insert(text: &mut String, selected: Range<usize>, blank: &str) -> usize {
    let byte = |index: usize| text.char_indices().nth(index).map_or(text.len(), |(byte, _)| byte);
    let range = byte(selected.start)..byte(selected.end.max(selected.start));
    let start = text[..range.start].chars().count();
    text.replace_range(range, blank);
    start + blank.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_replaces_the_selected_text() {
        let mut text = "né là".to_string();
        assert_eq!(insert(&mut text, 3..5, "{12}"), 7);
        assert_eq!(text, "né {12}");
        assert_eq!(insert(&mut text, 99..99, "{*}"), 10);
        assert_eq!(text, "né {12}{*}");
    }
}
