//! The layers that the networks are made of.

mod aggregate;
mod decoder_block;
mod dropout;
mod encoder_block;
mod feed_forward;
mod group_swap;
mod head;
mod key_values;
mod mask_git_block;
mod modulation;
mod norm;
mod rms_norm;
mod row_keys;

pub use decoder_block::DecoderBlock;
pub use encoder_block::EncoderBlock;
pub use feed_forward::FeedForward;
pub use group_swap::{GroupSwap, QueryMlp, QueryProjection};
pub use head::{Head, LossTarget};
pub use key_values::KeyValues;
pub(crate) use mask_git_block::xavier;
pub use mask_git_block::{MaskGitBlock, swiglu_width};
pub(crate) use modulation::ShiftScale;
pub use rms_norm::RmsNorm;
pub(crate) use row_keys::RowKeys;
