//! The objectives: groups and noise, the weights of tokens, and the weighted cross-entropy (section 3 of the paper, eq. 8).
//!
//! The paper's equation prints the two weights the other way round. Its text and its code agree with this module: a token
//! of group 1, the group of the masked tokens, has weight `w(t)`, a token of group 0 has `w(1 - t)`.

mod groups;
mod noise;

pub use crate::ops::{token_cross_entropy, weighted_loss};
pub use groups::GroupDistribution;
pub use noise::{EPS, NoiseSchedule};
