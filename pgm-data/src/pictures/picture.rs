//! One picture on its way from a source to a row.

use std::path::{Path, PathBuf};

use crate::error::DataError;
use crate::image_info::PixelShape;

/// The class of a picture as its source has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RawLabel {
    /// A number: the place among the names of classes.
    Number(u64),
    /// A name.
    Name(String),
}

impl RawLabel {
    /// A number where the text is one, else a name.
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.trim();
        text.parse().map_or_else(|_| Self::Name(text.to_string()), Self::Number)
    }
}

/// A picture before it is decoded.
#[derive(Debug)]
pub(super) struct Picture {
    /// Where it is, for messages.
    pub(super) place: String,
    pub(super) content: PictureContent,
    pub(super) label: Option<RawLabel>,
}

/// What a source has of a picture.
#[derive(Debug)]
pub(super) enum PictureContent {
    /// A PNG, JPEG or WebP file.
    File(PathBuf),
    /// The bytes of such a file.
    Encoded(Vec<u8>),
    /// Pixels.
    Raw(PixelShape, Vec<u8>),
}

/// A picture that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct BadPicture {
    pub(super) place: String,
    /// A sentence whose subject is the place.
    pub(super) problem: String,
}

impl From<BadPicture> for DataError {
    fn from(bad: BadPicture) -> Self {
        Self::BadPicture { place: bad.place, problem: bad.problem }
    }
}

/// Takes pictures in order. Reading stops at its first error.
pub(super) type PictureSink<'a> = dyn FnMut(Result<Picture, BadPicture>) -> Result<(), DataError> + 'a;

/// A callback that readers call regularly. If it returns an error, reading stops.
pub(crate) type Poll<'a> = dyn FnMut() -> Result<(), DataError> + 'a;

/// A file that is not what its name says.
pub(crate) fn malformed(path: &Path, problem: impl Into<String>) -> DataError {
    DataError::Malformed { path: path.to_path_buf(), problem: problem.into() }
}
