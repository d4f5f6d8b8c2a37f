//! MNIST's IDX files and CIFAR's binary files: pixels without compression of their own.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::classes::{Survey, read_class_names};
use super::picture::{Picture, PictureContent, PictureSink, RawLabel, malformed};
use crate::error::DataError;
use crate::image_info::PixelShape;

const IDX_IMAGES: [u8; 4] = [0, 0, 8, 3];
const IDX_LABELS: [u8; 4] = [0, 0, 8, 1];
/// Bytes of a CIFAR picture: three planes of 32x32.
const CIFAR_PIXELS: usize = 3 * 32 * 32;

/// Opens a file that may be compressed with gzip.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>, DataError> {
    let file = File::open(path).map_err(DataError::io("read", path))?;
    let mut file = BufReader::with_capacity(1 << 18, file);
    let head = std::io::BufRead::fill_buf(&mut file).map_err(DataError::io("read", path))?;
    Ok(if head.starts_with(&[0x1f, 0x8b]) { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

// Reads all of a buffer. The end of the file is a problem of the file.
fn fill(reader: &mut dyn Read, buffer: &mut [u8], path: &Path) -> Result<(), DataError> {
    reader.read_exact(buffer).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => malformed(path, "ends before its last picture or label; get the file again"),
        _ => DataError::io("read", path)(error),
    })
}

/// Images in the format of MNIST.
#[derive(Clone, Debug)]
pub(super) struct Idx {
    pub(super) images: PathBuf,
    /// The file of labels.
    pub(super) labels: Option<PathBuf>,
}

impl Idx {
    fn header(path: &Path, magic: [u8; 4], sides: &mut [u32]) -> Result<Box<dyn Read>, DataError> {
        let mut reader = open(path)?;
        let mut found = [0; 4];
        fill(&mut *reader, &mut found, path)?;
        if found != magic {
            let what = if magic == IDX_IMAGES { "images" } else { "labels" };
            return Err(malformed(path, format!("is no IDX file of {what}")));
        }
        for side in sides {
            let mut bytes = [0; 4];
            fill(&mut *reader, &mut bytes, path)?;
            *side = u32::from_be_bytes(bytes);
        }
        Ok(reader)
    }

    fn open_images(&self) -> Result<(Box<dyn Read>, u64, PixelShape), DataError> {
        let mut sides = [0; 3];
        let reader = Self::header(&self.images, IDX_IMAGES, &mut sides)?;
        let [n_images, height, width] = sides;
        if height == 0 || width == 0 || height > 1 << 14 || width > 1 << 14 {
            return Err(malformed(&self.images, format!("says that its images have {height}x{width} pixels")));
        }
        let shape = PixelShape { height: height as usize, width: width as usize, channels: 1 };
        Ok((reader, u64::from(n_images), shape))
    }

    // All labels; they are a byte each.
    fn read_labels(&self, n_images: u64) -> Result<Option<Vec<u8>>, DataError> {
        let Some(path) = &self.labels else { return Ok(None) };
        let mut n_labels = [0];
        let mut reader = Self::header(path, IDX_LABELS, &mut n_labels)?;
        let [n_labels] = n_labels;
        if u64::from(n_labels) != n_images {
            let images = self.images.display();
            return Err(malformed(path, format!("has {n_labels} labels, and {images} has {n_images} images")));
        }
        let mut labels = Vec::new();
        reader.by_ref().take(n_images).read_to_end(&mut labels).map_err(DataError::io("read", path))?;
        if labels.len() as u64 != n_images {
            return Err(malformed(path, "ends before its last label; get the file again"));
        }
        Ok(Some(labels))
    }

    pub(super) fn survey(&self) -> Result<Survey, DataError> {
        let (_, n_images, _) = self.open_images()?;
        let mut survey = Survey::default();
        match self.read_labels(n_images)? {
            Some(labels) => {
                for label in labels {
                    survey.count(Some(&RawLabel::Number(u64::from(label))), 1);
                }
            }
            None => survey.count(None, n_images),
        }
        Ok(survey)
    }

