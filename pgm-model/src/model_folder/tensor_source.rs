//! Where weights are loaded from.

use std::borrow::Cow;
use std::cell::Cell;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::convert::to_f32;
#[cfg(feature = "files")]
use super::mapped_file::MappedFile;
use super::published_names::PREFIX;
use crate::error::ModelError;

/// A tensor as a file stores it: row-major, little-endian.
#[derive(Clone, Debug)]
pub struct StoredTensor<'a> {
    /// The dtype of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> From<TensorView<'a>> for StoredTensor<'a> {
    fn from(view: TensorView<'a>) -> Self {
        Self { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: Cow::Borrowed(view.data()) }
    }
}

impl StoredTensor<'_> {
    /// Its elements as float32. Errors name the file as `origin` and the tensor as `name`.
    ///
    /// # Errors
    /// [`ModelError::DType`] for any dtype but F64, F32, F16 and BF16.
    pub fn floats(&self, origin: &str, name: &str) -> Result<Vec<f32>, ModelError> {
        self.read(None, &|_| (), origin, name)
    }

    /// As [`floats`](Self::floats). With `transposed` `[rows, columns]` the elements are those of the transposed matrix.
    /// `release` is called with each part of the bytes once it is read.
    pub(super) fn read(
        &self,
        transposed: Option<[usize; 2]>,
        release: &dyn Fn(&[u8]),
        origin: &str,
        name: &str,
    ) -> Result<Vec<f32>, ModelError> {
        let bytes: &[u8] = &self.bytes;
        match self.dtype {
            Dtype::F32 => Ok(to_f32(bytes, transposed, release, f32::from_le_bytes)),
            Dtype::F64 => Ok(to_f32(bytes, transposed, release, |b| f64::from_le_bytes(b) as f32)),
            Dtype::F16 => Ok(to_f32(bytes, transposed, release, |b| burn::tensor::f16::from_le_bytes(b).to_f32())),
            Dtype::BF16 => Ok(to_f32(bytes, transposed, release, |b| burn::tensor::bf16::from_le_bytes(b).to_f32())),
            other => Err(ModelError::DType {
                origin: origin.to_string(),
                name: name.to_string(),
                dtype: format!("{other:?}"),
            }),
        }
    }
}

/// Refuses a file that a download left in the place of the real one: a pointer of Git LFS, or a web page.
///
/// # Errors
/// [`ModelError::Substitute`].
pub fn refuse_substitute(bytes: &[u8], origin: &str) -> Result<(), ModelError> {
    let start = bytes[..bytes.len().min(256)].trim_ascii_start();
    let (found, remedy) = if start.starts_with(b"version https://git-lfs") {
        ("a Git LFS pointer", "run `git lfs pull` in its folder")
    } else if start.starts_with(b"<!") || start.starts_with(b"<html") {
        ("a web page", "download the file itself")
    } else {
        return Ok(());
    };
    Err(ModelError::Substitute { origin: origin.to_string(), found, remedy })
}

/// Tensors under their published names, without the `backbone.` prefix.
pub trait TensorSource {
    /// The names of all tensors.
    fn names(&self) -> Vec<&str>;

    /// The tensor of that name.
    fn tensor(&self, name: &str) -> Option<StoredTensor<'_>>;

    /// Called with each part of a tensor that has been copied and will not be read again.
    fn release(&self, _bytes: &[u8]) {}
}

/// A safetensors file, with or without the prefix.
pub(crate) struct SafeTensorsSource<'a> {
    tensors: SafeTensors<'a>,
    prefix: &'static str,
    #[cfg(feature = "files")]
    map: Option<&'a MappedFile>,
    progress: Option<&'a dyn Fn(f64)>,
    // Bytes of all tensors, and of those read so far.
    n_bytes: usize,
    n_read: Cell<usize>,
}

impl<'a> SafeTensorsSource<'a> {
    /// A file in memory; errors name it as `origin`.
    ///
    /// # Errors
    /// [`ModelError::Weights`] when the bytes are no safetensors file.
    pub(crate) fn new(bytes: &'a [u8], origin: &str) -> Result<Self, ModelError> {
        refuse_substitute(bytes, origin)?;
        let tensors = SafeTensors::deserialize(bytes)
            .map_err(|error| ModelError::Weights { origin: origin.to_string(), problem: error.to_string() })?;
        let prefix = if tensors.names().iter().any(|name| name.starts_with(PREFIX)) { PREFIX } else { "" };
        let n_bytes = tensors.iter().map(|(_, tensor)| tensor.data().len()).sum();
        Ok(Self {
            tensors,
            prefix,
            #[cfg(feature = "files")]
            map: None,
            progress: None,
            n_bytes,
            n_read: Cell::new(0),
        })
    }

    /// A mapped file; pages that have been read are released.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(feature = "files")]
    pub(super) fn of_file(file: &'a MappedFile) -> Result<Self, ModelError> {
        Ok(Self { map: Some(file), ..Self::new(file.bytes(), file.origin())? })
    }

    /// `progress` is called with the share of the bytes that has been read.
    pub(super) fn with_progress(self, progress: &'a dyn Fn(f64)) -> Self {
        Self { progress: Some(progress), ..self }
    }
}

impl TensorSource for SafeTensorsSource<'_> {
    fn names(&self) -> Vec<&str> {
        self.tensors.names().into_iter().map(|name| name.strip_prefix(self.prefix).unwrap_or(name)).collect()
    }

    fn tensor(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.tensors.tensor(&format!("{}{name}", self.prefix)).ok().map(StoredTensor::from)
    }

    fn release(&self, bytes: &[u8]) {
        #[cfg(feature = "files")]
        if let Some(map) = self.map {
            map.release(bytes);
        }
        if let Some(progress) = self.progress {
            self.n_read.set(self.n_read.get() + bytes.len());
            progress(self.n_read.get() as f64 / self.n_bytes.max(1) as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_larger_than_a_band_are_read_and_transposed_completely() {
        for [rows, columns] in [[1, 1], [33, 70], [2200, 2003]] {
            let n = rows * columns;
            let bytes: Vec<u8> = (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect();
            let stored = StoredTensor { dtype: Dtype::F32, shape: vec![rows, columns], bytes: Cow::Borrowed(&bytes) };
            let n_released = Cell::new(0);
            let release = |bytes: &[u8]| n_released.set(n_released.get() + bytes.len());
            let plain = stored.read(None, &release, "file", "w").unwrap();
            assert!(plain.iter().enumerate().all(|(i, &value)| value == i as f32));
            let transposed = stored.read(Some([rows, columns]), &release, "file", "w").unwrap();
            let expected = |i: usize| ((i % rows) * columns + i / rows) as f32;
            assert!(transposed.iter().enumerate().all(|(i, &value)| value == expected(i)));
            assert_eq!(n_released.get(), 2 * bytes.len());
        }
    }
}
