//! From pictures to a data folder.
//!
//! The inputs are read twice: first their labels, so that the classes are known, then the pictures. A few hundred are
//! decoded in parallel and written in order, so the memory does not depend on their number.

use std::ops::ControlFlow;
use std::path::Path;

use rayon::prelude::*;

use super::classes::{Classes, Survey};
use super::decode::{decode, with_channels_of};
use super::held_out::is_held_out;
use super::inputs::PictureInputs;
use super::picture::{BadPicture, Picture, PictureContent};
use super::square::{Square, mirrored, to_square};
use crate::error::DataError;
use crate::image_info::{Crop, ImageInfo, PixelShape};
use crate::image_writer::ImageFolderWriter;
use crate::manifest::Split;
use crate::prepare::{Prepared, Progress};

/// Pictures that are decoded together.
const CHUNK_PICTURES: usize = 512;
/// Bytes of encoded pictures, or of rows, that are in memory together.
const CHUNK_BYTES: usize = 64 << 20;
/// Bad pictures that are named.
const N_NAMED: usize = 20;
/// The largest side of a row's picture.
const MOST_SIZE: usize = 8192;

/// Where the validation rows come from.
#[derive(Clone, Debug)]
pub enum PictureValidation {
    /// This fraction of the pictures, spread evenly over the inputs.
    Fraction(f64),
    /// Other inputs.
    Inputs(PictureInputs),
}

/// The settings of [`prepare_images`].
#[derive(Debug)]
pub struct PrepareImages<'a> {
    /// The pictures.
    pub inputs: &'a PictureInputs,
    /// Where the validation rows come from.
    pub validation: &'a PictureValidation,
    /// The side of the square that each picture becomes. Without one all pictures must have one size already.
    pub size: Option<usize>,
    /// How a picture becomes a square.
    pub crop: Crop,
    /// Whether the training rows have each picture a second time, mirrored.
    pub flip: bool,
    /// 1 or 3. Without a choice 1 for IDX files, else 3.
    pub channels: Option<usize>,
    /// Makes the pixels tokens of so many levels per channel.
    pub levels: Option<usize>,
    /// The names of the classes in the order of the labels.
    pub class_names: Option<Vec<String>>,
    /// Whether pictures that cannot be read are left out and counted.
    pub skip_bad: bool,
    /// The folder to create. It must not exist.
    pub out: &'a Path,
}

impl PrepareImages<'_> {
    fn validate(&self) -> Result<(), DataError> {
        let refused = |message: String| Err(DataError::Option(message));
        if let Some(size) = self.size
            && !(1..=MOST_SIZE).contains(&size)
        {
            return refused(format!("--size {size} must lie between 1 and {MOST_SIZE}"));
        }
        if self.size.is_none() && self.crop != Crop::Center {
            return refused(format!("--crop {} has no effect without --size", self.crop));
        }
        if let Some(channels) = self.channels
            && channels != 1
            && channels != 3
        {
            return refused(format!("--channels {channels} must be 1 (grey) or 3 (colour)"));
        }
        if let Some(levels) = self.levels
            && !(2..=256).contains(&levels)
        {
            return refused(format!("--as-tokens {levels} must lie between 2 and 256"));
        }
        match self.validation {
            PictureValidation::Fraction(fraction) if !(*fraction > 0.0 && *fraction < 1.0) => {
                refused(format!("--val-fraction {fraction} must lie between 0 and 1"))
            }
            _ if self.out.exists() => Err(DataError::Exists { path: self.out.to_path_buf() }),
            _ => Ok(()),
        }
    }
}

/// What the inputs have, without decoding them.
#[derive(Clone, Debug)]
pub struct PictureCounts {
    /// Pictures.
    pub pictures: u64,
    /// The names of all classes with the number of pictures of each; empty without labels.
    pub classes: Vec<(String, u64)>,
}

impl PictureInputs {
    /// Counts pictures and classes. `poll` can stop the work with an error.
    ///
    /// # Errors
    /// What is wrong with the inputs or their labels.
    pub fn count(
        &self,
        class_names: Option<Vec<String>>,
        poll: &mut dyn FnMut() -> Result<(), DataError>,
    ) -> Result<PictureCounts, DataError> {
        let survey = self.survey(poll)?;
        let classes = Classes::new(class_names, &survey)?;
        let mut counts = vec![0; classes.names().len()];
        for (label, count) in &survey.labels {
            if let Ok(Some(label)) = classes.label(Some(label)) {
                counts[label as usize] += count;
            }
        }
        let classes = classes.names().iter().cloned().zip(counts).collect();
        Ok(PictureCounts { pictures: survey.n_pictures, classes })
    }

