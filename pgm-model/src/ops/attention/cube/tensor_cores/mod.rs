//! Attention on tensor cores: the same as the scalar kernels, with sixteen rows per plane at a time.
//!
//! An instruction multiplies sixteen rows by eight columns over eight words. A word is two half-precision numbers (PTX:
//! `mma.m16n8k16`) or one tf32 number (`m16n8k8`). With `g = lane / 4` and `t = lane % 4`, a lane holds
//!
//! * of the left factor the words `t` and `t + 4` of the rows `g` and `g + 8`,
//! * of the right factor the words `t` and `t + 4` of column `g`,
//! * of the sums the columns `2 t` and `2 t + 1` of the rows `g` and `g + 8`.
//!
//! So the dimension that is summed over is contiguous in shared memory, and weights go from sums to left factors without
//! leaving their lanes. Sums are float32. Shapes are those of the scalar kernels.

mod key_gradients;
mod mma;
mod output;
mod query_gradients;
mod tile;

pub(crate) use key_gradients::key_grads;
pub(crate) use output::forward;
pub(crate) use query_gradients::query_grads;
pub(crate) use tile::{MAX_HEAD_WIDTH, TILE, UNITS};
