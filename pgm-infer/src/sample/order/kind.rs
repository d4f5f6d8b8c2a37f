//! The built-in orders: names, settings, how each starts.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::candidates::CandidateLimit;
use super::entropy_bounded::EntropyBounded;
use super::fixed::FixedOrder;
use super::halton::Halton;
use super::order_trait::Order;
use super::ranked::{AnnealedNoise, RankedOrder, Score};
use super::remask::Remask;
use super::start::OrderStart;

/// The built-in orders with their settings; the [module](crate::sample::order) describes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderKind {
    /// A random permutation.
    #[default]
    Uniform,
    /// Left to right.
    Sequential,
    /// Van der Corput's sequence from a random start.
    LowDiscrepancy,
    /// Every 2^k-th position, then the positions between.
    Dilated,
    /// The cells of a picture along Halton's sequence; a row without a grid is one line.
    Halton {
        /// Whether each row starts at a random cell of the sequence, which wraps around.
        roll: bool,
    },
    /// The most probable of the drawn tokens.
    Confidence(Confidence),
    /// The largest margin.
    Margin(CandidateLimit),
    /// The smallest entropy.
    Entropy(CandidateLimit),
    /// The positions of smallest entropy: as many as fit while the sum of all but the last is at most the bound.
    EntropyBounded {
        /// The bound in nats.
        bound: f64,
        /// Which positions it considers.
        #[serde(rename = "looked")]
        limit: CandidateLimit,
    },
    /// Uniform, and each decoded position is opened again before a step with this probability at most.
    Remask {
        /// The probability.
        rate: f64,
    },
}

/// Settings of the order `confidence`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "StoredConfidence", into = "StoredConfidence")]
pub struct Confidence {
    /// Which positions it considers.
    pub limit: CandidateLimit,
    /// Gumbel noise on the log-probabilities times this, which falls linearly to 0 in the last step (MaskGIT).
    pub noise: f64,
}

impl From<CandidateLimit> for Confidence {
    fn from(limit: CandidateLimit) -> Self {
        Self { limit, noise: 0.0 }
    }
}

// Without noise it is stored as it was before there was noise.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StoredConfidence {
    Plain(CandidateLimit),
    Noisy {
        #[serde(rename = "looked")]
        limit: CandidateLimit,
        noise: f64,
    },
}

impl From<StoredConfidence> for Confidence {
    fn from(stored: StoredConfidence) -> Self {
        match stored {
            StoredConfidence::Plain(limit) => limit.into(),
            StoredConfidence::Noisy { limit, noise } => Self { limit, noise },
        }
    }
}

impl From<Confidence> for StoredConfidence {
    fn from(Confidence { limit, noise }: Confidence) -> Self {
        if noise == 0.0 { Self::Plain(limit) } else { Self::Noisy { limit, noise } }
    }
}

/// Every order with its default settings, by its name: the table that parsing, help texts and tests read.
const TABLE: [(&str, OrderKind); 10] = [
    ("uniform", OrderKind::Uniform),
    ("sequential", OrderKind::Sequential),
    ("low-discrepancy", OrderKind::LowDiscrepancy),
    ("dilated", OrderKind::Dilated),
    ("halton", OrderKind::Halton { roll: false }),
    ("confidence", OrderKind::Confidence(Confidence { limit: CandidateLimit::All, noise: 0.0 })),
    ("margin", OrderKind::Margin(CandidateLimit::All)),
    ("entropy", OrderKind::Entropy(CandidateLimit::All)),
    ("entropy-bounded", OrderKind::EntropyBounded { bound: 0.5, limit: CandidateLimit::All }),
    ("remask", OrderKind::Remask { rate: 0.05 }),
];

impl OrderKind {
    /// Names, as the command takes them.
    pub const NAMES: [&'static str; TABLE.len()] = {
        let mut names = [""; TABLE.len()];
        let mut index = 0;
        while index < TABLE.len() {
            names[index] = TABLE[index].0;
            index += 1;
        }
        names
    };

    /// The order's name.
    pub fn name(self) -> &'static str {
        let same = |kind: &OrderKind| std::mem::discriminant(kind) == std::mem::discriminant(&self);
        TABLE.iter().find(|(_, kind)| same(kind)).map_or("", |(name, _)| name)
    }

    /// Whether the order considers more positions than it decodes, so that [`with_candidates`](Self::with_candidates) has an
    /// effect.
    pub fn has_candidates(self) -> bool {
        match self {
            Self::Confidence(_) | Self::Margin(_) | Self::Entropy(_) | Self::EntropyBounded { .. } => true,
            Self::Uniform
            | Self::Sequential
            | Self::LowDiscrepancy
            | Self::Dilated
            | Self::Halton { .. }
            | Self::Remask { .. } => false,
        }
    }

    /// The order with its candidates limited, if it has candidates.
    pub fn with_candidates(self, limit: CandidateLimit) -> Self {
        match self {
            Self::Confidence(settings) => Self::Confidence(Confidence { limit, ..settings }),
            Self::Margin(_) => Self::Margin(limit),
            Self::Entropy(_) => Self::Entropy(limit),
            Self::EntropyBounded { bound, .. } => Self::EntropyBounded { bound, limit },
            Self::Uniform
            | Self::Sequential
            | Self::LowDiscrepancy
            | Self::Dilated
            | Self::Halton { .. }
            | Self::Remask { .. } => self,
        }
    }

    /// The order of one row.
    pub fn start(self, start: OrderStart<'_>) -> Box<dyn Order> {
        let ranked = |score, limit, noise| Box::new(RankedOrder { score, limit, noise });
        match self {
            Self::Halton { roll } => Box::new(Halton::new(&start, roll)),
            Self::Confidence(Confidence { limit, noise }) => {
                let noise = (noise != 0.0).then(|| AnnealedNoise { scale: noise, rng: start.independent_rng() });
                ranked(Score::Confidence, limit, noise)
            }
            Self::Uniform => Box::new(FixedOrder::uniform(start.open, start.rng)),
            Self::Sequential => Box::new(FixedOrder::sequential(start.open)),
            Self::LowDiscrepancy => Box::new(FixedOrder::low_discrepancy(start.open, start.rng)),
            Self::Dilated => Box::new(FixedOrder::dilated(start.open, start.rng)),
            Self::Margin(limit) => ranked(Score::Margin, limit, None),
            Self::Entropy(limit) => ranked(Score::Entropy, limit, None),
            Self::EntropyBounded { bound, limit } => Box::new(EntropyBounded { bound, limit }),
            Self::Remask { rate } => Box::new(Remask { rate }),
        }
    }
}

impl FromStr for OrderKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = TABLE.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
        found.ok_or_else(|| format!("{name} is not an order; the orders are {}", Self::NAMES.join(", ")))
    }
}
