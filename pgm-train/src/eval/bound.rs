//! The likelihood bound (NELBO) of rows and the exact likelihood of an autoregressive model, see [`pgm_infer::score`].

use pgm_infer::score;
pub(super) use pgm_infer::score::{MaskedDraw, SetDraw};

use super::model::EvalModel;
use crate::TrainError;

/// The estimate of the NELBO of each draw's row, in nats. The rows have equal length and are one batch.
pub(super) fn weighted_nll(model: &EvalModel, draws: &[MaskedDraw<'_>]) -> Result<Vec<f64>, TrainError> {
    Ok(score::weighted_nll(model.text_model().handle(), draws)?)
}

/// NLL in nats of each token but the first given the tokens before it, by an autoregressive model. The rows have equal
/// length.
pub(super) fn causal_nll(model: &EvalModel, rows: &[&[u32]]) -> Result<Vec<Vec<f64>>, TrainError> {
    Ok(score::causal_nll(model.text_model().handle(), rows)?)
}
