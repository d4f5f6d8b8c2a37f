//! Likelihoods of given texts.
//!
//! | function | of which models | what |
//! |---|---|---|
//! | [`causal_nll`] | autoregressive | the exact likelihood |
//! | [`weighted_nll`] | partition, masked | one draw of the any-order bound (NELBO), see [`draws`] |
//! | [`one_pass_nll`] | partition | the likelihood in one order, all tokens in one pass |
//! | [`left_to_right`] | all | the likelihood token by token from left to right: exact for autoregressive models, and for the others that of one of the orders that they can write in |

mod bound;
mod chain;
pub mod draws;
pub mod nll;
mod one_pass;

pub use bound::{MaskedDraw, SetDraw, causal_nll, weighted_nll};
pub use chain::{TokenScore, left_to_right};
pub use one_pass::{OrderedRow, one_pass_nll, one_pass_problem, random_order};
