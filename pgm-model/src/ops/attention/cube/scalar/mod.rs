//! Attention without tensor cores, with an online softmax.
//!
//! One unit keeps one query (in `key_grads` one key) of one head in registers; the other side streams through shared
//! memory. Tokens come in the order of their labels, so that most tiles have one label; tiles without a common
//! label are skipped.
//!
//! Angles are cosines, then sines, `[B or 1, S, d]`; sorted tokens are their indices, then their labels, `[B, 2 S]`.

mod gradients;
mod output;
mod tile;

pub(crate) use gradients::{key_grads, query_grads, statistics};
pub(crate) use output::forward;
pub(crate) use tile::{TILE, streamed_tokens};
