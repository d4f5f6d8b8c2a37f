//! How many positions the head computes at a time, and whether a device's tensors are in host memory.

use burn::tensor::Device;

/// Whether tensors of this device lie in host memory, so that reading them costs nothing.
#[allow(unused_variables)]
pub(crate) fn in_host_memory(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    if *device == Device::flex() {
        return true;
    }
    #[cfg(feature = "ndarray")]
    if *device == Device::ndarray() {
        return true;
    }
    false
}

/// Positions that the head computes at a time: few enough for a small tensor of logits, many enough for fast matmuls. A
/// GPU gets more, because each chunk waits for the device twice.
pub(crate) fn chunk_size(device: &Device) -> usize {
    if in_host_memory(device) { 128 } else { 512 }
}
