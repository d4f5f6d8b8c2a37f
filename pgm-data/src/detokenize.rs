//! Undoes the spacing of corpora that were split into words before they were published.
//!
//! LM1B, WikiText and the Penn Treebank come as words and punctuation marks with a space between each: `" How are
//! you ? "`. The perplexities of this field are measured after the same few replacements (first in SEDD, then in MDLM
//! and everything after it), so a comparable figure needs exactly these, in this order, their oddities included:
//!
//! * `lm1b` joins ` . ` only to a plain word after a space, and of two such in a row only the first.
//! * `wikitext` pairs apostrophes whatever they mean, so `it 's a dog 's` loses spaces a reader would lose, too.
//! * `ptb` writes the number 1 for every `N`; `lambada` puts a line break before each text.
//! * `papers` (arXiv and PubMed) is `wikitext` followed by `lm1b`.
//! * `ag-news` changes nothing: these texts are published as they were written. The name records that.
//!
//! One rule is left out on purpose: the public `wikitext` would turn `/' 7/` into a literal `/'[0-9]/`, a slip that
//! destroys a digit and meets no text. Letters and digits are Unicode's ([`char::is_alphanumeric`]).
//!
//! Each document of JSONL and Parquet is detokenised as a whole. Plain text is detokenised line by line, a line with its
//! break, because in these corpora a line is what the public code calls a document. Both happen before text is cut
//! into pieces ([`source`](crate::source)), so the result does not depend on where a piece ends.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::DataError;

/// Which corpus's spacing is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Detokenizer {
    /// The One Billion Word Benchmark.
    Lm1b,
    /// WikiText-2 and WikiText-103.
    Wikitext,
    /// The Penn Treebank.
    Ptb,
    /// LAMBADA.
    Lambada,
    /// AG News: the text stays as it is.
    AgNews,
    /// The scientific papers of arXiv and PubMed.
    Papers,
}

impl Detokenizer {
    /// Every detokenizer, in the order in which help texts list them.
    pub const ALL: [Self; 6] = [Self::Lm1b, Self::Wikitext, Self::Ptb, Self::Lambada, Self::AgNews, Self::Papers];

    /// Its name on the command line and in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lm1b => "lm1b",
            Self::Wikitext => "wikitext",
            Self::Ptb => "ptb",
            Self::Lambada => "lambada",
            Self::AgNews => "ag-news",
            Self::Papers => "papers",
        }
    }

    /// The text as it was before it was split.
    pub fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let text = Cow::Borrowed(text);
        match self {
            Self::Lm1b => lm1b(text),
            Self::Wikitext => wikitext(text),
            Self::Ptb => ptb(text),
            Self::Lambada => lambada(text),
            Self::AgNews => text,
            Self::Papers => lm1b(wikitext(text)),
        }
    }
}

impl fmt::Display for Detokenizer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Detokenizer {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        Self::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            DataError::Option(format!("no detokenizer is called {name:?}; choose one of {names}"))
        })
    }
}

fn lm1b(text: Cow<str>) -> Cow<str> {
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

fn wikitext(text: Cow<str>) -> Cow<str> {
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

fn ptb(text: Cow<str>) -> Cow<str> {
    let rules = [
        (" 's", "'s"),
        ("s ' ", "s' "),
        (" n't", "n't"),
        (" \n ", "\n"),
        ("\\/", "/"),
        // Twice, because the first pass takes only every other one of ` N N N `.
        (" N ", " 1 "),
        (" N ", " 1 "),
        ("$ 1", "$1"),
        ("# 1", "#1"),
        ("<unk>", "?"),
    ];
    replace_all(text, &rules)
}

fn lambada(text: Cow<str>) -> Cow<str> {
    let text = replace_all(text, &[("“", "\""), ("”", "\"")]);
    Cow::Owned(format!("\n{}", text.trim_matches(is_space)))
}

// Replacements one after the other. A text without a match is handed on as it is.
fn replace_all<'a>(text: Cow<'a, str>, rules: &[(&str, &str)]) -> Cow<'a, str> {
    rules.iter().fold(
        text,
        |text, (from, to)| {
            if text.contains(from) { Cow::Owned(text.replace(from, to)) } else { text }
        },
    )
}