    fn survey(&self, poll: &mut dyn FnMut() -> Result<(), DataError>) -> Result<Survey, DataError> {
        let mut survey = Survey::default();
        for source in &self.sources {
            survey.add(source.survey(poll)?)?;
        }
        Ok(survey)
    }
}

/// Prepares a data folder of pictures. `observe` receives the number of pictures that are done, and can stop the work.
///
/// # Errors
/// What is wrong with the inputs or the options; [`DataError::BadPicture`] for the first picture that cannot be read, unless
/// bad pictures are skipped; [`DataError::Stopped`] when `observe` returns [`ControlFlow::Break`]. No folder exists at `out`
/// then.
pub fn prepare_images(
    options: &PrepareImages,
    observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Prepared, DataError> {
    options.validate()?;
    let mut report = |done: u64, total: u64| match observe(Progress { done, total }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(DataError::Stopped),
    };
    let mut survey = options.inputs.survey(&mut || report(0, 0))?;
    if let PictureValidation::Inputs(inputs) = options.validation {
        survey.add(inputs.survey(&mut || report(0, 0))?)?;
    }
    let classes = Classes::new(options.class_names.clone(), &survey)?;
    let sources = &options.inputs.sources;
    let channels = options.channels.unwrap_or(if sources.iter().all(|source| source.channels() == 1) { 1 } else { 3 });
    let mut rows =
        Rows { options, classes: &classes, channels, writer: None, first: None, skipped: Skipped::default() };
    let mut chunk = Chunk { rows: &mut rows, pictures: Vec::new(), bytes: 0, number: 0, total: survey.n_pictures };

    let mut number = 0_u64;
    for source in sources {
        source.read(&mut |picture| {
            let split = match options.validation {
                PictureValidation::Fraction(fraction) if is_held_out(number, *fraction) => Split::Validation,
                PictureValidation::Fraction(_) | PictureValidation::Inputs(_) => Split::Train,
            };
            number += 1;
            chunk.push(split, picture, &mut report)
        })?;
    }
    if let PictureValidation::Inputs(inputs) = options.validation {
        for source in &inputs.sources {
            source.read(&mut |picture| chunk.push(Split::Validation, picture, &mut report))?;
        }
    }
    chunk.flush(&mut report)?;
    rows.finish()
}

/// Bad pictures that were left out.
#[derive(Default)]
struct Skipped {
    count: u64,
    named: Vec<String>,
}

/// Pictures that are decoded together.
struct Chunk<'r, 'a> {
    rows: &'r mut Rows<'a>,
    pictures: Vec<(Split, u64, Result<Picture, BadPicture>)>,
    bytes: usize,
    number: u64,
    total: u64,
}

impl Chunk<'_, '_> {
    fn push(
        &mut self,
        split: Split,
        picture: Result<Picture, BadPicture>,
        report: &mut dyn FnMut(u64, u64) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        if let Ok(Picture { content: PictureContent::Encoded(bytes) | PictureContent::Raw(_, bytes), .. }) = &picture {
            self.bytes += bytes.len();
        }
        self.pictures.push((split, self.number, picture));
        self.number += 1;
        let n_most = self.rows.n_together();
        if self.pictures.len() >= n_most || self.bytes >= CHUNK_BYTES { self.flush(report) } else { Ok(()) }
    }

    fn flush(&mut self, report: &mut dyn FnMut(u64, u64) -> Result<(), DataError>) -> Result<(), DataError> {
        self.bytes = 0;
        let pictures = std::mem::take(&mut self.pictures);
        self.rows.write(pictures)?;
        report(self.number.min(self.total), self.total.max(self.number))
    }
}

/// The rows of both splits.
struct Rows<'a> {
    options: &'a PrepareImages<'a>,
    classes: &'a Classes,
    channels: usize,
    writer: Option<ImageFolderWriter>,
    // The shape of the first picture and where it is, which all others have where there is no size.
    first: Option<(PixelShape, String)>,
    skipped: Skipped,
}

/// A picture as a row.
struct DecodedRow {
    pixels: Vec<u8>,
    shape: PixelShape,
    label: Option<u32>,
    place: String,
}

