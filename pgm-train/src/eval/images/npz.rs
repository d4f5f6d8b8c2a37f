//! NumPy's archives: statistics of reference pictures (`mu`, `sigma`), and samples for ADM's evaluator (`arr_0`).

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use npyz::npz::{NpzArchive, NpzWriter};
use npyz::zip::write::FileOptions;
use npyz::{DType, NpyFile, Order, TypeChar, WriterBuilder};

use super::picture::Picture;
use super::statistics::FeatureStatistics;
use crate::TrainError;

const MEAN: &str = "mu";
const COVARIANCE: &str = "sigma";
const PICTURES: &str = "arr_0";
const LABELS: &str = "arr_1";

fn open(path: &Path) -> Result<NpzArchive<BufReader<File>>, TrainError> {
    let file = File::open(path).map_err(|error| TrainError::file("read", path, error))?;
    NpzArchive::new(BufReader::new(file)).map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, problem: impl std::fmt::Display) -> TrainError {
    TrainError::judge(path.display(), format!("is not a readable .npz ({problem}); it may be truncated, copy it again"))
}

/// Reads `mu` and `sigma`, in float64 or float32, as pytorch-fid, clean-fid and ADM write them.
///
/// # Errors
/// [`TrainError::Judge`] names the array that is missing, of another type or of a shape that does not fit.
pub fn read_statistics(path: &Path) -> Result<FeatureStatistics, TrainError> {
    let mut archive = open(path)?;
    let (shape, mean) = floats(&mut archive, path, MEAN)?;
    let width = mean.len();
    if shape.len() != 1 || width == 0 {
        return Err(TrainError::judge(path.display(), format!("has mu of shape {shape:?}, not of one dimension")));
    }
    let (shape, covariance) = floats(&mut archive, path, COVARIANCE)?;
    if shape != [width as u64, width as u64] {
        let problem = format!("has sigma of shape {shape:?} beside mu of {width} features");
        return Err(TrainError::judge(path.display(), problem));
    }
    Ok(FeatureStatistics { mean, covariance })
}

fn floats(
    archive: &mut NpzArchive<BufReader<File>>,
    path: &Path,
    name: &str,
) -> Result<(Vec<u64>, Vec<f64>), TrainError> {
    let array = archive.by_name(name).map_err(|error| unreadable(path, error))?;
    let Some(array) = array else {
        let problem = format!("has no array {name}; statistics have mu and sigma");
        return Err(TrainError::judge(path.display(), problem));
    };
    let shape = array.shape().to_vec();
    // A covariance is symmetric, so the order of its elements does not matter.
    let values = match plain_type(&array) {
        Some((TypeChar::Float, 8)) => array.into_vec::<f64>(),
        Some((TypeChar::Float, 4)) => array.into_vec::<f32>().map(|values| values.into_iter().map(f64::from).collect()),
        _ => {
            let problem = format!("has {name} of another type than float64 or float32");
            return Err(TrainError::judge(path.display(), problem));
        }
    };
    Ok((shape, values.map_err(|error| unreadable(path, error))?))
}

fn plain_type<R: std::io::Read>(array: &NpyFile<R>) -> Option<(TypeChar, usize)> {
    match array.dtype() {
        DType::Plain(plain) => Some((plain.type_char(), plain.num_bytes()?)),
        _ => None,
    }
}

/// Writes `mu` and `sigma` in float64, under a temporary name that is then renamed.
///
/// # Errors
/// [`TrainError::File`].
pub fn write_statistics(path: &Path, statistics: &FeatureStatistics) -> Result<(), TrainError> {
    let failed = |error: std::io::Error| TrainError::file("write", path, error);
    let width = statistics.mean.len() as u64;
    let mut bytes = std::io::Cursor::new(Vec::new());
    {
        let mut archive = NpzWriter::new(&mut bytes);
        let arrays: [(&str, &[u64], &[f64]); 2] =
            [(MEAN, &[width], &statistics.mean), (COVARIANCE, &[width, width], &statistics.covariance)];
        for (name, shape, values) in arrays {
            let builder = archive.array(name, FileOptions::default()).map_err(failed)?;
            let mut writer = builder.default_dtype().shape(shape).begin_nd().map_err(failed)?;
            writer.extend(values.iter().copied()).map_err(failed)?;
            writer.finish().map_err(failed)?;
        }
        archive.zip_writer().finish().map_err(|error| failed(std::io::Error::other(error)))?;
    }
    Ok(pgm_model::model_folder::atomic_write(path, &bytes.into_inner())?)
}

