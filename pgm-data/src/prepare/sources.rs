//! The inputs of a preparation with their sizes: files, or the parts that other processes made of them.

use super::options::{Prepare, Validation};
use super::piece::{EncodedPiece, Piece};
use crate::error::DataError;
use crate::source::{FileRange, InputSize, PiecePlace, SkippedRecords, TextInputs, TextPiece};

/// Text that can be read more than once, in pieces.
pub(super) trait Pieces {
    /// Calls `f` with all pieces, in order. `poll` is called while none comes.
    fn read(
        &self,
        skipped: &mut SkippedRecords,
        poll: &mut dyn FnMut() -> Result<(), DataError>,
        f: &mut dyn FnMut(Piece) -> Result<(), DataError>,
    ) -> Result<(), DataError>;

    /// The text of a piece that is encoded.
    fn text_of(&self, piece: &EncodedPiece) -> Result<TextPiece, DataError>;
}

impl Pieces for TextInputs {
    fn read(
        &self,
        skipped: &mut SkippedRecords,
        poll: &mut dyn FnMut() -> Result<(), DataError>,
        f: &mut dyn FnMut(Piece) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        TextInputs::read(self, skipped, poll, &mut |piece| f(Piece::Text(piece)))
    }

    fn text_of(&self, piece: &EncodedPiece) -> Result<TextPiece, DataError> {
        let place = piece.place.unwrap_or(PiecePlace { file: 0, range: FileRange::Whole, index: 0 });
        let text = self.piece_at(place)?.filter(|text| text.source_bytes == piece.source_bytes);
        let text = text.ok_or_else(|| changed(self, place))?;
        Ok(TextPiece { ends_document: piece.ends_document, ..text })
    }
}

/// The error for a file that does not have the text that it had.
pub(super) fn changed(inputs: &TextInputs, place: PiecePlace) -> DataError {
    let files = inputs.files();
    let path = usize::try_from(place.file).ok().and_then(|file| files.get(file));
    let path = path.map(|path| path.to_path_buf()).unwrap_or_default();
    let problem = "is not what it was when its parts were prepared; prepare them again".to_string();
    DataError::Parts { path, problem }
}

/// One source of a mixture, or all text.
pub(super) struct Source<'a> {
    pub(super) pieces: &'a dyn Pieces,
    pub(super) size: InputSize,
    /// The bytes that are taken of it.
    pub(super) end: u64,
}

/// The inputs and their sizes.
pub(super) struct Sources<'a> {
    pub(super) train: Vec<Source<'a>>,
    /// The validation text, where it has its own inputs.
    pub(super) validation: Option<&'a dyn Pieces>,
    /// Bytes of all text that is read.
    pub(super) total: u64,
}

impl<'a> Sources<'a> {
    /// The files of the options.
    pub(super) fn of_files(
        options: &Prepare<'a>,
        poll: &mut dyn FnMut() -> Result<(), DataError>,
    ) -> Result<Self, DataError> {
        let (train, validation) = texts(options);
        let mut sized = |inputs: &'a TextInputs| Ok((inputs as &dyn Pieces, inputs.size(poll)?));
        let train = train.into_iter().map(&mut sized).collect::<Result<_, DataError>>()?;
        let validation = validation.map(sized).transpose()?;
        Self::new(options, train, validation)
    }

    /// Text of known size for each source of `options`.
    pub(super) fn new(
        options: &Prepare,
        train: Vec<(&'a dyn Pieces, InputSize)>,
        validation: Option<(&'a dyn Pieces, InputSize)>,
    ) -> Result<Self, DataError> {
        let parts = options.inputs.parts();
        let end = if parts.is_empty() { u64::MAX } else { 0 };
        let mut train: Vec<Source> = train.into_iter().map(|(pieces, size)| Source { pieces, size, end }).collect();
        if !parts.is_empty() {
            if let Some((_, part)) = train.iter().zip(parts).find(|(source, _)| source.size.bytes == 0) {
                let names: Vec<String> = part.inputs.files().iter().map(|path| path.display().to_string()).collect();
                return Err(DataError::Option(format!("{} has no text for its --weight", names.join(", "))));
            }
            // The whole mixture is as large as the source allows that is smallest for its share.
            let largest = train.iter().zip(parts).map(|(source, part)| source.size.bytes as f64 / part.share);
            let bytes = largest.fold(f64::INFINITY, f64::min);
            for (source, part) in train.iter_mut().zip(parts) {
                source.end = ((bytes * part.share).round() as u64).min(source.size.bytes);
            }
        }
        let mut total = train.iter().map(Source::taken).sum();
        if let Validation::Documents(n_documents) = options.validation {
            let all: u64 = train.iter().map(|source| source.size.documents).sum();
            if *n_documents == 0 || *n_documents >= all {
                return Err(DataError::Option(format!(
                    "--val-documents {n_documents} must be at least 1 and less than the {all} documents of the input"
                )));
            }
        }
        total += validation.map_or(0, |(_, size)| size.bytes);
        Ok(Self { train, validation: validation.map(|(pieces, _)| pieces), total })
    }

    // What a mixture takes of each source.
    pub(super) fn notes(&self, options: &Prepare) -> Vec<String> {
        let named = self.train.iter().zip(options.inputs.parts());
        named
            .map(|(source, part)| {
                let files = part.inputs.files();
                let first = files.first().map(|path| path.display().to_string()).unwrap_or_default();
                let others = files.len() - 1;
                let others = if others > 0 { format!(" and {others} more") } else { String::new() };
                let (taken, share) = (source.taken(), 100.0 * part.share);
                format!("{share:.1} % of the text are {taken} of the {} bytes of {first}{others}", source.size.bytes)
            })
            .collect()
    }
}

impl Source<'_> {
    /// Bytes that are taken of it.
    pub(super) fn taken(&self) -> u64 {
        self.size.bytes.min(self.end)
    }
}

/// The texts of the options: each source of a mixture or the only one, and the validation text where it has its own inputs.
pub(super) fn texts<'a>(options: &Prepare<'a>) -> (Vec<&'a TextInputs>, Option<&'a TextInputs>) {
    let parts = options.inputs.parts();
    let train = if parts.is_empty() { vec![options.inputs] } else { parts.iter().map(|part| &part.inputs).collect() };
    let validation = match options.validation {
        Validation::TextInputs(inputs) => Some(inputs),
        Validation::Fraction(_) | Validation::Documents(_) => None,
    };
    (train, validation)
}
