//! Templates: text with blanks anywhere in it.

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
    while let Some(first) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("{*}") {
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(Part::Free);
            rest = after;
            continue;
        }
        let blank = match first {
            '{' => {
                let (digits, after) = rest[1..].split_at(rest[1..].bytes().take_while(u8::is_ascii_digit).count());
                after.strip_prefix('}').filter(|_| !digits.is_empty()).map(|after| (digits.parse().ok(), after))
            }
            '_' if rest.starts_with("___") => Some((Some(default_blank), rest.trim_start_matches('_'))),
            _ => None,
        };
        if let Some((count, after)) = blank {
            let count = count.filter(|&count| count > 0).ok_or_else(|| {
                let shown = &rest[..rest.len() - after.len()];
                InferError::Request(format!(
                    "the blank {shown} must ask for at least one token, and for a number that fits"
                ))
            })?;
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut text)));
            }
            parts.push(Part::Blank(count));
            rest = after;
            continue;
        }
        let after_backslash = rest.strip_prefix('\\').and_then(|rest| rest.chars().next());
        let escaped = after_backslash.filter(|next| ['{', '_', '\\'].contains(next));
        let kept = escaped.unwrap_or(first);
        text.push(kept);
        rest = &rest[first.len_utf8() + escaped.map_or(0, char::len_utf8)..];
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
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
