//! The settings of fused attention.

use burn::tensor::{DType, FloatDType};

use crate::ops::device::is_half;
use crate::visibility::Visibility;

/// The settings of fused attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSettings {
    pub(crate) n_heads: usize,
    /// Whether a query sees only itself and earlier tokens.
    pub(crate) causal: bool,
    /// Whether a query sees only the keys of its label. Otherwise the labels are not read.
    pub(crate) labelled: bool,
    /// Whether labels are those of [`set_labels`](crate::visibility::set_labels), and a query also sees earlier sets.
    pub(crate) ordered: bool,
    /// The dtype of the matmuls, where a device has tensor cores.
    #[cfg_attr(not(feature = "cube"), allow(dead_code))]
    pub(crate) matmul_dtype: FloatDType,
}

impl AttentionSettings {
    pub(crate) fn new(n_heads: usize, visibility: Option<&Visibility>, matmul_dtype: DType) -> Self {
        let matmul_dtype = if is_half(matmul_dtype) { matmul_dtype.into() } else { FloatDType::F32 };
        let causal = visibility.is_some_and(Visibility::is_causal);
        let ordered = visibility.is_some_and(Visibility::is_ordered);
        Self { n_heads, causal, labelled: visibility.is_some() && !causal, ordered, matmul_dtype }
    }
}
