//! Where sampled pictures go: a sheet, a folder of PNGs or an array file.

use std::path::{Path, PathBuf};

use pgm_model::model_folder::write_file;
use serde::{Deserialize, Serialize};

use super::npz::{NpzSamples, failed};
use super::pixels::Picture;
use super::sheet::{SheetRow, contact_sheet};
use crate::InferError;

/// Name of the list of pictures in a folder of them.
pub const MANIFEST_FILE: &str = "manifest.json";

/// What is known of a sampled picture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleInfo {
    /// Its class; none for no class in particular.
    pub class: Option<usize>,
    /// The name of the class, or its number; empty without a class.
    pub name: String,
    /// Seed of its random stream.
    pub seed: u64,
}

/// A line of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEntry {
    /// The file in the folder.
    pub file: String,
    /// The picture.
    #[serde(flatten)]
    pub info: SampleInfo,
}

/// A target of sampled pictures. What is there when a run is stopped is kept.
#[derive(Debug)]
pub enum SampleSink {
    /// One PNG; a single picture as it is, several as a sheet.
    Sheet {
        /// The file.
        path: PathBuf,
        /// The pictures so far.
        rows: Vec<SheetRow>,
    },
    /// A folder with a PNG for each picture and [`MANIFEST_FILE`].
    Folder {
        /// The folder.
        path: PathBuf,
        /// The pictures so far.
        entries: Vec<ManifestEntry>,
    },
    /// An array file.
    Npz(Box<NpzSamples>),
}

impl SampleSink {
    /// The target that the path's ending names: `.png`, `.npz`, or a folder without an ending.
    ///
    /// # Errors
    /// [`InferError::Request`] for another ending and for a folder with files in it, [`InferError::Write`] when nothing can
    /// be written there.
    pub fn create(path: &Path) -> Result<Self, InferError> {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        let path = path.to_path_buf();
        match ending.as_deref() {
            Some("png") => Ok(Self::Sheet { path, rows: Vec::new() }),
            Some("npz") => Ok(Self::Npz(Box::new(NpzSamples::create(&path)?))),
            Some(other) if !path.is_dir() => Err(InferError::Request(format!(
                "--out {} ends in .{other}; give a .png file, an .npz file or a folder",
                path.display()
            ))),
            _ => {
                std::fs::create_dir_all(&path).map_err(|error| failed(&path, error))?;
                let mut files = std::fs::read_dir(&path).map_err(|error| failed(&path, error))?;
                if files.next().is_some() {
                    let message = format!("--out {} exists and is not empty; name a new folder", path.display());
                    return Err(InferError::Request(message));
                }
                Ok(Self::Folder { path, entries: Vec::new() })
            }
        }
    }

    /// Adds a picture.
    ///
    /// # Errors
    /// As [`Picture::write_png`] and [`NpzSamples::push`].
    pub fn push(&mut self, picture: Picture, info: SampleInfo) -> Result<(), InferError> {
        match self {
            Self::Sheet { rows, .. } => match rows.iter_mut().find(|row| row.label == info.name) {
                Some(row) => row.pictures.push(picture),
                None => rows.push(SheetRow { label: info.name, pictures: vec![picture] }),
            },
            Self::Folder { path, entries } => {
                let file = format!("{:06}.png", entries.len());
                picture.write_png(&path.join(&file))?;
                entries.push(ManifestEntry { file, info });
            }
            Self::Npz(samples) => samples.push(&picture, info.class)?,
        }
        Ok(())
    }

    /// Writes what is left to write; `settings` becomes part of a folder's manifest. Returns the number of pictures.
    ///
    /// # Errors
    /// [`InferError::Request`] without a picture; as [`push`](Self::push).
    pub fn finish(self, settings: &serde_json::Value) -> Result<usize, InferError> {
        let none = || InferError::Request("no picture was sampled".into());
        match self {
            Self::Sheet { path, rows } => {
                let n = rows.iter().map(|row| row.pictures.len()).sum();
                match (n, rows.first().and_then(|row| row.pictures.first())) {
                    (1, Some(picture)) => picture.write_png(&path)?,
                    (_, Some(_)) => contact_sheet(&rows).write_png(&path)?,
                    (_, None) => return Err(none()),
                }
                Ok(n)
            }
            Self::Folder { entries, .. } if entries.is_empty() => Err(none()),
            Self::Folder { path, entries } => {
                let manifest = serde_json::json!({ "settings": settings, "pictures": entries });
                let path = path.join(MANIFEST_FILE);
                let json = serde_json::to_vec_pretty(&manifest).map_err(|error| failed(&path, error.into()))?;
                write_file(&path, &json)?;
                Ok(entries.len())
            }
            Self::Npz(samples) => samples.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(class: usize, seed: u64) -> SampleInfo {
        SampleInfo { class: Some(class), name: format!("n{class}"), seed }
    }

    fn picture(value: u8) -> Picture {
        Picture::filled(4, 4, &[value])
    }

    #[test]
    fn the_ending_of_the_path_names_the_kind_of_target() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, n: usize| {
            let mut sink = SampleSink::create(&folder.path().join(name)).unwrap();
            for index in 0..n {
                sink.push(picture(index as u8), info(index % 2, index as u64)).unwrap();
            }
            sink.finish(&serde_json::json!({ "steps": 3 })).unwrap()
        };
        assert_eq!(write("one.png", 1), 1);
        assert_eq!(Picture::read(&folder.path().join("one.png"), 1).unwrap(), picture(0));
        assert_eq!(write("sheet.PNG", 5), 5);
        assert!(Picture::read(&folder.path().join("sheet.PNG"), 1).unwrap().width() > 3 * 64);
        assert_eq!(write("samples.npz", 3), 3);
        assert_eq!(write("pictures", 3), 3);
        let manifest = std::fs::read(folder.path().join("pictures").join(MANIFEST_FILE)).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let entries: Vec<ManifestEntry> = serde_json::from_value(manifest["pictures"].clone()).unwrap();
        assert_eq!(entries[1], ManifestEntry { file: "000001.png".into(), info: info(1, 1) });
        assert_eq!(manifest["settings"]["steps"], 3);
        let second = Picture::read(&folder.path().join("pictures/000001.png"), 1).unwrap();
        assert_eq!(second, picture(1));

        let refused = |name: &str| SampleSink::create(&folder.path().join(name)).unwrap_err().to_string();
        assert!(refused("pictures").contains("not empty"));
        assert!(refused("a.jpg").contains(".png file, an .npz file or a folder"));
        let empty = SampleSink::create(&folder.path().join("none.png")).unwrap();
        assert!(empty.finish(&serde_json::Value::Null).unwrap_err().to_string().contains("no picture"));
    }
}