    pub(super) fn read(&self, sink: &mut PictureSink) -> Result<(), DataError> {
        let (mut reader, n_images, shape) = self.open_images()?;
        let labels = self.read_labels(n_images)?;
        for index in 0..n_images {
            let mut pixels = vec![0; shape.len()];
            fill(&mut *reader, &mut pixels, &self.images)?;
            let label = labels.as_ref().map(|labels| RawLabel::Number(u64::from(labels[index as usize])));
            let place = format!("image {index} of {}", self.images.display());
            sink(Ok(Picture { place, content: PictureContent::Raw(shape, pixels), label }))?;
        }
        Ok(())
    }
}

/// The labels before each picture of a CIFAR file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CifarLabels {
    /// CIFAR-10: one.
    Ten,
    /// CIFAR-100: the coarse one, then the fine one, which is taken.
    Hundred,
}

impl CifarLabels {
    fn n_bytes(self) -> usize {
        match self {
            Self::Ten => 1,
            Self::Hundred => 2,
        }
    }
}

/// A binary file of CIFAR-10 or CIFAR-100.
#[derive(Clone, Debug)]
pub(super) struct Cifar {
    path: PathBuf,
    labels: CifarLabels,
    n_pictures: u64,
}

impl Cifar {
    /// Tells CIFAR-10 from CIFAR-100 by the size, and by the names where both fit.
    pub(super) fn new(path: &Path) -> Result<Self, DataError> {
        let n_bytes = path.metadata().map_err(DataError::io("read", path))?.len();
        let fits = |labels: CifarLabels| n_bytes > 0 && n_bytes % (labels.n_bytes() + CIFAR_PIXELS) as u64 == 0;
        let is_hundred = path.file_name().is_some_and(|name| name == "train.bin" || name == "test.bin");
        let labels = match (fits(CifarLabels::Ten), fits(CifarLabels::Hundred)) {
            (true, true) if is_hundred => CifarLabels::Hundred,
            (true, _) => CifarLabels::Ten,
            (false, true) => CifarLabels::Hundred,
            (false, false) => {
                let problem = "is no whole number of CIFAR-10 pictures (3073 bytes) or CIFAR-100 pictures (3074 bytes)";
                return Err(malformed(path, problem));
            }
        };
        let n_pictures = n_bytes / (labels.n_bytes() + CIFAR_PIXELS) as u64;
        Ok(Self { path: path.to_path_buf(), labels, n_pictures })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn kind(&self) -> &'static str {
        match self.labels {
            CifarLabels::Ten => "CIFAR-10",
            CifarLabels::Hundred => "CIFAR-100",
        }
    }

    pub(super) fn survey(&self) -> Result<Survey, DataError> {
        let mut survey = Survey::default();
        self.each(&mut |label, _| {
            survey.count(Some(&label), 1);
            Ok(())
        })?;
        let beside = match self.labels {
            CifarLabels::Ten => "batches.meta.txt",
            CifarLabels::Hundred => "fine_label_names.txt",
        };
        let names = self.path.with_file_name(beside);
        if names.exists() {
            survey.names = Some(read_class_names(&names)?);
        }
        Ok(survey)
    }

    pub(super) fn read(&self, sink: &mut PictureSink) -> Result<(), DataError> {
        let shape = PixelShape { height: 32, width: 32, channels: 3 };
        let mut index = 0;
        self.each(&mut |label, planes| {
            // The planes of the colours follow each other.
            let pixels = (0..32 * 32).flat_map(|at| [planes[at], planes[at + 1024], planes[at + 2048]]).collect();
            let place = format!("picture {index} of {}", self.path.display());
            index += 1;
            sink(Ok(Picture { place, content: PictureContent::Raw(shape, pixels), label: Some(label) }))
        })
    }

    fn each(&self, take: &mut dyn FnMut(RawLabel, &[u8]) -> Result<(), DataError>) -> Result<(), DataError> {
        let mut reader = open(&self.path)?;
        let n_labels = self.labels.n_bytes();
        let mut record = vec![0; n_labels + CIFAR_PIXELS];
        for _ in 0..self.n_pictures {
            fill(&mut *reader, &mut record, &self.path)?;
            take(RawLabel::Number(u64::from(record[n_labels - 1])), &record[n_labels..])?;
        }
        Ok(())
    }
}
