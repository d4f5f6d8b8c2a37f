//! The body of `POST /score`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::common::Common;
use super::parse::{BodyError, RequestBody};
use super::sampler::MAX_SEED;

/// The most draws of a candidate.
const MAX_DRAWS: usize = 4096;
/// The default of `draws`.
const DEFAULT_DRAWS: usize = 128;

/// The body of `POST /score`. The comments of the fields are their descriptions in `/openapi.json`.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ScoreRequest, description = "A context and the texts that may follow it.")]
pub struct ScoreBody {
    /// A name from `/v1/models`. Default: the first model of text.
    pub model: Option<String>,
    /// The text before each candidate. Default: none.
    #[serde(alias = "query", alias = "ctx", alias = "prompt", alias = "question")]
    context: Option<String>,
    /// The candidates, at least one.
    #[serde(alias = "choices", alias = "endings")]
    #[schema(min_items = 1, required = true)]
    candidates: Option<Vec<String>>,
    /// Text between the context and a candidate. Default: a space, or nothing without a context.
    separator: Option<String>,
    /// Draws of hidden tokens for each candidate; an autoregressive model needs none. Default: 128.
    #[schema(minimum = 1, maximum = 4096)]
    draws: Option<usize>,
    /// Seed of the draws. All candidates share them. Default: 0.
    #[schema(minimum = 0, maximum = 9007199254740991_u64)]
    seed: Option<u64>,
    /// Score all tokens of a candidate in one pass, a draw for each random order, as a partition model writes them that encodes
    /// each token once. Default: false.
    one_pass: Option<bool>,
    /// Whether a score is divided by the number of tokens. Default: sum.
    reduction: Option<Reduction>,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: Map<String, Value>,
}

/// How a score is computed from the likelihood of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// The log-likelihood, in nats.
    #[default]
    Sum,
    /// The log-likelihood per token.
    Mean,
}

impl ScoreBody {
    /// The texts to score, one for each candidate.
    pub fn texts(&self) -> Vec<String> {
        let context = self.context.as_deref().unwrap_or_default();
        let default = if context.is_empty() { "" } else { " " };
        let separator = self.separator.as_deref().unwrap_or(default);
        self.candidates().iter().map(|candidate| format!("{context}{separator}{candidate}")).collect()
    }

    /// The candidates.
    pub fn candidates(&self) -> &[String] {
        self.candidates.as_deref().unwrap_or_default()
    }

    /// Draws of each candidate.
    pub fn draws(&self) -> usize {
        self.draws.unwrap_or(DEFAULT_DRAWS)
    }

    /// Whether all tokens are scored in one pass.
    pub fn one_pass(&self) -> bool {
        self.one_pass.unwrap_or(false)
    }

    /// The seed of the draws.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or(0)
    }

    /// How scores are computed.
    pub fn reduction(&self) -> Reduction {
        self.reduction.unwrap_or_default()
    }
}

impl RequestBody for ScoreBody {
    fn check(&self) -> Result<(), BodyError> {
        Common::default().check(&self.unknown)?;
        if self.candidates().is_empty() {
            return Err(BodyError::field("candidates", "candidates must be a list of at least one text"));
        }
        if !(1..=MAX_DRAWS).contains(&self.draws()) {
            return Err(BodyError::field("draws", format!("draws must lie between 1 and {MAX_DRAWS}")));
        }
        if self.seed() > MAX_SEED {
            return Err(BodyError::field("seed", format!("seed must lie between 0 and {MAX_SEED}")));
        }
        Ok(())
    }
}
