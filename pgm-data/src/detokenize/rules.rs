//! The replacements of each corpus, in the order of the public code.

use std::borrow::Cow;

pub(super) fn lm1b(text: Cow<str>) -> Cow<str> {
    let text = replace_all(text, &[("http : / / ", "http://"), ("https : / / ", "https://")]);
    let text = join_clitics(text);
    let text = join_full_stops(text);
    let text = join_last_full_stop(text);
    let text = join_last(replace_all(text, &[(" ? ", "? ")]), " ?", "?");
    let text = join_last(replace_all(text, &[(" ! ", "! ")]), " !", "!");
    let text = replace_all(text, &[(" , ", ", "), (" : ", ": "), (" ; ", "; "), (" / ", "/")]);
    let text = [('"', '"'), ('\'', '\''), ('(', ')'), ('[', ']')]
        .into_iter()
        .fold(text, |text, (open, close)| tighten_spaced(text, open, close));
    replace_all(text, &[("$ ", "$"), ("£ ", "£")])
}

pub(super) fn wikitext(text: Cow<str>) -> Cow<str> {
    let marks = [
        ("s '", "s'"),
        (" @-@ ", "-"),
        (" @,@ ", ","),
        (" @.@ ", "."),
        (" : ", ": "),
        (" ; ", "; "),
        (" . ", ". "),
        (" ! ", "! "),
        (" ? ", "? "),
        (" , ", ", "),
    ];
    let text = [('(', ')'), ('[', ']'), ('{', '}'), ('"', '"'), ('\'', '\'')]
        .into_iter()
        .fold(replace_all(text, &marks), |text, (open, close)| tighten(text, open, close));
    let rest = [
        ("= = = =", "===="),
        ("= = =", "==="),
        ("= =", "=="),
        (" \u{b0} ", "\u{b0}"),
        (" \n", "\n"),
        ("\n ", "\n"),
        (" N ", " 1 "),
        (" 's", "'s"),
    ];
    replace_all(text, &rest)
}

pub(super) fn ptb(text: Cow<str>) -> Cow<str> {
    let rules = [
        (" 's", "'s"),
        ("s ' ", "s' "),
        (" n't", "n't"),
        (" \n ", "\n"),
        ("\\/", "/"),
        // Twice: in ` N N N ` the first pass replaces only every other one.
        (" N ", " 1 "),
        (" N ", " 1 "),
        ("$ 1", "$1"),
        ("# 1", "#1"),
        ("<unk>", "?"),
    ];
    replace_all(text, &rules)
}

pub(super) fn lambada(text: Cow<str>) -> Cow<str> {
    let text = replace_all(text, &[("“", "\""), ("”", "\"")]);
    Cow::Owned(format!("\n{}", text.trim_matches(is_space)))
}

// Replacements, one after another. A text without a match is not copied.
fn replace_all<'a>(text: Cow<'a, str>, rules: &[(&str, &str)]) -> Cow<'a, str> {
    rules.iter().fold(
        text,
        |text, (from, to)| {
            if text.contains(from) { Cow::Owned(text.replace(from, to)) } else { text }
        },
    )
}

// ` 's` and ` 'll`: drops the space where a word character follows the apostrophe.
fn join_clitics(text: Cow<str>) -> Cow<str> {
    drop_spaces(text, " '", |rest| rest[2..].starts_with(is_word).then_some((0, 1)))
}

// ` word . `: drops the space before the full stop. A match includes the space after the stop, so a match cannot start
// at that space: in ` a . b . ` only the first stop is joined.
fn join_full_stops(text: Cow<str>) -> Cow<str> {
    drop_spaces(text, " ", |rest| {
        let word = 1 + word_length(&rest[1..]);
        (word > 1 && rest[word..].starts_with(" . ")).then_some((word, ". ".len()))
    })
}

// The same for a full stop at the end of the text.
fn join_last_full_stop(text: Cow<str>) -> Cow<str> {
    let (body, line_break) = without_last_break(&text);
    let Some(before) = body.strip_suffix(" .") else { return text };
    let word_start = before.trim_end_matches(is_word);
    if word_start.len() == before.len() || !word_start.ends_with(' ') {
        return text;
    }
    Cow::Owned(format!("{before}.{line_break}"))
}

// The same for another mark at the end of the text.
fn join_last<'a>(text: Cow<'a, str>, spaced: &str, mark: &str) -> Cow<'a, str> {
    let (body, line_break) = without_last_break(&text);
    match body.strip_suffix(spaced) {
        Some(before) => Cow::Owned(format!("{before}{mark}{line_break}")),
        None => text,
    }
}

// As in Python's regular expressions, the end of a text is also before its last line break.
fn without_last_break(text: &str) -> (&str, &str) {
    match text.strip_suffix('\n') {
        Some(body) => (body, "\n"),
        None => (text, ""),
    }
}

// Calls `at` with the text from each `mark` on. `at` returns how many bytes precede a space to drop, and how many bytes
// after it belong to the match.
fn drop_spaces<'a>(text: Cow<'a, str>, mark: &str, at: impl Fn(&str) -> Option<(usize, usize)>) -> Cow<'a, str> {
    let mut out = String::new();
    let (mut copied, mut from) = (0, 0);
    while let Some(start) = text[from..].find(mark).map(|found| from + found) {
        match at(&text[start..]) {
            Some((before, behind)) => {
                out.push_str(&text[copied..start + before]);
                copied = start + before + 1;
                from = copied + behind;
            }
            None => from = start + 1,
        }
    }
    if copied == 0 {
        return text;
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

// Drops the white space just inside each pair, from an opening mark to the next closing mark.
fn tighten(text: Cow<str>, open: char, close: char) -> Cow<str> {
    let mut out = String::new();
    let mut copied = 0;
    while let Some(start) = text[copied..].find(open).map(|found| copied + found) {
        let Some(end) = text[start + 1..].find(close).map(|found| start + 1 + found) else { break };
        out.push_str(&text[copied..=start]);
        out.push_str(text[start + 1..end].trim_matches(is_space));
        out.push(close);
        copied = end + 1;
    }
    if copied == 0 {
        return text;
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

// Drops the single spaces just inside each pair that has one on both sides, some text between them and no mark inside.
fn tighten_spaced(text: Cow<str>, open: char, close: char) -> Cow<str> {
    let mut out = String::new();
    let (mut copied, mut from) = (0, 0);
    while let Some(start) = text[from..].find(open).map(|found| from + found) {
        let Some(end) = text[start + 1..].find([open, close]).map(|found| start + 1 + found) else { break };
        let inner = text[start + 1..end].strip_prefix(' ').and_then(|inner| inner.strip_suffix(' '));
        match inner.filter(|inner| !inner.is_empty() && text[end..].starts_with(close)) {
            Some(inner) => {
                out.push_str(&text[copied..=start]);
                out.push_str(inner);
                out.push(close);
                copied = end + 1;
                from = copied;
            }
            None => from = end,
        }
    }
    if copied == 0 {
        return text;
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

// Python's white space, which includes four ASCII separators.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

fn word_length(text: &str) -> usize {
    text.len() - text.trim_start_matches(is_word).len()
}
