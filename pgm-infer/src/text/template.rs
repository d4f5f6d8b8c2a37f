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

impl Part {
    /// The least tokens that a blank takes; text counts as none.
    pub(crate) fn least(&self) -> usize {
        match self {
            Self::Text(_) => 0,
            Self::Blank(n_tokens) => *n_tokens,
            Self::Free => 1,
        }
    }
}

/// A stretch of a template and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its bytes in the template.
    pub range: Range<usize>,
    /// What stands there.
    pub content: SpanContent,
}

/// What a [`Span`] holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanContent {
    /// Given text, its escapes resolved.
    Text(String),
    /// `{N}`: the number of tokens, none if it is 0 or too large for a number.
    Blank(Option<usize>),
    /// Three or more underscores: a blank of the default length.
    DefaultBlank,
    /// `{*}`: a blank as long as the row leaves room for.
    Free,
}

/// Splits a template into text and blanks, as [`parse`] does, with the place of each. For an editor that shows blanks while
/// they are typed: nothing is an error, and all spans together cover the template.
pub fn spans(template: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    let (mut text, mut text_start, mut at) = (String::new(), 0, 0);
    while let Some(first) = template[at..].chars().next() {
        let rest = &template[at..];
        if let Some((length, content)) = blank(rest) {
            if text_start < at {
                let content = SpanContent::Text(std::mem::take(&mut text));
                spans.push(Span { range: text_start..at, content });
            }
            spans.push(Span { range: at..at + length, content });
            at += length;
            text_start = at;
            continue;
        }
        let escaped = rest.strip_prefix('\\').and_then(|rest| rest.chars().next());
        let escaped = escaped.filter(|next| ['{', '_', '\\'].contains(next));
        text.push(escaped.unwrap_or(first));
        at += first.len_utf8() + escaped.map_or(0, char::len_utf8);
    }
    if text_start < at {
        spans.push(Span { range: text_start..at, content: SpanContent::Text(text) });
    }
    spans
}

/// The byte ranges of a template's blanks, for editors that highlight them. A blank that [`parse`] refuses is included.
pub fn blank_ranges(template: &str) -> Vec<Range<usize>> {
    let blanks = spans(template).into_iter().filter(|span| !matches!(span.content, SpanContent::Text(_)));
    blanks.map(|span| span.range).collect()
}

// The blank that a text begins with, and its length in bytes.
fn blank(text: &str) -> Option<(usize, SpanContent)> {
    if text.starts_with("{*}") {
        return Some((3, SpanContent::Free));
    }
    if text.starts_with("___") {
        return Some((text.len() - text.trim_start_matches('_').len(), SpanContent::DefaultBlank));
    }
    let inner = text.strip_prefix('{')?;
    let n_digits = inner.bytes().take_while(u8::is_ascii_digit).count();
    let is_blank = n_digits > 0 && inner[n_digits..].starts_with('}');
    let n_tokens = inner[..n_digits].parse().ok().filter(|&n| n > 0);
    is_blank.then_some((n_digits + 2, SpanContent::Blank(n_tokens)))
}

/// Splits a template into text and blanks: `{N}` is a blank of N tokens, `{*}` one as long as the row leaves room for, `___`
/// (three or more underscores) one of `default_blank` tokens. A backslash before `{`, `_` or `\` makes it plain text.
///
/// # Errors
/// [`InferError::Request`] for a blank of no tokens.
pub fn parse(template: &str, default_blank: usize) -> Result<Vec<Part>, InferError> {
    let part = |Span { range, content }: Span| {
        let n_tokens = match content {
            SpanContent::Text(text) => return Ok(Part::Text(text)),
            SpanContent::Free => return Ok(Part::Free),
            SpanContent::Blank(n_tokens) => n_tokens,
            SpanContent::DefaultBlank => Some(default_blank).filter(|&n| n > 0),
        };
        n_tokens.map(Part::Blank).ok_or_else(|| {
            let blank = &template[range];
            InferError::Request(format!(
                "the blank {blank} must ask for at least one token, and for a number that fits"
            ))
        })
    };
    spans(template).into_iter().map(part).collect()
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
    fn spans_cover_the_template_and_stand_where_its_parts_do() {
        let template = r"a \{x {12}é____{*}{0} z";
        let spans = spans(template);
        let shown: Vec<&str> = spans.iter().map(|span| &template[span.range.clone()]).collect();
        assert_eq!(shown, [r"a \{x ", "{12}", "é", "____", "{*}", "{0}", " z"]);
        assert_eq!(spans[0].content, SpanContent::Text("a {x ".into()));
        assert_eq!(spans[5].content, SpanContent::Blank(None));
        assert_eq!(blank_ranges("a {0} {1}"), [2..5, 6..9], "an editor highlights a blank that cannot be filled");
    }

    proptest::proptest! {
        #[test]
        fn spans_follow_each_other_without_a_gap(template in r"(\\|\{|\}|_|\*|[0-9]|a|é| |\{[0-9]\}|___|\{\*\}){0,24}") {
            let mut next = 0;
            for span in spans(&template) {
                proptest::prop_assert!(span.range.start == next && span.range.end > next, "{:?}", span);
                next = span.range.end;
            }
            proptest::prop_assert_eq!(next, template.len());
        }

        #[test]
        fn parts_that_are_written_out_are_read_alike(template in r"(\\|\{|\}|_|\*|[0-9]|a|é| |\{[1-9]\}|___){0,24}") {
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
