//! Opens the files of `torch.save` and finds tensors in them.

use std::collections::HashMap;

use super::error::{TorchError, shortened, tensor_error};
use super::pickle::Pickle;
use super::tensor::{Element, StridedTensor};
use super::value::{Node, Object, Value};
use super::zip::{self, ZipError};

/// The largest pickle that is read, in bytes. That of a published checkpoint has some hundred kilobytes, without the weights.
pub const MAX_PICKLE: usize = 1 << 28;

/// The largest number of dimensions of a tensor.
const MAX_RANK: usize = 8;
/// How many objects a parameter may be wrapped in.
const MAX_WRAPPERS: usize = 4;

/// An opened file.
#[derive(Clone, Debug)]
pub struct TorchFile<'a> {
    pickle: Pickle<'a>,
    storages: HashMap<String, &'a [u8]>,
}

impl<'a> TorchFile<'a> {
    /// Whether `bytes` begin like a file of `torch.save` in either of its formats.
    pub fn has_signature(bytes: &[u8]) -> bool {
        // A zip file, or a pickle of protocol 2 and up.
        bytes.starts_with(b"PK") || (bytes.len() > 1 && bytes[0] == 0x80 && (2..=5).contains(&bytes[1]))
    }

    /// Opens a file in memory.
    ///
    /// # Errors
    /// When the file is truncated, damaged, of torch's old format, or no file of torch.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TorchError> {
        if !bytes.starts_with(b"PK") {
            return Err(match Self::has_signature(bytes) {
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
        // The folder in the container has the name of the file that torch wrote.
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

    /// The pickle; its root is the argument of `torch.save`.
    pub fn pickle(&self) -> &Pickle<'a> {
        &self.pickle
    }

    /// The tensor that a value describes; `None` when it describes something else.
    ///
    /// # Errors
    /// [`TorchError::Tensor`] when the tensor does not fit its storage.
    pub fn tensor(&self, node: Node) -> Result<Option<StridedTensor<'a>>, TorchError> {
        let mut node = node;
        for _ in 0..MAX_WRAPPERS {
            let Value::Object(object) = self.pickle.get(node) else { return Ok(None) };
            let Some(name) = self.pickle.global(object.callable) else { return Ok(None) };
            let args = self.pickle.elements(object.args).unwrap_or_default();
            match (name, args) {
                (("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor"), [storage, offset, shape, strides, ..]) => {
                    return self.view(*storage, None, [*offset, *shape, *strides]).map(Some);
                }
                // Dtypes that have no storage class of their own.
                (("torch._utils", "_rebuild_tensor_v3"), [storage, offset, shape, strides, _, _, dtype, ..]) => {
                    let dtype = self.pickle.global(*dtype).map(|(_, dtype)| dtype).unwrap_or_default();
                    let Some(element) = Element::of_dtype(dtype) else { return unknown_dtype(dtype) };
                    return self.view(*storage, Some(element), [*offset, *shape, *strides]).map(Some);
                }
                (("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"), [data, ..]) => node = *data,
                (("torch.nn.parameter", "Parameter"), [data, ..]) => node = *data,
                // Quantised, sparse and other special tensors.
                (("torch._utils", rebuild), _) if rebuild.starts_with("_rebuild_") => {
                    return tensor_error(format!(
                        "is no ordinary tensor (torch rebuilds it with {}); make a dense float tensor of it in PyTorch",
                        shortened(rebuild)
                    ));
                }
                _ => return Ok(None),
            }
        }
        tensor_error(format!("is wrapped more than {MAX_WRAPPERS} times"))
    }

    // The last argument is offset, shape and strides.
    fn view(
        &self,
        storage: Node,
        dtype: Option<Element>,
        [offset, shape, strides]: [Node; 3],
    ) -> Result<StridedTensor<'a>, TorchError> {
        let (element, bytes) = self.storage(storage, dtype)?;
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
        // The index of the last element.
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

    // ('storage', class, key, location, count). An untyped storage counts bytes and has the tensor's `dtype`.
    fn storage(&self, node: Node, dtype: Option<Element>) -> Result<(Element, &'a [u8]), TorchError> {
        let Value::Persistent(reference) = self.pickle.get(node) else { return tensor_error("has no storage") };
        let Some([_, class, key, _, count, ..]) = self.pickle.elements(*reference) else {
            return tensor_error("has a storage that cannot be read");
        };
        let Some((_, class)) = self.pickle.global(*class) else {
            return tensor_error("has a storage without a type");
        };
        let (element, unit) = match dtype {
            Some(element) if class == "UntypedStorage" => (element, 1),
            _ => match Element::of_storage(class) {
                Some(element) => (element, element.size()),
                None => return unknown_dtype(class.strip_suffix("Storage").unwrap_or(class)),
            },
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
        match count.checked_mul(unit) {
            Some(length) if length <= bytes.len() => Ok((element, &bytes[..length])),
            _ => tensor_error(format!(
                "has a storage of {count} elements, but entry data/{} holds {} bytes",
                shortened(key),
                bytes.len()
            )),
        }
    }

    /// An attribute of an inert object: an entry of the state that Python would have set.
    pub fn attribute(&self, node: Node, key: &str) -> Option<Node> {
        let Value::Object(object) = self.pickle.get(node) else { return None };
        let Object { state: Some(state), .. } = object.as_ref() else { return None };
        self.pickle.entry(*state, key)
    }
}

fn unknown_dtype<T>(dtype: &str) -> Result<T, TorchError> {
    tensor_error(format!(
        "is stored as {}, which is none of float64, float32, float16, bfloat16; convert the weights in PyTorch, e.g. with \
         .to(torch.bfloat16), and save them again",
        shortened(dtype)
    ))
}
