//! Where pictures come from: a folder of files, samples in an `.npz`, a data folder of pixels, a model.

use std::path::{Path, PathBuf};

use pgm_data::{DataFolder, PixelRows, Split};

use super::npz::NpzPictures;
use super::picture::Picture;
use super::samples::SampledPictures;
use crate::TrainError;

/// Name endings of pictures.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// A set of pictures.
#[derive(Debug)]
pub enum PictureSource {
    /// Files of pictures, in the order of their paths.
    Files(Vec<PathBuf>),
    /// `arr_0` of an `.npz`, as ADM's evaluator reads it.
    Npz(NpzPictures),
    /// The rows of a data folder.
    Data {
        /// The rows.
        rows: PixelRows,
        /// The split and the hash of the folder's content.
        identity: String,
    },
    /// Pictures that a model has drawn.
    Sampled(Box<SampledPictures>),
}

impl PictureSource {
    /// Opens an `.npz`, a data folder with pixels (its validation rows, or `split`), or a folder of pictures.
    ///
    /// # Errors
    /// Names what cannot be read, and a folder without pictures.
    pub fn open(path: &Path, split: Split) -> Result<Self, TrainError> {
        if path.is_file() {
            return Ok(Self::Npz(NpzPictures::open(path)?));
        }
        if path.join(pgm_data::manifest::MANIFEST_FILE).is_file() {
            let folder = DataFolder::open(path)?;
            let identity = format!("{split:?} of {}", folder.identity()?);
            return Ok(Self::Data { rows: folder.pixels(split)?, identity });
        }
        let mut files = Vec::new();
        find_pictures(path, &mut files)?;
        if files.is_empty() {
            return Err(TrainError::judge(path.display(), "has no picture (.png, .jpg, .jpeg, .webp)"));
        }
        files.sort();
        Ok(Self::Files(files))
    }

    /// Number of pictures.
    #[allow(clippy::len_without_is_empty)] // no source is empty
    pub fn len(&self) -> usize {
        match self {
            Self::Files(files) => files.len(),
            Self::Npz(npz) => npz.len(),
            Self::Data { rows, .. } => rows.len(),
            Self::Sampled(samples) => samples.len(),
        }
    }

    /// Identifies the pictures: the checksum of their file, or of the names and sizes of their files; the hash of a data
    /// folder's content. Nothing for those of a model, which its weights and settings identify.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub fn identity(&self) -> Result<String, TrainError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |error| TrainError::file("read", &path, error)
        };
        Ok(match self {
            Self::Files(files) => {
                let mut hasher = crc32fast::Hasher::new();
                for path in files {
                    let size = std::fs::metadata(path).map_err(failed(path))?.len();
                    hasher.update(format!("{}\n{size}\n", path.display()).as_bytes());
                }
                format!("{} files, {:08x}", files.len(), hasher.finalize())
            }
            Self::Npz(npz) => {
                let (size, crc) = crate::files::fingerprint(npz.path()).map_err(failed(npz.path()))?;
                format!("{size} bytes, {crc:08x}")
            }
            Self::Data { rows, identity } => format!("{} rows of {identity}", rows.len()),
            Self::Sampled(_) => String::new(),
        })
    }

    /// The class of every picture, where it is known: labels of a data folder, `arr_1` of an `.npz`, or the name of the folder
    /// that a file lies in. `names` are the classes, in the order of their labels.
    ///
    /// # Errors
    /// When labels cannot be read, or are no class.
    pub fn classes(&self, names: &[String]) -> Result<Option<Vec<u32>>, TrainError> {
        let labels: Option<Vec<u32>> = match self {
            Self::Files(files) => files
                .iter()
                .map(|path| {
                    let folder = path.parent()?.file_name()?.to_str()?;
                    names.iter().position(|name| name == folder).map(|label| label as u32)
                })
                .collect(),
            Self::Npz(npz) => npz.labels()?,
            Self::Data { rows, .. } => (0..rows.len()).map(|index| rows.label(index)).collect::<Result<_, _>>()?,
            Self::Sampled(samples) => samples.classes(),
        };
        if let Some(label) = labels.iter().flatten().find(|&&label| label as usize >= names.len()) {
            let problem = format!("a sample has the label {label}, and the references have {} classes", names.len());
            return Err(TrainError::judge("the samples", problem));
        }
        Ok(labels)
    }

    /// Calls `visit` with the pictures from number `start` on, in order, until it fails.
    ///
    /// # Errors
    /// Names the picture that cannot be read; and whatever `visit` returns.
    pub fn visit(
        &self,
        start: usize,
        visit: &mut dyn FnMut(Picture) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        match self {
            Self::Files(files) => files.iter().skip(start).try_for_each(|path| visit(read_picture(path)?)),
            Self::Npz(npz) => {
                let mut index = 0;
                npz.visit(&mut |picture| {
                    index += 1;
                    if index > start { visit(picture) } else { Ok(()) }
                })
            }
            Self::Sampled(samples) => samples.visit(start, visit),
            Self::Data { rows, .. } => (start..rows.len()).try_for_each(|index| {
                let values = rows.pixels(index)?;
                let shape = rows.info().pixels.expect("a folder of pixels has their shape");
                visit(Picture::of_channels(shape.height, shape.width, &values).expect("rows have the pixels' shape"))
            }),
        }
    }
}

fn find_pictures(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), TrainError> {
    let failed = |error| TrainError::file("read", folder, error);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_lowercase();
        if path.is_dir() {
            find_pictures(&path, files)?;
        } else if ENDINGS.contains(&ending.as_str()) {
            files.push(path);
        }
    }
    Ok(())
}

fn read_picture(path: &Path) -> Result<Picture, TrainError> {
    let failed = |problem: String| TrainError::judge(path.display(), format!("is not a readable picture ({problem})"));
    let reader = image::ImageReader::open(path).map_err(|error| TrainError::file("read", path, error))?;
    let reader = reader.with_guessed_format().map_err(|error| TrainError::file("read", path, error))?;
    let picture = reader.decode().map_err(|error| failed(error.to_string()))?.into_rgb8();
    let (width, height) = picture.dimensions();
    Picture::new(height as usize, width as usize, picture.into_raw()).ok_or_else(|| failed("it is empty".to_string()))
}

#[cfg(test)]
mod tests {
    use pgm_data::{ImageFolderWriter, ImageInfo, PixelShape};

    use super::*;

    #[test]
    fn pictures_of_another_split_or_of_another_content_have_another_identity() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let shape = PixelShape { height: 2, width: 2, channels: 1 };
        let mut writer =
            ImageFolderWriter::create(&folder.join("data"), ImageInfo::of_pixels(shape, Vec::new())).unwrap();
        for (split, value) in [(Split::Train, 1), (Split::Validation, 2)] {
            writer.push_pixels(split, &[value; 4], None).unwrap();
        }
        writer.finish().unwrap();
        let identity = |path: &str, split| PictureSource::open(&folder.join(path), split).unwrap().identity().unwrap();
        assert_ne!(identity("data", Split::Train), identity("data", Split::Validation));
        assert_eq!(identity("data", Split::Train), identity("data", Split::Train));
        std::fs::create_dir(folder.join("files")).unwrap();
        std::fs::write(folder.join("files/a.png"), b"one").unwrap();
        let before = identity("files", Split::Train);
        std::fs::write(folder.join("files/b.png"), b"two").unwrap();
        assert_ne!(identity("files", Split::Train), before);
    }
}