// ` 's` and ` 'll`: the space goes where a word follows the apostrophe.
fn join_clitics(text: Cow<str>) -> Cow<str> {
    drop_spaces(text, " '", |rest| rest[2..].starts_with(is_word).then_some((0, 1)))
}

// ` word . ` loses the space before the stop. A match takes the space behind it along, so the next word has none before
// it and keeps its own distance to a stop.
fn join_full_stops(text: Cow<str>) -> Cow<str> {
    drop_spaces(text, " ", |rest| {
        let word = 1 + word_length(&rest[1..]);
        (word > 1 && rest[word..].starts_with(" . ")).then_some((word, ". ".len()))
    })
}

// The same for the stop that ends the text.
fn join_last_full_stop(text: Cow<str>) -> Cow<str> {
    let (body, line_break) = without_last_break(&text);
    let Some(before) = body.strip_suffix(" .") else { return text };
    let word_start = before.trim_end_matches(is_word);
    if word_start.len() == before.len() || !word_start.ends_with(' ') {
        return text;
    }
    Cow::Owned(format!("{before}.{line_break}"))
}

// A mark that ends the text.
fn join_last<'a>(text: Cow<'a, str>, spaced: &str, mark: &str) -> Cow<'a, str> {
    let (body, line_break) = without_last_break(&text);
    match body.strip_suffix(spaced) {
        Some(before) => Cow::Owned(format!("{before}{mark}{line_break}")),
        None => text,
    }
}

// The end of a text is also the place before a line break that ends it.
fn without_last_break(text: &str) -> (&str, &str) {
    match text.strip_suffix('\n') {
        Some(body) => (body, "\n"),
        None => (text, ""),
    }
}

// At each `mark`, `at` sees the text from there and may say how many bytes of it stand before a space that goes, and how
// many behind it belong to the match.
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

// Drops white space inside a pair: from an opening mark to the next closing one, whatever stands between them.
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

// Drops the single spaces inside a pair that has one on either side, something between them and no mark within.
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

// Python's white space, which counts four separators of ASCII in.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

