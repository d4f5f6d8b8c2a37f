//! Likelihoods of given texts.
//!
//! | function | of which models | what |
//! |---|---|---|
//! | [`causal_nll`] | autoregressive | the exact likelihood |
//! | [`weighted_nll`] | partition, masked | one draw of the any-order bound (NELBO), see [`draws`] |
//! | [`left_to_right`] | all | the likelihood token by token from left to right: exact for autoregressive models, and for the others that of one of the orders that they can write in |

mod bound;
mod chain;
pub mod draws;
pub mod nll;

pub use bound::{MaskedDraw, causal_nll, weighted_nll};
pub use chain::{TokenScore, left_to_right};
