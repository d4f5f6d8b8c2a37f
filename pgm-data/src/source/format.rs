//! The formats that can be read.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// The format of a file after decompression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileFormat {
    /// Plain text.
    Text,
    /// One JSON record per line.
    JsonLines,
    /// A JSON array of records, or records one after the other.
    Json,
    /// Comma-separated values with a header.
    Csv,
    /// Tab-separated values with a header.
    Tsv,
    /// Parquet.
    Parquet,
    /// Arrow IPC: a file (Feather) or a stream.
    Arrow,
}

impl FileFormat {
    const NAMES: [(Self, &'static str); 7] = [
        (Self::Text, "text"),
        (Self::JsonLines, "json-lines"),
        (Self::Json, "json"),
        (Self::Csv, "csv"),
        (Self::Tsv, "tsv"),
        (Self::Parquet, "parquet"),
        (Self::Arrow, "arrow"),
    ];

    /// Whether the file is made of characters, which have an encoding.
    pub(super) fn is_text(self) -> bool {
        !matches!(self, Self::Parquet | Self::Arrow)
    }

    /// The format that an extension names. `name` is in lower case.
    pub(super) fn of_extension(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "jsonl" | "ndjson" | "jsonlines" | "ldjson" => Some(Self::JsonLines),
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "tsv" | "tab" => Some(Self::Tsv),
            "parquet" | "parq" | "pq" => Some(Self::Parquet),
            "arrow" | "feather" | "ipc" => Some(Self::Arrow),
            _ => None,
        }
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(Self::NAMES[*self as usize].1)
    }
}

impl FromStr for FileFormat {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        let known = Self::NAMES.iter().find(|(_, known)| *known == name);
        known.map(|(format, _)| *format).ok_or_else(|| {
            let names = Self::NAMES.map(|(_, name)| name).join(", ");
            DataError::Option(format!("unknown format {name:?}; choose one of {names}"))
        })
    }
}