impl Rows<'_> {
    fn n_together(&self) -> usize {
        let row = match (self.options.size, &self.first) {
            (Some(size), _) => size * size * self.channels,
            (None, Some((shape, _))) => shape.len(),
            // The first picture says what the others are like.
            (None, None) => return 1,
        };
        (CHUNK_BYTES / row.max(1)).clamp(1, CHUNK_PICTURES)
    }

    fn write(&mut self, pictures: Vec<(Split, u64, Result<Picture, BadPicture>)>) -> Result<(), DataError> {
        let decoded: Vec<(Split, Result<DecodedRow, BadPicture>)> = pictures
            .into_par_iter()
            .map(|(split, number, picture)| (split, picture.and_then(|picture| self.decode(picture, number))))
            .collect();
        for (split, row) in decoded {
            match row.and_then(|row| self.same_shape(row)) {
                Ok(row) => self.push(split, &row)?,
                Err(bad) if self.options.skip_bad => {
                    self.skipped.count += 1;
                    if self.skipped.named.len() < N_NAMED {
                        self.skipped.named.push(format!("{} {}", bad.place, bad.problem));
                    }
                }
                Err(bad) => return Err(bad.into()),
            }
        }
        Ok(())
    }

    fn decode(&self, picture: Picture, number: u64) -> Result<DecodedRow, BadPicture> {
        let Picture { place, content, label } = picture;
        let decoded = self.classes.label(label.as_ref()).and_then(|label| {
            let (pixels, shape) = match content {
                PictureContent::File(path) => {
                    let bytes = std::fs::read(&path).map_err(|error| format!("cannot be read ({error})"))?;
                    decode(&bytes, self.channels)?
                }
                PictureContent::Encoded(bytes) => decode(&bytes, self.channels)?,
                PictureContent::Raw(shape, pixels) => {
                    let pixels = with_channels_of(&pixels, shape.channels, self.channels);
                    (pixels, PixelShape { channels: self.channels, ..shape })
                }
            };
            let Some(size) = self.options.size else { return Ok((pixels, shape, label)) };
            let square = Square { size, crop: self.options.crop };
            let pixels = to_square(pixels, shape, square, number)?;
            Ok((pixels, PixelShape { height: size, width: size, ..shape }, label))
        });
        match decoded {
            Ok((pixels, shape, label)) => Ok(DecodedRow { pixels, shape, label, place }),
            Err(problem) => Err(BadPicture { place, problem }),
        }
    }

    fn same_shape(&mut self, row: DecodedRow) -> Result<DecodedRow, BadPicture> {
        let (first, place) = self.first.get_or_insert_with(|| (row.shape, row.place.clone()));
        if *first == row.shape {
            return Ok(row);
        }
        let problem = format!(
            "has {}x{} pixels, and {place} has {}x{}; give --size to make all squares of one size",
            row.shape.height, row.shape.width, first.height, first.width
        );
        Err(BadPicture { place: row.place, problem })
    }

    fn push(&mut self, split: Split, row: &DecodedRow) -> Result<(), DataError> {
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let names = self.classes.names().to_vec();
                let info = match self.options.levels {
                    Some(levels) => ImageInfo::of_levels(row.shape, levels, names),
                    None => ImageInfo::of_pixels(row.shape, names),
                };
                let crop = self.options.size.map(|_| self.options.crop);
                let info = ImageInfo { crop, flip: self.options.flip, ..info };
                self.writer.insert(ImageFolderWriter::create(self.options.out, info)?)
            }
        };
        writer.push_pixels(split, &row.pixels, row.label)?;
        if self.options.flip && split == Split::Train {
            writer.push_pixels(split, &mirrored(&row.pixels, row.shape), row.label)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Prepared, DataError> {
        let Skipped { count, named } = self.skipped;
        let mut writer = match self.writer {
            Some(writer) => writer,
            None if count > 0 => return Err(DataError::AllBad { n_bad: count, named }),
            None => return Err(DataError::NoPictures { split: "training" }),
        };
        writer.skip(count);
        let manifest = writer.finish()?;
        let mut notes = self.options.inputs.notes().to_vec();
        if count > 0 {
            let more = count - named.len() as u64;
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            notes.push(format!("bad pictures were left out: {count} ({}{more})", named.join("; ")));
        }
        Ok(Prepared { manifest, notes })
    }
}
