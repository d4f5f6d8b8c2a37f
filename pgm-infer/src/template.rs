//! Templates: text with blanks anywhere in it.

use std::ops::Range;

use crate::InferError;

/// A stretch of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Given text.
    Text(String),
    /// Tokens to fill in.
    Blank(usize),
    /// A blank as long as the row leaves room for; several share the room evenly.
    Free,
}

/// Splits a template into text and blanks: `{N}` is a blank of N tokens, `{*}` one as long as the row leaves room for, `___`
/// (three or more underscores) one of `default_blank` tokens. A backslash before `{`, `_` or `\` makes it plain text.
///
/// # Errors
/// [`InferError::Request`] for a blank of no tokens.
pub fn parse(template: &str, default_blank: usize) -> Result<Vec<Part>, InferError> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some((item, length)) = first_item(rest, default_blank) {
        let (shown, after) = rest.split_at(length);
        rest = after;
        let blank = match item {
            Item::Letter(letter) => {
                text.push(letter);
                continue;
            }
            Item::Free => Part::Free,
            Item::Blank(count) => Part::Blank(count.filter(|&count| count > 0).ok_or_else(|| {
                InferError::Request(format!(
                    "the blank {shown} must ask for at least one token, and for a number that fits"
                ))
            })?),
        };
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(&mut text)));
        }
        parts.push(blank);
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

/// The byte ranges of a template's blanks, for editors that highlight them. A blank that [`parse`] refuses is included.
pub fn blank_ranges(template: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    while let Some((item, length)) = first_item(&template[start..], 1) {
        if !matches!(item, Item::Letter(_)) {
            ranges.push(start..start + length);
        }
        start += length;
    }
    ranges
}

/// The smallest unit of a template.
enum Item {
    /// A letter of the text, without its backslash.
    Letter(char),
    /// A blank; its length is absent when the number is too large.
    Blank(Option<usize>),
    /// `{*}`
    Free,
}

// The first item of a template and its length in bytes; absent at the end.
fn first_item(template: &str, default_blank: usize) -> Option<(Item, usize)> {
    let first = template.chars().next()?;
    if template.starts_with("{*}") {
        return Some((Item::Free, "{*}".len()));
    }
    if template.starts_with("___") {
        return Some((Item::Blank(Some(default_blank)), template.len() - template.trim_start_matches('_').len()));
    }
    if let Some(after) = template.strip_prefix('{') {
        let n_digits = after.bytes().take_while(u8::is_ascii_digit).count();
        if n_digits > 0 && after[n_digits..].starts_with('}') {
            return Some((Item::Blank(after[..n_digits].parse().ok()), n_digits + 2));
        }
    }
    let escaped = template.strip_prefix('\\').and_then(|after| after.chars().next());
    match escaped.filter(|letter| ['{', '_', '\\'].contains(letter)) {
        Some(letter) => Some((Item::Letter(letter), 2)),
        None => Some((Item::Letter(first), first.len_utf8())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_and_text_alternate() {
        let text = |text: &str| Part::Text(text.to_string());
        let cases = [
            ("no blank", vec![text("no blank")]),
            ("{3}", vec![Part::Blank(3)]),
            ("a {12}é____ z", vec![text("a "), Part::Blank(12), text("é"), Part::Blank(8), text(" z")]),
            ("{x} {} __ {1", vec![text("{x} {} __ {1")]),
            (r"\{3} \___ \\ \n", vec![text("{3} ___ \\ \\n")]),
            ("", vec![]),
            (r"a {*} b\{*}{*}", vec![text("a "), Part::Free, text(" b{*}"), Part::Free]),
        ];
        for (template, expected) in cases {
            assert_eq!(parse(template, 8).unwrap(), expected, "{template}");
        }
        assert!(parse("a {0}", 8).unwrap_err().to_string().contains("{0}"));
        assert!(parse("a {99999999999999999999999}", 8).is_err());
    }

    #[test]
    fn the_ranges_of_the_blanks_are_those_that_are_parsed() {
        let cases =
            ["no blank", "{3}", "a {12}é____ z", "{x} {} __ {1", r"\{3} \___ \\ \n", "", r"a {*} b\{*}{*}", r"\\{2}é"];
        for template in cases {
            let blanks: Vec<&str> = blank_ranges(template).into_iter().map(|range| &template[range]).collect();
            let parsed = parse(template, 8).unwrap().iter().filter(|part| !matches!(part, Part::Text(_))).count();
            assert_eq!(blanks.len(), parsed, "{template}: {blanks:?}");
            assert!(blanks.iter().all(|blank| parse(blank, 8).unwrap().len() == 1), "{template}: {blanks:?}");
        }
        assert_eq!(blank_ranges("a {0} {1}"), [2..5, 6..9], "an editor highlights a blank that cannot be filled");
    }

    proptest::proptest! {
        #[test]
        fn what_is_read_can_be_written_and_read_again(template in r"(\\|\{|\}|_|\*|[0-9]|a|é| |\{[1-9]\}|___){0,24}") {
            let Ok(parts) = parse(&template, 8) else { return Ok(()) };
            let write = |part: &Part| match part {
                Part::Text(text) => text.replace('\\', r"\\").replace('{', r"\{").replace('_', r"\_"),
                Part::Blank(count) => format!("{{{count}}}"),
                Part::Free => "{*}".into(),
            };
            let written: String = parts.iter().map(write).collect();
            proptest::prop_assert_eq!(parse(&written, 1).unwrap(), parts, "{} as {}", template, written);
        }
    }
}
