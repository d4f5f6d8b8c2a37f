//! Queries of the logits at a position, and their results.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use burn::tensor::{DType, Tensor, TensorData};

use crate::InferError;
use crate::sample::draw::{DrawSettings, DrawnToken};

/// A token to draw: the row, which of its positions, and the number in `[0, 1)` that decides.
#[derive(Clone, Copy, Debug)]
pub struct PositionDraw {
    /// The row of the batch.
    pub row: usize,
    /// The position's index among those of its row.
    pub index: usize,
    /// Where in the cumulative distribution.
    pub uniform: f64,
}

/// A token to draw and what else is read at its position.
#[derive(Clone, Copy, Debug)]
pub struct PositionQuery<'a> {
    /// The token to draw.
    pub draw: PositionDraw,
    /// How it is drawn.
    pub settings: DrawSettings,
    /// Whether [`LogitStats`] are read.
    pub stats: bool,
    /// How many of the most probable tokens are read; from a device this copies all logits of the position.
    pub n_alternatives: usize,
    /// The classes that exist for this query, ascending; none if all do. Their probabilities are renormalised before
    /// temperature, top-k and top-p. From a device this copies all logits of the position.
    pub allowed: Option<&'a [u32]>,
}

/// The result of a [`PositionQuery`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PositionReading {
    /// The drawn token; none if the logits are not finite, see [`Categorical::draw`](crate::sample::draw::Categorical::draw).
    pub token: Option<DrawnToken>,
    /// The distribution, if the query asks for it.
    pub stats: LogitStats,
    /// The most probable tokens, if the query asks for them.
    pub alternatives: Alternatives,
    /// Log-probability of all allowed classes together, in nats, if the query allows some; -inf if it allows none that exists,
    /// NaN if the logits are not finite.
    pub log_mass: f64,
}

/// Two measures of how certain a distribution over tokens is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogitStats {
    /// Probability of the most probable token less that of the second.
    pub margin: f64,
    /// Entropy in nats.
    pub entropy: f64,
}

/// Tokens and their log-probabilities in nats, the most probable first.
pub type Alternatives = Vec<(u32, f64)>;

/// How a read waits for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It blocks the thread; the future is ready when it is first polled.
    Blocking,
    /// It awaits.
    Async,
}

impl Wait {
    /// The numbers of a tensor, in host memory.
    pub(super) async fn read<const D: usize>(self, tensor: Tensor<D>) -> Result<Vec<f32>, InferError> {
        match self {
            Self::Blocking => tensor.try_into_vec_as::<f32>().map_err(device_error),
            Self::Async => {
                let data: TensorData = tensor.into_data_async().await.map_err(device_error)?;
                data.try_cast(DType::F32).map_err(device_error)?.try_into_vec::<f32>().map_err(device_error)
            }
        }
    }
}

/// The result of a future whose reads are all [`Wait::Blocking`]: it is ready when it is first polled.
pub(crate) fn finish<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("blocking reads return when they are done"),
    }
}

pub(super) fn device_error(error: impl std::fmt::Display) -> InferError {
    InferError::Device(error.to_string())
}
