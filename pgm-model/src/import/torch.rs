//! Reads the files of `torch.save`: a zip container with a pickle and one entry for each storage.
//!
//! The bytes stay where they are, usually in a mapped file; a tensor is a view into its storage's entry, which torch
//! stores uncompressed. Everything that a file claims about a tensor (type, offset, shape, strides) is checked against
//! the length that its storage really has before a byte is read or a buffer is made.
//!
//! This file knows neither Burn nor models, so that the fuzzer builds it alone.

use std::borrow::Cow;
use std::collections::HashMap;

use super::pickle::{Node, Object, Pickle, PickleError, Value};
use super::zip::{self, ZipError};

/// The longest pickle that is read. A published checkpoint's has some hundred kilobytes; weights lie outside it.
pub const MAX_PICKLE: usize = 1 << 28;

/// Dimensions of a tensor at most.
const MAX_RANK: usize = 8;
/// How deep parameters may be wrapped.
const MAX_WRAPPERS: usize = 4;

/// A file of `torch.save` that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// The container is damaged.
    #[error("its zip container cannot be read ({problem}); it may be truncated, copy it again")]
    Zip {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The form that torch wrote before version 1.6.
    #[error(
        "it has the form that torch wrote before 1.6, which is not read; convert it in Python: torch.save(torch.load(old, map_location=\"cpu\"), new)"
    )]
    Legacy,
    /// Neither form.
    #[error("it is no file of torch.save: {problem}")]
    NotTorch {
        /// What is missing.
        problem: &'static str,
    },
    /// The pickle is damaged or hostile.
    #[error("{0}")]
    Pickle(#[from] PickleError),
    /// An entry is not stored as torch stores it.
    #[error("entry {name} {problem}")]
    Entry {
        /// The entry.
        name: String,
        /// What is wrong, as the end of the sentence.
        problem: String,
    },
    /// A tensor that cannot be what it claims.
    #[error("{name} {problem}")]
    Tensor {
        /// The tensor, as far as its name is known.
        name: String,
        /// What is wrong, as the end of the sentence.
        problem: String,
    },
}

fn tensor_error<T>(problem: impl Into<String>) -> Result<T, TorchError> {
    Err(TorchError::Tensor { name: "a tensor".to_string(), problem: problem.into() })
}

/// What the elements of a storage are.
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
    fn of_storage(class: &str) -> Option<Self> {
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

/// A tensor: where its elements lie. The view has been checked: every element lies inside the storage.
#[derive(Clone, Debug, PartialEq)]
pub struct StridedTensor<'a> {
    element: Element,
    shape: Vec<usize>,
    strides: Vec<usize>,
    // The storage from the tensor's first element on.
    bytes: &'a [u8],
}

impl<'a> StridedTensor<'a> {
    /// What its elements are.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Bytes of all elements together.
    pub fn n_bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.element.size()
    }

    /// Its elements in row-major order, least byte first; borrowed where they lie so already.
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

/// An opened file.
#[derive(Clone, Debug)]
pub struct TorchFile<'a> {
    pickle: Pickle<'a>,
    storages: HashMap<String, &'a [u8]>,
}

impl<'a> TorchFile<'a> {
    /// Whether `bytes` start like a file of `torch.save`, of either form.
    pub fn looks_like_one(bytes: &[u8]) -> bool {
        // A zip file, or a pickle of protocol 2 and up.
        bytes.starts_with(b"PK") || (bytes.len() > 1 && bytes[0] == 0x80 && (2..=5).contains(&bytes[1]))
    }

    /// Opens a file that lies in memory or is mapped.
    ///
    /// # Errors
    /// [`TorchError`] names what is truncated, damaged, of the old form, or no file of torch at all.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TorchError> {
        if !bytes.starts_with(b"PK") {
            return Err(match Self::looks_like_one(bytes) {
                true => TorchError::Legacy,
                false => TorchError::NotTorch { problem: "it is no zip container" },
            });
        }
        let entries = zip::entries(bytes).map_err(|error| match error {
            ZipError::Broken(problem) => TorchError::Zip { problem },
            ZipError::Packed(name) => {
                let problem = "is compressed or encrypted, torch stores it as it is; unpack the file and save it again";
                TorchError::Entry { name: shortened(&name), problem: problem.to_string() }
            }
        })?;
        // The folder inside the container is named after the file that torch wrote.
        let name = entries.keys().filter(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
        let Some(name) = name.min_by_key(|name| (name.len(), *name)) else {
            return Err(TorchError::NotTorch { problem: "the zip container has no data.pkl" });
        };
        let root = name.strip_suffix("data.pkl").unwrap_or_default();
        if entries.get(&format!("{root}byteorder")).is_some_and(|order| order.trim_ascii() == b"big") {
            let problem = "says that a big-endian machine wrote the file; load and save it on another".to_string();
            return Err(TorchError::Entry { name: format!("{root}byteorder"), problem });
        }
        let pickled = entries[name];
        if pickled.len() > MAX_PICKLE {
            let problem = format!("has {} bytes, more than any checkpoint's", pickled.len());
            return Err(TorchError::Entry { name: name.clone(), problem });
        }
        let pickle = Pickle::parse(pickled)?;
        let folder = format!("{root}data/");
        let storage = |(name, bytes): (&String, &&'a [u8])| Some((name.strip_prefix(&folder)?.to_string(), *bytes));
        let storages = entries.iter().filter_map(storage).collect();
        Ok(Self { pickle, storages })
    }

    /// The pickle, whose root is what was given to `torch.save`.
    pub fn pickle(&self) -> &Pickle<'a> {
        &self.pickle
    }

