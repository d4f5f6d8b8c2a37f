//! `samples.npz`: the array file that evaluations of images read (`arr_0` pixels, `arr_1` labels).
//!
//! Pictures go to a temporary file as they come, because their number is known only at the end: a run may be stopped. So
//! memory holds one picture, whatever their number.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use npyz::{WriteOptions, WriterBuilder};
use pgm_model::model_folder::{sync_file, sync_folder};
use zip::write::{FileOptions, ZipWriter};

use super::pixels::Picture;
use crate::InferError;

/// Writes pictures and their labels to an `.npz` file: `arr_0`, u8 `[N, H, W, C]`, and `arr_1`, i64 `[N]`; a picture without a
/// class has label -1.
#[derive(Debug)]
pub struct NpzSamples {
    path: PathBuf,
    // Removed on drop.
    pixels: TemporaryFile,
    writer: BufWriter<File>,
    shape: Option<(usize, usize, usize)>,
    labels: Vec<i64>,
}

#[derive(Debug)]
struct TemporaryFile(PathBuf);

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl NpzSamples {
    /// Begins the file; it stands at `path` when it is [finished](Self::finish).
    ///
    /// # Errors
    /// [`InferError::Write`] when the folder cannot be written to.
    pub fn create(path: &Path) -> Result<Self, InferError> {
        let pixels = beside(path, "pixels");
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&pixels);
        let file = options.map_err(|error| failed(path, error))?;
        let (pixels, writer) = (TemporaryFile(pixels), BufWriter::new(file));
        Ok(Self { path: path.to_path_buf(), pixels, writer, shape: None, labels: Vec::new() })
    }

    /// Adds a picture.
    ///
    /// # Errors
    /// [`InferError::Write`] when it cannot be written.
    ///
    /// # Panics
    /// For a picture of another shape than the first.
    pub fn push(&mut self, picture: &Picture, class: Option<usize>) -> Result<(), InferError> {
        let shape = (picture.height(), picture.width(), picture.channels());
        assert_eq!(*self.shape.get_or_insert(shape), shape, "pictures of one shape");
        self.writer.write_all(picture.pixels()).map_err(|error| failed(&self.path, error))?;
        self.labels.push(class.map_or(-1, |class| class as i64));
        Ok(())
    }

    /// Writes the file and gives it its name; returns the number of pictures.
    ///
    /// # Errors
    /// [`InferError::Write`] when it cannot be written; [`InferError::Request`] without a picture.
    pub fn finish(self) -> Result<usize, InferError> {
        let Self { path, pixels, writer, shape, labels } = self;
        let Some((height, width, channels)) = shape else {
            return Err(InferError::Request("no picture was sampled".into()));
        };
        let n = labels.len();
        let temporary = TemporaryFile(beside(&path, "npz"));
        let write = || -> std::io::Result<()> {
            let mut file = writer.into_inner().map_err(|error| error.into_error())?;
            file.seek(SeekFrom::Start(0))?;
            let mut pixels = BufReader::new(file);
            let mut archive = ZipWriter::new(File::create(&temporary.0)?);
            let options = FileOptions::default().compression_method(zip::CompressionMethod::Stored).large_file(true);
            archive.start_file("arr_0.npy", options)?;
            let dims = [n, height, width, channels].map(|size| size as u64);
            let array = WriteOptions::<u8>::new().default_dtype().shape(&dims).writer(&mut archive);
            let mut array = array.begin_nd()?;
            let mut buffer = vec![0; height * width * channels];
            for _ in 0..n {
                pixels.read_exact(&mut buffer)?;
                array.extend(buffer.iter().copied())?;
            }
            array.finish()?;
            archive.start_file("arr_1.npy", options)?;
            let array = WriteOptions::<i64>::new().default_dtype().shape(&[n as u64]).writer(&mut archive);
            let mut array = array.begin_nd()?;
            array.extend(labels)?;
            array.finish()?;
            let mut file = archive.finish()?;
            file.flush()
        };
        write().map_err(|error| failed(&path, error))?;
        drop(pixels);
        sync_file(&temporary.0)?;
        std::fs::rename(&temporary.0, &path).map_err(|error| failed(&path, error))?;
        sync_folder(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))?;
        Ok(n)
    }
}

// A name beside the file that is written.
fn beside(path: &Path, kind: &str) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    path.with_file_name(format!(".writing-{}-{name}.{kind}", std::process::id()))
}

pub(super) fn failed(path: &Path, cause: std::io::Error) -> InferError {
    InferError::Write { path: path.to_path_buf(), problem: cause.to_string() }
}

#[cfg(test)]
mod tests {
    use npyz::npz::NpzArchive;

    use super::*;

    #[test]
    fn pictures_and_labels_come_back_and_no_other_file_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("samples.npz");
        let picture = |value: u8| Picture::new(3, 2, 3, (0..18).map(|index| value + index).collect());
        let mut samples = NpzSamples::create(&path).unwrap();
        samples.push(&picture(5), Some(2)).unwrap();
        samples.push(&picture(100), None).unwrap();
        assert!(!path.exists());
        assert_eq!(samples.finish().unwrap(), 2);
        let mut archive = NpzArchive::open(&path).unwrap();
        let pixels = archive.by_name("arr_0").unwrap().unwrap();
        assert_eq!(pixels.shape(), [2, 2, 3, 3]);
        assert_eq!(pixels.into_vec::<u8>().unwrap(), [picture(5).pixels(), picture(100).pixels()].concat());
        assert_eq!(archive.by_name("arr_1").unwrap().unwrap().into_vec::<i64>().unwrap(), [2, -1]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_run_without_a_picture_leaves_nothing_and_a_missing_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let samples = NpzSamples::create(&folder.path().join("a.npz")).unwrap();
        assert!(samples.finish().unwrap_err().to_string().contains("no picture"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let error = NpzSamples::create(&folder.path().join("missing/a.npz")).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("missing"), "{error}");
    }
}
