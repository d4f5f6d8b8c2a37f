//! A measured curve and its points.

use serde::{Deserialize, Serialize};

use super::settings::Variant;
use super::timing::WallTime;
use crate::judge::Mauve;
use crate::judge::metrics::Estimate;

/// A curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontierCurve {
    /// Its name.
    pub name: String,
    /// Its model and number of steps.
    pub variant: Variant,
    /// Top-p of its points; absent where they differ in it.
    pub top_p: Option<f64>,
    /// The wall time of a sample.
    pub wall_time: WallTime,
    /// The perplexity under the judge at the mean entropy of held-out text: between two points, linear in the entropy and the
    /// logarithm of the perplexity. The interval is over samples and held-out rows. Absent when the curve does not reach that
    /// entropy.
    pub matched: Option<Estimate>,
    /// Its points, from the highest temperature or top-p.
    pub points: Vec<FrontierPoint>,
}

/// A point of a curve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontierPoint {
    /// The temperature.
    pub temperature: f64,
    /// The share of probability that is kept.
    pub top_p: f64,
    /// Perplexity under the judge by the paper's eq. 14.
    pub perplexity: Option<Estimate>,
    /// The same as the public code counts.
    pub public_code: Option<Estimate>,
    /// Mean unigram entropy of a sample, in nats.
    pub entropy: Option<Estimate>,
    /// Share of distinct pairs of tokens within a sample.
    pub distinct_2: Option<f64>,
    /// MAUVE against the held-out rows. Absent where fewer than two samples have a token.
    pub mauve: Option<Mauve>,
}
