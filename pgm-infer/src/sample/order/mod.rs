//! Orders: which open positions a step decodes.
//!
//! | order | which positions | distribution of the samples |
//! |---|---|---|
//! | `uniform` | a random permutation | exact: the model was trained for it |
//! | `sequential` | left to right | exact |
//! | `low-discrepancy` | van der Corput's sequence from a random start: evenly spread at any moment | exact |
//! | `dilated` | every 2^k-th position, then the positions between (arXiv 2506.19037) | exact |
//! | `confidence` | where the drawn token is most probable (MaskGIT, arXiv 2202.04200) | approximate |
//! | `margin` | where the best token is furthest ahead of the second (arXiv 2502.06768) | approximate |
//! | `entropy` | where the entropy is smallest | approximate |
//! | `entropy-bounded` | as many of the smallest entropies as a bound allows (arXiv 2505.24857) | approximate |
//! | `remask` | at random, and some decoded positions are opened again (ReMDM, arXiv 2503.00307) | approximate |
//!
//! An exact order does not depend on tokens: with one position a step it draws from the model's joint distribution in that
//! order. (Positions of one step are drawn independently of each other in every order.) An approximate order prefers easy
//! positions and samples another distribution.
//!
//! A custom order implements [`Order`]. A new order of this table is a file here, a variant of [`OrderKind`] and a line of
//! its table; the tests name every other place that lists the orders.

mod candidates;
mod entropy_bounded;
mod fixed;
mod flags;
mod left_to_right;
mod order_trait;
mod ranked;
mod remask;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use rand::Rng;
use serde::{Deserialize, Serialize};

pub use candidates::CandidateLimit;
use entropy_bounded::EntropyBounded;
use fixed::FixedOrder;
pub use flags::OrderFlags;
pub(crate) use left_to_right::LeftToRight;
pub use order_trait::{Candidate, Order, OrderContext, Progress};
use ranked::{RankedOrder, Score};
use remask::Remask;

/// The orders of the table above, with their settings.
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
    /// As many of the smallest entropies as add up to no more than a bound, the largest of them not counted.
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

    /// The order of one row with these open positions.
    pub fn start(self, open: &[usize], rng: &mut dyn Rng) -> Box<dyn Order> {
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
        found.ok_or_else(|| format!("{name} is no order; there are {}", Self::NAMES.join(", ")))
    }
}