fn word_length(text: &str) -> usize {
    text.len() - text.trim_start_matches(is_word).len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_corpus_loses_its_spacing_as_the_public_code_undoes_it() {
        use Detokenizer::*;
        let cases = [
            (
                Lm1b,
                "The ferry to Oban was late again , then full , and the crew asked forty of us to wait for the next one .",
                "The ferry to Oban was late again, then full, and the crew asked forty of us to wait for the next one.",
            ),
            (
                Lm1b,
                "\" Where to , Mr. Ito ? \" she asked ; he did n't answer : it 's late !",
                "\"Where to, Mr. Ito?\" she asked; he did n't answer: it's late!",
            ),
            (
                Lm1b,
                "He paid $ 12 ( £ 7 ) at http : / / example.com / shop .",
                "He paid $12 (£7) at http://example.com/shop.",
            ),
            (Lm1b, "a . b . c .", "a . b. c."),
            (Lm1b, "They 'll call it ' home ' [ again ] ?\n", "They'll call it 'home' [again]?\n"),
            (Wikitext, " = The ship 's bell = \n", " = The ship's bell =\n"),
            (Wikitext, " = = = Rigging = = = \n", " === Rigging ===\n"),
            (
                Wikitext,
                " The bell ( Japanese : 鐘 , lit . \" bell \" ) weighs 1 @,@ 500 @.@ 5 kg ; the sailors ' best @-@ known one rang at 12 ° C . \n",
                " The bell (Japanese: 鐘, lit. \"bell\") weighs 1,500.5 kg; the sailors' best-known one rang at 12°C.\n",
            ),
            (Wikitext, " a ( ) b [  c ] { d\u{a0}} ' e ' N f\n g", " a () b [c] {d} 'e' 1 f\ng"),
            (
                Ptb,
                "the company 's directors did n't expect <unk> to buy N N N shares at $ N each",
                "the company's directors didn't expect ? to buy 1 1 1 shares at $1 each",
            ),
            (Ptb, "the owners ' share fell to # N and\\/or less", "the owners' share fell to #1 and/or less"),
            (
                Lambada,
                "  “Where is the dog?” he said. “Here,” said\nAnna \n",
                "\n\"Where is the dog?\" he said. \"Here,\" said\nAnna",
            ),
            (
                AgNews,
                "Shares slip (Wire) - Oil\\rose , traders said ; #39;quiet#39; day .",
                "Shares slip (Wire) - Oil\\rose , traders said ; #39;quiet#39; day .",
            ),
            (
                Papers,
                "models of waves ( see e.g. @xcite ) . we call \" x \" and [ y ] wide , as shown .\n the rest",
                "models of waves (see e.g. @xcite). we call \"x\" and [y] wide, as shown .\nthe rest",
            ),
        ];
        for (detokenizer, split, whole) in cases {
            assert_eq!(detokenizer.apply(split), whole, "{detokenizer}: {split:?}");
        }
    }

    #[test]
    fn a_text_without_a_match_is_not_copied() {
        for detokenizer in Detokenizer::ALL.into_iter().filter(|&detokenizer| detokenizer != Detokenizer::Lambada) {
            assert!(matches!(detokenizer.apply("Nothing to do here. Or here?"), Cow::Borrowed(_)), "{detokenizer}");
        }
    }

    #[test]
    fn names_are_those_of_the_manifest_and_an_unknown_one_is_answered_with_all() {
        for detokenizer in Detokenizer::ALL {
            assert_eq!(detokenizer.name().parse::<Detokenizer>().unwrap(), detokenizer);
            assert_eq!(serde_json::to_value(detokenizer).unwrap(), detokenizer.name());
        }
        let message = "c4".parse::<Detokenizer>().unwrap_err().to_string();
        assert!(message.contains("\"c4\"") && message.contains("lm1b, wikitext, ptb"), "{message}");
    }

    // Texts full of what the rules look for.
    fn marked() -> impl Strategy<Value = String> {
        let parts = [
            "a", "Ünï", "鐘", "N", "7", " ", "  ", " ", "'", "\"", "(", ")", "[", "]", "{", "}", ".", "?", "!", ",",
            ":",
        ];
        let more =
            [";", "/", "\\", "$", "£", "#", "=", "@", "-", "°", "<unk>", "'s", "n't", "“", "”", "\n", "\u{1c}", "http"];
        let part = prop::sample::select([&parts[..], &more[..]].concat());
        prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn any_text_is_taken_and_only_white_space_and_a_few_marks_change(text in prop_oneof![any::<String>(), marked()]) {
            let kept = |text: &str| text.chars().filter(|&c| !is_space(c)).collect::<String>();
            for detokenizer in Detokenizer::ALL {
                let whole = detokenizer.apply(&text);
                if detokenizer == Detokenizer::Lm1b {
                    prop_assert_eq!(kept(&whole), kept(&text));
                }
                if detokenizer != Detokenizer::Lambada {
                    prop_assert!(whole.len() <= text.len());
                }
            }
        }

        #[test]
        fn whole_texts_stay_as_they_are(text in prop_oneof![any::<String>(), marked()]) {
            for detokenizer in [Detokenizer::Lambada, Detokenizer::AgNews] {
                let once = detokenizer.apply(&text).into_owned();
                prop_assert_eq!(&detokenizer.apply(&once), &once);
            }
        }

        #[test]
        fn an_ordinary_sentence_of_lm1b_is_whole_after_one_pass(
            clauses in prop::collection::vec(("[a-z]{2,7}( [a-z]{2,7}){0,3}", " (,|;|:) "), 1..4),
            last in "[a-z]{2,7} (\\.|\\?|!)\n?",
        ) {
            let split: String = clauses.iter().map(|(words, mark)| format!("{words}{mark}")).collect::<String>()
                + "they 'll " + &last;
            let whole = Detokenizer::Lm1b.apply(&split).into_owned();
            prop_assert!(![" ,", " ;", " :", " .", " ?", " !", " '"].iter().any(|mark| whole.contains(mark)), "{}", whole);
            prop_assert_eq!(&Detokenizer::Lm1b.apply(&whole), &whole);
        }
    }
}