/// `arr_0` of an `.npz`: bytes of shape `[N, H, W, 3]` (or 1 channel), which are read one picture at a time.
#[derive(Debug)]
pub struct NpzPictures {
    path: PathBuf,
    shape: [usize; 4],
}

impl NpzPictures {
    /// # Errors
    /// [`TrainError::Judge`] when the array is missing, of another type or shape, or empty.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let mut archive = open(path)?;
        let array = archive.by_name(PICTURES).map_err(|error| unreadable(path, error))?;
        let Some(array) = array else {
            return Err(TrainError::judge(path.display(), "has no array arr_0, which holds the pictures"));
        };
        let sides: Vec<usize> = array.shape().iter().map(|&side| side as usize).collect();
        let is_bytes = plain_type(&array) == Some((TypeChar::Uint, 1)) && array.order() == Order::C;
        match <[usize; 4]>::try_from(sides) {
            Ok(shape) if is_bytes && matches!(shape[3], 1 | 3) && !shape.contains(&0) => {
                Ok(Self { path: path.to_path_buf(), shape })
            }
            _ => {
                let problem = "has an arr_0 that is not uint8 of shape [pictures, height, width, 3 or 1]";
                Err(TrainError::judge(path.display(), problem))
            }
        }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Number of pictures.
    #[allow(clippy::len_without_is_empty)] // an empty array is refused
    pub fn len(&self) -> usize {
        self.shape[0]
    }

    /// The labels in `arr_1`, if there is one with a whole number for each picture.
    ///
    /// # Errors
    /// [`TrainError::Judge`] for a negative label, or an archive that can no longer be read.
    pub fn labels(&self) -> Result<Option<Vec<u32>>, TrainError> {
        let mut archive = open(&self.path)?;
        let array = archive.by_name(LABELS).map_err(|error| unreadable(&self.path, error))?;
        let Some(array) = array.filter(|array| array.shape() == [self.shape[0] as u64]) else { return Ok(None) };
        let labels: std::io::Result<Vec<i64>> = match plain_type(&array) {
            Some((TypeChar::Int, 8)) => array.into_vec::<i64>(),
            Some((TypeChar::Int, 4)) => {
                array.into_vec::<i32>().map(|labels| labels.into_iter().map(i64::from).collect())
            }
            Some((TypeChar::Uint, 4)) => {
                array.into_vec::<u32>().map(|labels| labels.into_iter().map(i64::from).collect())
            }
            Some((TypeChar::Uint, 1)) => {
                array.into_vec::<u8>().map(|labels| labels.into_iter().map(i64::from).collect())
            }
            _ => return Ok(None),
        };
        let labels = labels.map_err(|error| unreadable(&self.path, error))?;
        let label = |label: i64| u32::try_from(label).map_err(|_| unreadable(&self.path, "arr_1 has a negative label"));
        labels.into_iter().map(label).collect::<Result<_, _>>().map(Some)
    }

    /// Calls `visit` with every picture in order, until it fails.
    ///
    /// # Errors
    /// [`TrainError::Judge`] for a truncated array; and whatever `visit` returns.
    pub fn visit(&self, visit: &mut dyn FnMut(Picture) -> Result<(), TrainError>) -> Result<(), TrainError> {
        let [n, height, width, channels] = self.shape;
        let mut archive = open(&self.path)?;
        let array = archive.by_name(PICTURES).map_err(|error| unreadable(&self.path, error))?;
        let array = array.ok_or_else(|| unreadable(&self.path, "arr_0 is gone"))?;
        // Past the header lie plain bytes.
        let mut reader = array.into_inner();
        let mut values = vec![0; height * width * channels];
        for _ in 0..n {
            std::io::Read::read_exact(&mut reader, &mut values).map_err(|error| unreadable(&self.path, error))?;
            visit(Picture::of_channels(height, width, &values).expect("the sizes were checked"))?;
        }
        Ok(())
    }
}
