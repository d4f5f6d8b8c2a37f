//! The settings of reading, and their names on the command line.

use std::fmt;
use std::str::FromStr;

use encoding_rs::Encoding;
use serde::{Deserialize, Serialize};

use super::format::FileFormat;
use crate::error::DataError;

/// How files are read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// The field of JSON records that has the text: a name, a dotted path or a JSON Pointer.
    pub field: String,
    /// The column of Parquet, Arrow, CSV and TSV files that has the text: a name or a dotted path.
    pub column: String,
    /// The format of all files. `None` decides for each file by its extension and content.
    pub format: Option<FileFormat>,
    /// The encoding of text, JSON, CSV and TSV files that are not UTF-8. `None` expects UTF-8.
    pub encoding: Option<TextEncoding>,
    /// The documents of plain text.
    pub documents: Documents,
    /// Whether records that cannot be read are counted and left out. Otherwise the first one is an error.
    pub skip_bad: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            field: "text".to_string(),
            column: "text".to_string(),
            format: None,
            encoding: None,
            documents: Documents::File,
            skip_bad: false,
        }
    }
}

/// A character encoding other than UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextEncoding(pub(super) &'static Encoding);

impl fmt::Display for TextEncoding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

/// Parses the labels of the WHATWG Encoding Standard, for example `utf-16le`, `latin1`, `shift_jis` and `gb18030`.
impl FromStr for TextEncoding {
    type Err = DataError;

    fn from_str(label: &str) -> Result<Self, DataError> {
        Encoding::for_label_no_replacement(label.as_bytes()).map(Self).ok_or_else(|| {
            DataError::Option(format!(
                "unknown encoding {label:?}; choose one such as utf-8, utf-16le, utf-16be, latin1, windows-1252, \
                 shift_jis, euc-kr, gb18030 or big5"
            ))
        })
    }
}

/// What a document is in plain text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Documents {
    /// Each file.
    #[default]
    File,
    /// Each line that is not blank.
    Line,
    /// Lines up to a blank line.
    BlankLine,
    /// Text up to this separator. Line breaks beside the separator belong to it.
    Separator(String),
}

/// Parses `file`, `line`, `blank-line`, or any other text as a separator, in which `\n`, `\t`, `\r` and `\\` are
/// escapes.
impl FromStr for Documents {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        match text {
            "file" => return Ok(Self::File),
            "line" => return Ok(Self::Line),
            "blank-line" => return Ok(Self::BlankLine),
            _ => {}
        }
        let mut separator = String::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let escaped = if character == '\\' { characters.next() } else { None };
            match (character, escaped) {
                ('\\', Some('n')) => separator.push('\n'),
                ('\\', Some('t')) => separator.push('\t'),
                ('\\', Some('r')) => separator.push('\r'),
                ('\\', Some('\\')) => separator.push('\\'),
                ('\\', other) => {
                    separator.push('\\');
                    separator.extend(other);
                }
                _ => separator.push(character),
            }
        }
        match separator.as_str() {
            "" => Err(DataError::Option("--documents has an empty separator; give its text".to_string())),
            "\n" => Ok(Self::Line),
            _ => Ok(Self::Separator(separator)),
        }
    }
}
