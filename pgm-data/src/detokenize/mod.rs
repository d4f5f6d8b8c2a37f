//! Detokenizers restore the spacing of corpora that were published as separate words: `" How are you ? "`.
//!
//! The perplexities of this field are measured on text after a fixed list of replacements (from SEDD and MDLM). A
//! comparable figure needs exactly these, in this order, with their oddities:
//!
//! * `lm1b` joins ` . ` only to a plain word after a space; of two such in a row, only the first.
//! * `wikitext` pairs all apostrophes, so `it 's a dog 's` loses more spaces than it should.
//! * `ptb` replaces every `N` by the number 1; `lambada` puts a line break before each text.
//! * `papers` (arXiv and PubMed) is `wikitext` followed by `lm1b`.
//! * `ag-news` changes nothing, since these texts were published with their spacing. The manifest records the name.
//!
//! One rule is left out: the public `wikitext` replaces `/' 7/` by a literal `/'[0-9]/`, a mistake that destroys a digit
//! and matches no real text. Letters and digits are Unicode's ([`char::is_alphanumeric`]).
//!
//! JSONL and Parquet are detokenized by document, plain text by line with its line break (see
//! [`source`](crate::source)), so the result does not depend on where a piece ends.

mod rules;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// A corpus whose spacing is restored.
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
    /// AG News: no change.
    AgNews,
    /// The scientific papers of arXiv and PubMed.
    Papers,
}

impl Detokenizer {
    /// Every detokenizer, in the order in which help texts list them.
    pub const ALL: [Self; 6] = [Self::Lm1b, Self::Wikitext, Self::Ptb, Self::Lambada, Self::AgNews, Self::Papers];

    /// The name on the command line and in the manifest.
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

    /// The text with its spacing restored.
    pub fn apply<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let text = Cow::Borrowed(text);
        match self {
            Self::Lm1b => rules::lm1b(text),
            Self::Wikitext => rules::wikitext(text),
            Self::Ptb => rules::ptb(text),
            Self::Lambada => rules::lambada(text),
            Self::AgNews => text,
            Self::Papers => rules::lm1b(rules::wikitext(text)),
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
            DataError::Option(format!("unknown detokenizer {name:?}; choose one of {names}"))
        })
    }
}

#[cfg(test)]
mod tests;
