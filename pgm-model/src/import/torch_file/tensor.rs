//! Tensors as views of a file.

use std::borrow::Cow;

/// The dtype of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 64-bit float.
    F64,
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    BF16,
    /// 64-bit integer.
    I64,
    /// 32-bit integer.
    I32,
    /// 16-bit integer.
    I16,
    /// 8-bit integer.
    I8,
    /// Unsigned byte.
    U8,
    /// Boolean.
    Bool,
}

impl Element {
    /// By the name of torch's class.
    pub(super) fn of_storage(class: &str) -> Option<Self> {
        Some(match class {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::BF16,
            "LongStorage" => Self::I64,
            "IntStorage" => Self::I32,
            "ShortStorage" => Self::I16,
            "CharStorage" => Self::I8,
            "ByteStorage" => Self::U8,
            "BoolStorage" => Self::Bool,
            _ => return None,
        })
    }

    /// By the name of torch's dtype.
    pub(super) fn of_dtype(name: &str) -> Option<Self> {
        Some(match name {
            "float64" => Self::F64,
            "float32" => Self::F32,
            "float16" => Self::F16,
            "bfloat16" => Self::BF16,
            "int64" => Self::I64,
            "int32" => Self::I32,
            "int16" => Self::I16,
            "int8" => Self::I8,
            "uint8" => Self::U8,
            "bool" => Self::Bool,
            _ => return None,
        })
    }

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// A view of a tensor's elements in the file. Every element has been checked to lie inside the storage.
#[derive(Clone, Debug, PartialEq)]
pub struct StridedTensor<'a> {
    pub(super) element: Element,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
    // The storage from the tensor's first element on.
    pub(super) bytes: &'a [u8],
}

impl<'a> StridedTensor<'a> {
    /// The dtype of its elements.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The address of its first element. Two names of one parameter have the same.
    pub fn start(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    /// Bytes of all elements together.
    pub fn n_bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.element.size()
    }

    /// Its elements in row-major order, little-endian; borrowed if they lie in the file in this order.
    pub fn to_bytes(&self) -> Cow<'a, [u8]> {
        let n_bytes = self.n_bytes();
        if n_bytes == 0 {
            return Cow::Borrowed(&[]);
        }
        let mut expected = 1;
        let in_order = self.shape.iter().zip(&self.strides).rev().all(|(&n, &stride)| {
            let in_order = n == 1 || stride == expected;
            expected *= n;
            in_order
        });
        if in_order {
            return Cow::Borrowed(&self.bytes[..n_bytes]);
        }
        let size = self.element.size();
        let mut out = Vec::with_capacity(n_bytes);
        let mut index = vec![0; self.shape.len()];
        loop {
            let at: usize = index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum();
            out.extend_from_slice(&self.bytes[at * size..(at + 1) * size]);
            // The next index, the last dimension fastest.
            let Some(axis) = (0..index.len()).rev().find(|&axis| index[axis] + 1 < self.shape[axis]) else { break };
            index[axis] += 1;
            index[axis + 1..].fill(0);
        }
        Cow::Owned(out)
    }
}
