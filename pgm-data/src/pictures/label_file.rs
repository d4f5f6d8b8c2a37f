//! A file of labels for a folder of pictures: CSV, TSV or JSON lines.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::archive::{PICTURE_EXTENSIONS, label_of_json};
use super::picture::{RawLabel, malformed};
use crate::error::DataError;

/// Names of the column of files, in the order in which they are looked up. Without any, it is the first column.
const FILE_COLUMNS: [&str; 9] = ["file_name", "filename", "file", "path", "image", "image_path", "img", "name", "id"];
/// Names of the column of labels. Without any, it is the second column.
const LABEL_COLUMNS: [&str; 8] = ["label", "labels", "class", "cls", "class_name", "target", "category", "breed"];
/// Names by which a folder's file of labels is found.
const USUAL_NAMES: [&str; 6] =
    ["labels.csv", "labels.tsv", "labels.jsonl", "metadata.csv", "metadata.tsv", "metadata.jsonl"];

/// The labels of files.
#[derive(Debug)]
pub(super) struct LabelFile {
    path: PathBuf,
    by_file: HashMap<String, RawLabel>,
}

impl LabelFile {
    /// The file of labels that lies in a folder.
    pub(super) fn beside(folder: &Path) -> Option<PathBuf> {
        USUAL_NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file())
    }

    pub(super) fn read(path: &Path) -> Result<Self, DataError> {
        let bytes = std::fs::read(path).map_err(DataError::io("read", path))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed(path, "is not UTF-8 text"))?;
        let text = text.trim_start_matches('\u{feff}');
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        let pairs = match extension.as_deref() {
            Some("jsonl" | "ndjson") => json_lines(path, text)?,
            Some("tsv" | "tab") => table(path, text, b'\t')?,
            Some("csv" | "txt") => table(path, text, b',')?,
            _ => return Err(malformed(path, "is no file of labels; its name ends with .csv, .tsv or .jsonl")),
        };
        let mut by_file = HashMap::new();
        for (file, label) in pairs {
            let file = file.replace('\\', "/");
            let file = file.trim_start_matches("./").to_string();
            if by_file.get(&file).is_some_and(|before| *before != label) {
                return Err(malformed(path, format!("has two labels for {file}")));
            }
            by_file.insert(file, label);
        }
        if by_file.is_empty() {
            return Err(malformed(path, "has no labels"));
        }
        Ok(Self { path: path.to_path_buf(), by_file })
    }

    /// The label of a file below `folder`: by its path there, by its path beside this file, by its name, or by its name
    /// without the extension.
    pub(super) fn label(&self, folder: &Path, file: &Path) -> Result<RawLabel, String> {
        let as_key = |path: &Path| path.to_string_lossy().replace('\\', "/");
        let beside = self.path.parent().unwrap_or(Path::new(""));
        let keys = [
            file.strip_prefix(folder).ok().map(as_key),
            file.strip_prefix(beside).ok().map(as_key),
            file.file_name().map(|name| as_key(Path::new(name))),
            file.file_stem().map(|name| as_key(Path::new(name))),
        ];
        let label = keys.iter().flatten().find_map(|key| self.by_file.get(key));
        label.cloned().ok_or_else(|| format!("has no label in {}", self.path.display()))
    }

    /// Number of labels.
    pub(super) fn len(&self) -> usize {
        self.by_file.len()
    }
}

fn table(path: &Path, text: &str, delimiter: u8) -> Result<Vec<(String, RawLabel)>, DataError> {
    let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).has_headers(false).from_reader(text.as_bytes());
    let (mut file_column, mut label_column) = (0, 1);
    let mut pairs = Vec::new();
    for (index, record) in reader.records().enumerate() {
        let record = record.map_err(|error| malformed(path, format!("is not readable as a table ({error})")))?;
        if index == 0 && !is_row(record.get(0).unwrap_or_default()) {
            let names: Vec<String> = record.iter().map(|name| name.trim().to_lowercase()).collect();
            let place = |known: &[&str]| known.iter().find_map(|known| names.iter().position(|name| name == known));
            file_column = place(&FILE_COLUMNS).unwrap_or(0);
            label_column = place(&LABEL_COLUMNS).unwrap_or(usize::from(file_column == 0));
            continue;
        }
        let line = record.position().map_or(0, csv::Position::line);
        let (Some(file), Some(label)) = (record.get(file_column), record.get(label_column)) else {
            let problem = format!("has no label at line {line}; write a file, a comma and a label");
            return Err(malformed(path, problem));
        };
        if file.trim().is_empty() || label.trim().is_empty() {
            return Err(malformed(path, format!("has no file or no label at line {line}")));
        }
        pairs.push((file.trim().to_string(), RawLabel::parse(label)));
    }
    Ok(pairs)
}

// Whether the first cell is a picture's name, so that the table has no header.
fn is_row(cell: &str) -> bool {
    let extension = cell.rsplit_once('.').map(|(_, extension)| extension.trim().to_lowercase());
    extension.is_some_and(|extension| PICTURE_EXTENSIONS.contains(&extension.as_str()))
}

fn json_lines(path: &Path, text: &str) -> Result<Vec<(String, RawLabel)>, DataError> {
    let mut pairs = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let problem = |problem: &str| malformed(path, format!("{problem} at line {}", index + 1));
        let value: Value = serde_json::from_str(line).map_err(|_| problem("is no JSON"))?;
        let file =
            FILE_COLUMNS.iter().find_map(|name| value[*name].as_str()).ok_or_else(|| problem("names no file"))?;
        let label = LABEL_COLUMNS.iter().find_map(|name| label_of_json(&value[*name]));
        pairs.push((file.to_string(), label.ok_or_else(|| problem("has no label"))?));
    }
    Ok(pairs)
}
