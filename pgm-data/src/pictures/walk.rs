//! The files of a folder, and what each is by its name.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::archive::{PICTURE_EXTENSIONS, is_archive};
use crate::error::DataError;
use crate::source::SkippedFile;

/// Extensions of pictures that are not read.
const OTHER_PICTURES: [&str; 11] = ["gif", "bmp", "tif", "tiff", "avif", "heic", "heif", "jp2", "jxl", "ppm", "svg"];

/// What a file is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Picture,
    IdxImages,
    IdxLabels,
    Cifar,
    Archive,
    Columns,
    /// None of these: a sentence whose subject is the file.
    Other(String),
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Picture => "pictures",
            Self::IdxImages | Self::IdxLabels => "IDX files",
            Self::Cifar => "CIFAR files",
            Self::Archive => "tar files",
            Self::Columns => "Parquet or Arrow files",
            Self::Other(_) => "other files",
        })
    }
}

/// The kind of a file. IDX files have `idx3` and `idx1` in their names, or `images` and `labels` with `ubyte`.
pub(super) fn kind_of(path: &Path) -> FileKind {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default();
    let is_idx = name.contains("idx") || name.contains("ubyte");
    match extension.as_str() {
        _ if is_archive(path) => FileKind::Archive,
        _ if is_idx && (name.contains("idx1") || name.contains("label")) => FileKind::IdxLabels,
        _ if is_idx && (name.contains("idx3") || name.contains("image")) => FileKind::IdxImages,
        extension if PICTURE_EXTENSIONS.contains(&extension) => FileKind::Picture,
        "bin" => FileKind::Cifar,
        "parquet" | "arrow" | "feather" => FileKind::Columns,
        extension if OTHER_PICTURES.contains(&extension) => {
            FileKind::Other(format!("is a {extension} picture, and only PNG, JPEG and WebP are read"))
        }
        "zip" | "7z" | "rar" | "zst" | "xz" | "bz2" => FileKind::Other("is an archive; unpack it".to_string()),
        _ => FileKind::Other("is no picture and no file of pictures".to_string()),
    }
}

/// The file of labels beside an IDX file of images: `images` becomes `labels` and `idx3` becomes `idx1`, with or without
/// `.gz`.
pub(super) fn labels_beside(images: &Path) -> Option<PathBuf> {
    let name = images.file_name()?.to_string_lossy();
    let name = name.replace("images", "labels").replace("idx3", "idx1");
    let plain = name.trim_end_matches(".gz");
    [name.clone(), plain.to_string(), format!("{plain}.gz")]
        .into_iter()
        .map(|name| images.with_file_name(name))
        .find(|path| path != images && path.is_file())
}

/// Lists the files below a folder, sorted by name. Hidden ones are left out, links to folders are followed once.
pub(super) fn walk(root: &Path, skipped: &mut Vec<SkippedFile>, files: &mut Vec<PathBuf>) -> Result<(), DataError> {
    walk_unvisited(root, &mut HashSet::new(), skipped, files)
}

fn walk_unvisited(
    folder: &Path,
    visited: &mut HashSet<PathBuf>,
    skipped: &mut Vec<SkippedFile>,
    files: &mut Vec<PathBuf>,
) -> Result<(), DataError> {
    let mut skip = |path: PathBuf, reason: &str| skipped.push(SkippedFile { path, reason: reason.to_string() });
    let real = folder.canonicalize().map_err(DataError::io("read", folder))?;
    if !visited.insert(real) {
        skip(folder.to_path_buf(), "is a link to a folder that is read already");
        return Ok(());
    }
    let entries = std::fs::read_dir(folder).map_err(DataError::io("read", folder))?;
    let paths: Result<Vec<PathBuf>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(DataError::io("read", folder))?;
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || name == "__MACOSX" {
            continue;
        }
        if path.is_dir() {
            walk_unvisited(&path, visited, skipped, files)?;
        } else if path.is_file() {
            files.push(path);
        } else {
            skipped.push(SkippedFile { path, reason: "is no regular file".to_string() });
        }
    }
    Ok(())
}