    /// The tensor that a value describes; `None` when it describes something else.
    ///
    /// # Errors
    /// [`TorchError::Tensor`] when it claims what its storage does not hold.
    pub fn tensor(&self, node: Node) -> Result<Option<StridedTensor<'a>>, TorchError> {
        let mut node = node;
        for _ in 0..MAX_WRAPPERS {
            let Value::Object(object) = self.pickle.get(node) else { return Ok(None) };
            let Some(name) = self.pickle.global(object.callable) else { return Ok(None) };
            let args = self.pickle.elements(object.args).unwrap_or_default();
            match (name, args) {
                (("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor"), [storage, offset, shape, strides, ..]) => {
                    return self.view(*storage, *offset, *shape, *strides).map(Some);
                }
                (("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"), [data, ..]) => node = *data,
                (("torch.nn.parameter", "Parameter"), [data, ..]) => node = *data,
                _ => return Ok(None),
            }
        }
        tensor_error(format!("is wrapped more than {MAX_WRAPPERS} times"))
    }

    fn view(&self, storage: Node, offset: Node, shape: Node, strides: Node) -> Result<StridedTensor<'a>, TorchError> {
        let (element, bytes) = self.storage(storage)?;
        let sizes = |node: Node| -> Option<Vec<usize>> {
            let elements = self.pickle.elements(node)?;
            if elements.len() > MAX_RANK {
                return None;
            }
            elements.iter().map(|&element| self.pickle.size(element)).collect()
        };
        let (Some(offset), Some(shape), Some(strides)) = (self.pickle.size(offset), sizes(shape), sizes(strides))
        else {
            return tensor_error("has an offset, shape or strides that are no small numbers");
        };
        if shape.len() != strides.len() {
            return tensor_error(format!("has shape {shape:?} and strides {strides:?}"));
        }
        let available = bytes.len() / element.size();
        let count = shape.iter().try_fold(1_usize, |count, &n| count.checked_mul(n));
        // The last element's place, 0 elements need none.
        let last = shape
            .iter()
            .zip(&strides)
            .try_fold(offset, |at, (&n, &stride)| at.checked_add(n.saturating_sub(1).checked_mul(stride)?));
        let fits = match (count, last) {
            (Some(0), _) => offset <= available,
            // A view that repeats elements could ask for any amount of memory.
            (Some(count), Some(last)) => last < available && count <= available,
            _ => false,
        };
        if !fits {
            return tensor_error(format!(
                "of shape {shape:?}, strides {strides:?} and offset {offset} does not fit its storage of {available} elements"
            ));
        }
        Ok(StridedTensor { element, shape, strides, bytes: &bytes[offset * element.size()..] })
    }

    // ('storage', class, key, location, count)
    fn storage(&self, node: Node) -> Result<(Element, &'a [u8]), TorchError> {
        let Value::Persistent(reference) = self.pickle.get(node) else { return tensor_error("has no storage") };
        let Some([_, class, key, _, count, ..]) = self.pickle.elements(*reference) else {
            return tensor_error("has a storage that cannot be read");
        };
        let Some((_, class)) = self.pickle.global(*class) else {
            return tensor_error("has a storage without a type");
        };
        let Some(element) = Element::of_storage(class) else {
            return tensor_error(format!("has a storage of the unknown type {}", shortened(class)));
        };
        let (Some(key), Some(count)) = (self.pickle.str(*key), self.pickle.size(*count)) else {
            return tensor_error("has a storage without a name or length");
        };
        let Some(&bytes) = self.storages.get(key) else {
            return tensor_error(format!(
                "has the storage {}, which the file lacks; it may be truncated",
                shortened(key)
            ));
        };
        match count.checked_mul(element.size()) {
            Some(length) if length <= bytes.len() => Ok((element, &bytes[..length])),
            _ => tensor_error(format!(
                "has a storage of {count} elements, but entry data/{} holds {} bytes",
                shortened(key),
                bytes.len()
            )),
        }
    }

    /// The attribute of an inert object: an entry of the state that it would have been given.
    pub fn attribute(&self, node: Node, key: &str) -> Option<Node> {
        let Value::Object(object) = self.pickle.get(node) else { return None };
        let Object { state: Some(state), .. } = object.as_ref() else { return None };
        self.pickle.entry(*state, key)
    }
}

/// A name from a file, cut to what fits a sentence.
pub(crate) fn shortened(name: &str) -> String {
    let mut shown: String = name.chars().take(60).flat_map(char::escape_debug).collect();
    if name.chars().nth(60).is_some() {
        shown.push('…');
    }
    shown
}
