//! Inputs as a part of a preparation records them: the files with their formats and sizes, and how they are read.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::TextInputs;
use super::compression::Compression;
use super::detect::DetectedFormat;
use super::find::FoundFiles;
use super::format::FileFormat;
use super::input_file::InputFile;
use super::options::{Documents, ReadOptions};
use crate::detokenize::Detokenizer;
use crate::error::DataError;

/// Everything that decides which pieces are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedInputs {
    field: String,
    column: String,
    documents: Documents,
    skip_bad: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shuffle_documents: Option<u64>,
    files: Vec<SavedFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedFile {
    path: String,
    bytes: u64,
    format: FileFormat,
    compression: Compression,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    encoding: Option<String>,
    found_by_content: bool,
}

impl SavedInputs {
    /// The files of `inputs` without its detokenizer and mixture. Paths are absolute.
    pub(crate) fn of(inputs: &TextInputs) -> Result<Self, DataError> {
        let save = |file: &InputFile| {
            let io = |error| DataError::io("read", file.path())(error);
            Ok(SavedFile {
                path: std::path::absolute(file.path()).map_err(io)?.to_string_lossy().into_owned(),
                bytes: file.content().metadata().map_err(io)?.len(),
                format: file.format,
                compression: file.compression,
                encoding: file.encoding.map(|encoding| encoding.to_string()),
                found_by_content: file.found_by_content,
            })
        };
        let ReadOptions { field, column, documents, skip_bad, .. } = inputs.options();
        Ok(Self {
            field: field.clone(),
            column: column.clone(),
            documents: documents.clone(),
            skip_bad: *skip_bad,
            shuffle_documents: inputs.shuffle(),
            files: inputs.input_files().iter().map(save).collect::<Result<_, DataError>>()?,
        })
    }

    /// The inputs again. No file is opened.
    pub(crate) fn open(&self, detokenizer: Option<Detokenizer>) -> Result<TextInputs, DataError> {
        let open = |file: &SavedFile| {
            let detected = DetectedFormat {
                format: file.format,
                compression: file.compression,
                encoding: file.encoding.as_deref().map(str::parse).transpose()?,
                found_by_content: file.found_by_content,
                not_utf8: None,
            };
            Ok(InputFile::new(PathBuf::from(&file.path), detected, None))
        };
        let files = self.files.iter().map(open).collect::<Result<_, DataError>>()?;
        let options = ReadOptions {
            field: self.field.clone(),
            column: self.column.clone(),
            format: None,
            encoding: None,
            documents: self.documents.clone(),
            skip_bad: self.skip_bad,
        };
        Ok(TextInputs::of_files(
            FoundFiles { files, ..FoundFiles::default() },
            options,
            detokenizer,
            self.shuffle_documents,
        ))
    }
}
