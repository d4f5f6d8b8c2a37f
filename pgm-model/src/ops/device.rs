//! Which devices run the fused operations, and which element types they take.

#[cfg(feature = "fused")]
use burn::backend::DispatchDevice;
use burn::tensor::{DType, Device};

/// Whether the tensors are float32 on a device with fused operations.
#[cfg(feature = "fused")]
macro_rules! fused {
    ($first:expr $(, $other:expr)*) => {
        $crate::ops::device::has_fused_operations(&$first.device())
            && [$first.dtype() $(, $other.dtype())*].iter().all(|dtype| *dtype == burn::tensor::DType::F32)
    };
}
#[cfg(feature = "fused")]
pub(crate) use fused;

#[cfg(feature = "fused")]
pub(crate) fn has_fused_operations(device: &Device) -> bool {
    // Without their gradients they are for inference only.
    if cfg!(not(feature = "autodiff")) && device.is_autodiff() {
        return false;
    }
    match device.clone().without_autodiff().as_dispatch() {
        #[cfg(feature = "cube")]
        DispatchDevice::Cube(_) => true,
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[allow(unreachable_patterns)]
        _ => false,
    }
}

/// Whether a device is Burn's Flex CPU backend, with autodiff or without.
#[allow(unused_variables)] // without the feature `flex`
pub fn is_flex(device: &Device) -> bool {
    #[cfg(feature = "flex")]
    if device.clone().without_autodiff() == Device::flex() {
        return true;
    }
    false
}

/// Whether a type is float16 or bfloat16.
pub(crate) fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// Whether a type is half precision or quantised.
pub(crate) fn is_low_precision(dtype: DType) -> bool {
    is_half(dtype) || matches!(dtype, DType::QFloat(_))
}
