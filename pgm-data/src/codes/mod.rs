//! Codes that other programs made of pictures, as a data folder.
//!
//! | format | files |
//! |---|---|
//! | `hf` | PGM: a Hugging Face data set on disk, `input_ids` (BOS and codes) and `label`, splits `train` and `eval` |
//! | `halton` | Halton-MaskGIT: one pickle `{code: uint16 array, y: int}` for each picture, below `Train/` and `Eval/` |
//! | `llamagen` | LlamaGen: `NAME_codes/0.npy` (1, augmentations, codes) and `NAME_labels/0.npy`; each augmentation is a row |

#[cfg(feature = "columns")]
mod arrow;
mod code_row;
mod find;
mod pickle;
mod read;

use std::ops::ControlFlow;
use std::path::Path;

pub use find::CodesFormat;

use crate::error::DataError;
use crate::image_info::{CodecIdentity, ImageInfo, PixelShape};
use crate::image_writer::ImageFolderWriter;
use crate::manifest::Split;
#[cfg(not(feature = "columns"))]
use crate::no_columns as arrow;
use crate::pictures::classes::Classes;
use crate::pictures::held_out::is_held_out;
use crate::prepare::{Prepared, Progress};
use code_row::CodeRow;
use find::FoundCodes;

/// The settings of [`import_codes`].
#[derive(Debug)]
pub struct ImportCodes<'a> {
    /// The folder that the other program wrote.
    pub input: &'a Path,
    /// Who wrote it.
    pub format: CodesFormat,
    /// Rows and columns of codes.
    pub grid: [usize; 2],
    /// Number of codes.
    pub codebook: usize,
    /// The hash of the codec, where it is known.
    pub codec_hash: Option<String>,
    /// The shape of the pictures, where it is known.
    pub pixels: Option<PixelShape>,
    /// The names of the classes in the order of the labels.
    pub class_names: Option<Vec<String>>,
    /// Fraction of the pictures to hold out, evenly spread; the input's own validation split is then dropped. `None` uses
    /// that split, or 0.05 without one. Augmentations of one LlamaGen picture stay together.
    pub val_fraction: Option<f64>,
    /// The folder to create. It must not exist.
    pub out: &'a Path,
}

/// Imports codes. `observe` receives the number of rows that are done, and can stop the work.
///
/// # Errors
/// What is wrong with the files or the options; [`DataError::Stopped`] when `observe` returns [`ControlFlow::Break`]. No
/// folder exists at `out` then.
pub fn import_codes(
    options: &ImportCodes,
    observe: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Prepared, DataError> {
    if let Some(fraction) = options.val_fraction.filter(|fraction| !(*fraction > 0.0 && *fraction < 1.0)) {
        return Err(DataError::Option(format!("--val-fraction {fraction} must lie between 0 and 1")));
    }
    if options.out.exists() {
        return Err(DataError::Exists { path: options.out.to_path_buf() });
    }
    let mut report = |done: u64, total: u64| match observe(Progress { done, total }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(DataError::Stopped),
    };
    let found = FoundCodes::find(options.input, options.format)?;
    let mut survey = found.train.survey(&mut || report(0, 0))?;
    if let Some(validation) = &found.validation {
        survey.add(validation.survey(&mut || report(0, 0))?)?;
    }
    let classes = Classes::new(options.class_names.clone(), &survey)?;
    let codec = CodecIdentity { codebook: options.codebook, hash: options.codec_hash.clone() };
    let info = ImageInfo::of_codes(options.grid, codec, options.pixels, classes.names().to_vec());
    let mut writer = ImageFolderWriter::create(options.out, info)?;

    let (mut done, total) = (0, survey.n_pictures);
    let own_split = found.validation.as_ref().filter(|_| options.val_fraction.is_none());
    let fraction = if own_split.is_some() { 0.0 } else { options.val_fraction.unwrap_or(0.05) };
    let mut picture = 0;
    // Rows of one file of LlamaGen are augmentations of one picture, so they go to one split.
    let mut last_file = String::new();
    found.train.read(&mut |row| {
        let file = row.place.rsplit_once(" of ").filter(|_| found.format == CodesFormat::LlamaGen);
        match file {
            Some((_, file)) if file == last_file => {}
            Some((_, file)) => {
                last_file = file.to_string();
                picture += 1;
            }
            None => picture += 1,
        }
        let split = if is_held_out(picture - 1, fraction) { Split::Validation } else { Split::Train };
        push(&mut writer, &classes, split, row)?;
        done += 1;
        if done % 256 == 0 { report(done, total) } else { Ok(()) }
    })?;
    if let Some(validation) = own_split {
        validation.read(&mut |row| {
            push(&mut writer, &classes, Split::Validation, row)?;
            done += 1;
            if done % 256 == 0 { report(done, total) } else { Ok(()) }
        })?;
    }
    let mut notes = vec![format!("the codes are read as those of {}", found.format)];
    if options.codec_hash.is_none() {
        notes.push(
            "the codec of the codes is not known, so a model cannot refuse another one; give --codec-hash".to_string(),
        );
    }
    Ok(Prepared { manifest: writer.finish()?, notes })
}

fn push(writer: &mut ImageFolderWriter, classes: &Classes, split: Split, row: CodeRow) -> Result<(), DataError> {
    let CodeRow { place, codes, label } = row;
    let refused = |problem: String| DataError::BadCodes { place: place.clone(), problem };
    let info = writer.info();
    let [rows, columns] = info.grid.unwrap_or_default();
    let (n_codes, n_values) = (rows * columns, info.n_values() as i64);
    // PGM's rows begin with BOS, the second number after the codes.
    let codes = match codes.split_first() {
        Some((&first, rest)) if rest.len() == n_codes && first > n_values => rest,
        _ => &codes[..],
    };
    if codes.len() != n_codes {
        let problem = format!("has {} codes, and a grid of {rows}x{columns} has {n_codes}; check --grid", codes.len());
        return Err(refused(problem));
    }
    let code = |&code: &i64| match u32::try_from(code) {
        Ok(token) if code < n_values => Ok(token),
        _ => Err(refused(format!("has the code {code}, and the codebook has {n_values}; check --codebook"))),
    };
    let tokens: Vec<u32> = codes.iter().map(code).collect::<Result<_, _>>()?;
    let label = classes.label(label.as_ref()).map_err(refused)?;
    writer.push_tokens(split, &tokens, label)
}
