//! Where pictures come from: files of their own, or files with many pictures.

use std::fmt;
use std::path::PathBuf;

use super::archive::Archive;
use super::classes::Survey;
use super::packed::{Cifar, Idx};
use super::picture::{BadPicture, Picture, PictureContent, PictureSink, Poll, RawLabel};
use crate::error::DataError;

/// Files of one picture each.
#[derive(Clone, Debug)]
pub(super) struct PictureFiles {
    /// The folder that was given.
    pub(super) root: PathBuf,
    /// How the files got their labels, for the listing.
    pub(super) labelled_by: String,
    pub(super) files: Vec<PictureFile>,
}

/// A file and its label. The problem of a label is a sentence whose subject is the file.
#[derive(Clone, Debug)]
pub(super) struct PictureFile {
    pub(super) path: PathBuf,
    pub(super) label: Result<Option<RawLabel>, String>,
}

/// A Parquet or Arrow file.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "columns"), allow(dead_code))]
pub(crate) struct Columns {
    pub(crate) path: PathBuf,
    /// The column of pictures; found by its type without a name.
    pub(super) picture_column: Option<String>,
    /// The column of labels; found by its name without one.
    pub(super) label_column: Option<String>,
    /// Whether labels are read.
    pub(super) with_labels: bool,
}

/// A source of pictures.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Files(PictureFiles),
    Idx(Idx),
    Cifar(Cifar),
    Archive(Archive),
    Columns(Columns),
}

impl Source {
    /// Counts the pictures and their labels. Nothing is decoded.
    pub(super) fn survey(&self, poll: &mut Poll) -> Result<Survey, DataError> {
        poll()?;
        match self {
            Self::Files(files) => {
                let mut survey = Survey::default();
                for file in &files.files {
                    survey.count(file.label.as_ref().ok().and_then(Option::as_ref), 1);
                }
                Ok(survey)
            }
            Self::Idx(idx) => idx.survey(),
            Self::Cifar(cifar) => cifar.survey(),
            Self::Archive(archive) => archive.survey(poll),
            Self::Columns(columns) => columns.survey(poll),
        }
    }

    /// Gives the pictures in order.
    pub(super) fn read(&self, sink: &mut PictureSink) -> Result<(), DataError> {
        match self {
            Self::Files(files) => files.files.iter().try_for_each(|file| {
                let place = file.path.display().to_string();
                sink(match &file.label {
                    Ok(label) => {
                        let content = PictureContent::File(file.path.clone());
                        Ok(Picture { place, content, label: label.clone() })
                    }
                    Err(problem) => Err(BadPicture { place, problem: problem.clone() }),
                })
            }),
            Self::Idx(idx) => idx.read(sink),
            Self::Cifar(cifar) => cifar.read(sink),
            Self::Archive(archive) => archive.read(sink),
            Self::Columns(columns) => columns.read(sink),
        }
    }

    /// The channels that rows have unless the user chooses: 1 where all pictures are grey by their format.
    pub(super) fn channels(&self) -> usize {
        if matches!(self, Self::Idx(_)) { 1 } else { 3 }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Files(files) => {
                write!(f, "{} ({} pictures, {})", files.root.display(), files.files.len(), files.labelled_by)
            }
            Self::Idx(idx) => match &idx.labels {
                Some(labels) => write!(f, "{} (IDX, labels in {})", idx.images.display(), labels.display()),
                None => write!(f, "{} (IDX, without labels)", idx.images.display()),
            },
            Self::Cifar(cifar) => write!(f, "{} ({})", cifar.path().display(), cifar.kind()),
            Self::Archive(archive) => write!(f, "{} (tar)", archive.path.display()),
            Self::Columns(columns) => write!(f, "{} (columns)", columns.path.display()),
        }
    }
}
