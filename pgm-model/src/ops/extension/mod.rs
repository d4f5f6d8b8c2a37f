//! The fused operations as one Burn backend extension: the table, and one implementation each for autodiff, Flex and Cube.

#[cfg(feature = "autodiff")]
mod autodiff;
#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
pub(crate) mod fused_ops;
#[cfg(all(feature = "cube", feature = "fusion"))]
mod specs;
