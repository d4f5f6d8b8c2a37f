//! The built-in orders: names, settings, how each starts.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::candidates::CandidateLimit;
use super::entropy_bounded::EntropyBounded;
use super::fixed::FixedOrder;
use super::order_trait::Order;
use super::ranked::{RankedOrder, Score};
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
    /// The most probable of the drawn tokens.
    Confidence(CandidateLimit),
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

/// Every order with its default settings, by its name: the table that parsing, help texts and tests read.
const TABLE: [(&str, OrderKind); 9] = [
    ("uniform", OrderKind::Uniform),
    ("sequential", OrderKind::Sequential),
    ("low-discrepancy", OrderKind::LowDiscrepancy),
    ("dilated", OrderKind::Dilated),
    ("confidence", OrderKind::Confidence(CandidateLimit::All)),
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
            Self::Uniform | Self::Sequential | Self::LowDiscrepancy | Self::Dilated | Self::Remask { .. } => false,
        }
    }

    /// The order with its candidates limited, if it has candidates.
    pub fn with_candidates(self, limit: CandidateLimit) -> Self {
        match self {
            Self::Confidence(_) => Self::Confidence(limit),
            Self::Margin(_) => Self::Margin(limit),
            Self::Entropy(_) => Self::Entropy(limit),
            Self::EntropyBounded { bound, .. } => Self::EntropyBounded { bound, limit },
            Self::Uniform | Self::Sequential | Self::LowDiscrepancy | Self::Dilated | Self::Remask { .. } => self,
        }
    }

    /// The order of one row.
    pub fn start(self, start: OrderStart<'_>) -> Box<dyn Order> {
        let OrderStart { open, rng, .. } = start;
        match self {
            Self::Uniform => Box::new(FixedOrder::uniform(open, rng)),
            Self::Sequential => Box::new(FixedOrder::sequential(open)),
            Self::LowDiscrepancy => Box::new(FixedOrder::low_discrepancy(open, rng)),
            Self::Dilated => Box::new(FixedOrder::dilated(open, rng)),
            Self::Confidence(limit) => Box::new(RankedOrder { score: Score::Confidence, limit }),
            Self::Margin(limit) => Box::new(RankedOrder { score: Score::Margin, limit }),
            Self::Entropy(limit) => Box::new(RankedOrder { score: Score::Entropy, limit }),
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
