//! Reads the files of `torch.save`: a zip container with a pickle and one entry for each storage.
//!
//! The bytes stay where they are, usually in a mapped file. A tensor is a view into its storage's entry, which torch stores
//! uncompressed. Everything that a file claims about a tensor (dtype, offset, shape, strides) is checked against the length of
//! its storage before a byte is read or a buffer is allocated.
//!
//! This module uses neither Burn nor the rest of this crate, so that the fuzzer builds it alone.

mod error;
mod file;
mod literals;
mod machine;
mod pickle;
mod plain_data;
mod tensor;
mod value;
mod zip;

pub use error::TorchError;
pub(crate) use error::shortened;
pub use file::{MAX_PICKLE, TorchFile};
pub use pickle::Pickle;
pub use tensor::{Element, StridedTensor};
pub use value::{MAX_WORK, Node, Object, PickleError, Value};
