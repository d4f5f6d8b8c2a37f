//! Orders: which open positions a step decodes.
//!
//! | order | which positions | distribution of the samples |
//! |---|---|---|
//! | `uniform` | a random permutation | exact: the model was trained for it |
//! | `sequential` | left to right | exact |
//! | `low-discrepancy` | van der Corput's sequence from a random start: evenly spread at any moment | exact |
//! | `dilated` | every 2^k-th position, then the positions between (arXiv 2506.19037) | exact |
//! | `halton` | the cells of a picture along Halton's sequence: evenly spread at any moment (arXiv 2503.17076) | exact |
//! | `confidence` | where the drawn token is most probable (MaskGIT, arXiv 2202.04200) | approximate |
//! | `margin` | where the best token is furthest ahead of the second (arXiv 2502.06768) | approximate |
//! | `entropy` | where the entropy is smallest | approximate |
//! | `entropy-bounded` | as many of the smallest entropies as a bound allows (arXiv 2505.24857) | approximate |
//! | `remask` | at random, and some decoded positions are opened again (ReMDM, arXiv 2503.00307) | approximate |
//!
//! An exact order does not depend on tokens: with one position per step it draws from the model's joint distribution in
//! that order. (Positions of one step are drawn independently of each other in every order.) An approximate order
//! prefers easy positions and samples another distribution.
//!
//! A custom order implements [`Order`]; [`OrderStart`] says where its randomness comes from. To add an order to the crate: a file here, its line above and its `mod`; in `kind.rs`
//! a variant of [`OrderKind`], a line of `TABLE`, and the matches that the compiler asks for; a setting also in `flags.rs`.
//! A test names the other files that list the orders.

mod candidates;
mod entropy_bounded;
mod fixed;
mod flags;
mod halton;
mod kind;
mod left_to_right;
mod order_trait;
mod ranked;
mod remask;
mod start;
#[cfg(test)]
mod tests;

pub use candidates::CandidateLimit;
pub use flags::OrderFlags;
pub use halton::halton_cells;
pub use kind::{Confidence, OrderKind};
pub(crate) use left_to_right::LeftToRight;
pub use order_trait::{Candidate, Order, OrderContext, Progress};
pub use start::OrderStart;
