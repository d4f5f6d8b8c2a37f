//! Orders: which open positions a step decodes.
//!
//! | order | which | law |
//! |---|---|---|
//! | `uniform` | a random permutation | exact: what the model was trained for |
//! | `sequential` | left to right | exact |
//! | `low-discrepancy` | van der Corput's sequence from a random start: evenly spread at any moment | exact |
//! | `dilated` | every 2^k-th position, then those between (arXiv 2506.19037) | exact |
//! | `confidence` | where the drawn token is most probable (MaskGIT, arXiv 2202.04200) | approximate |
//! | `margin` | where the best token is furthest ahead of the second (arXiv 2502.06768) | approximate |
//! | `entropy` | where the distribution is narrowest | approximate |
//! | `entropy-bounded` | as many of the narrowest as an entropy bound allows (arXiv 2505.24857) | approximate |
//! | `remask` | at random, and some decoded tokens are forgotten again (ReMDM, arXiv 2503.00307) | approximate |
//!
//! An exact order does not look at tokens: one position a step, it draws from the model's joint distribution in that order.
//! (Several positions a step are drawn independently of each other in every order.) An approximate one prefers what is
//! easy, which the law of the samples pays for.
//!
//! An order of one's own is an implementation of [`Order`].

use std::str::FromStr;

use rand::seq::{SliceRandom, index};
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// What an order knows before a step.
#[derive(Clone, Copy, Debug)]
pub struct OrderContext<'a> {
    /// Tokens of the row in all.
    pub length: usize,
    /// Open positions, ascending; not empty.
    pub open: &'a [usize],
    /// How many of them the schedule wants decoded in this step, at least one.
    pub n_to_decode: usize,
}

/// A token drawn at a position that an order looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The position.
    pub position: usize,
    /// The token.
    pub token: u32,
    /// Its log-probability under the model, in nats.
    pub log_probability: f64,
    /// The distribution there, if the order [asks](Order::needs_stats) for it.
    pub shape: LogitStats,
}

/// The shape of a distribution over tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LogitStats {
    /// Probability of the most probable token less that of the second.
    pub margin: f64,
    /// Entropy in nats.
    pub entropy: f64,
}

/// Chooses the positions that the steps of one row decode.
pub trait Order: Send {
    /// Positions among `view.open` at which this step draws a token: the ones to decode, or candidates for it. Each costs
    /// what a decoded position costs.
    fn look(&mut self, view: &OrderContext<'_>, rng: &mut dyn Rng) -> Vec<usize>;

    /// Which of the drawn candidates stay, by their indices; at least one. All, unless said otherwise.
    fn keep(&mut self, view: &OrderContext<'_>, drawn: &[Candidate]) -> Vec<usize> {
        let _ = view;
        (0..drawn.len()).collect()
    }

    /// Whether [`keep`](Self::keep) reads the shapes of distributions; asked once, before the first step.
    fn needs_stats(&self) -> bool {
        false
    }

    /// Whether the order decides how many positions a step decodes; the schedule's number of steps then says nothing. Asked
    /// once, before the first step.
    fn chooses_count(&self) -> bool {
        false
    }

    /// Decoded positions that are to be open again before a step, of those that were not given. `done` is the share of
    /// steps that are behind, `next` the share when this one is.
    fn forget(&mut self, decoded: &[usize], [done, next]: [f64; 2], rng: &mut dyn Rng) -> Vec<usize> {
        let _ = (decoded, done, next, rng);
        Vec::new()
    }
}

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
    /// Every 2^k-th position, then those between.
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
        /// Where it looks.
        looked: CandidateLimit,
    },
    /// Uniform, and each decoded token is forgotten before a step with this probability at most.
    Remask {
        /// The probability.
        rate: f64,
    },
}

/// At how many open positions an order looks that chooses by what it sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CandidateLimit {
    /// At all.
    #[default]
    All,
    /// At this many, drawn anew for each step (and never fewer than are due).
    Some(usize),
}

impl OrderKind {
    /// Names, as the command takes them.
    pub const NAMES: [&'static str; 9] = [
        "uniform",
        "sequential",
        "low-discrepancy",
        "dilated",
        "confidence",
        "margin",
        "entropy",
        "entropy-bounded",
        "remask",
    ];

    /// The order with its candidates limited, where it has candidates.
    pub fn with_candidates(self, looked: CandidateLimit) -> Self {
        match self {
            Self::Confidence(_) => Self::Confidence(looked),
            Self::Margin(_) => Self::Margin(looked),
            Self::Entropy(_) => Self::Entropy(looked),
            Self::EntropyBounded { bound, .. } => Self::EntropyBounded { bound, looked },
            other => other,
        }
    }

    /// The order of one row with these open positions.
    pub fn start(self, open: &[usize], rng: &mut dyn Rng) -> Box<dyn Order> {
        let n = open.len();
        let queue = match self {
            Self::Uniform => {
                let mut queue = open.to_vec();
                queue.shuffle(rng);
                queue
            }
            Self::Sequential => open.iter().rev().copied().collect(),
            Self::LowDiscrepancy => {
                let start = rng.random::<f64>();
                let mut taken = vec![false; n];
                let mut queue = Vec::with_capacity(n);
                // The first 2^m points, 2^m >= n, hit each of n equal cells.
                for k in 0..(n as u64).next_power_of_two() {
                    let point = (van_der_corput(k) + start).fract();
                    let cell = ((point * n as f64) as usize).min(n.saturating_sub(1));
                    if n > 0 && !std::mem::replace(&mut taken[cell], true) {
                        queue.push(open[cell]);
                    }
                }
                queue.extend((0..n).filter(|&cell| !taken[cell]).map(|cell| open[cell]));
                queue.reverse();
                queue
            }
            Self::Dilated => {
                let mut order: Vec<usize> = (0..n).collect();
                order.shuffle(rng);
                // Coarse levels last: the queue is decoded from its end.
                order.sort_by_key(|&index| if index == 0 { u32::MAX } else { index.trailing_zeros() });
                order.into_iter().map(|index| open[index]).collect()
            }
            Self::Confidence(looked) => return Box::new(Chosen { by: By::Probability, looked }),
            Self::Margin(looked) => return Box::new(Chosen { by: By::Margin, looked }),
            Self::Entropy(looked) => return Box::new(Chosen { by: By::Entropy, looked }),
            Self::EntropyBounded { bound, looked } => return Box::new(EntropyBounded { bound, looked }),
            Self::Remask { rate } => return Box::new(Remask { rate }),
        };
        Box::new(Queue(queue))
    }
}

impl FromStr for OrderKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "uniform" => Self::Uniform,
            "sequential" => Self::Sequential,
            "low-discrepancy" => Self::LowDiscrepancy,
            "dilated" => Self::Dilated,
            "confidence" => Self::Confidence(CandidateLimit::All),
            "margin" => Self::Margin(CandidateLimit::All),
            "entropy" => Self::Entropy(CandidateLimit::All),
            "entropy-bounded" => Self::EntropyBounded { bound: 0.5, looked: CandidateLimit::All },
            "remask" => Self::Remask { rate: 0.05 },
            other => return Err(format!("{other} is no order; there are {}", Self::NAMES.join(", "))),
        })
    }
}

/// An order's name and its settings, as flags of a command and fields of a request.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct OrderFlags {
    /// Which positions a step decodes: uniform, sequential, low-discrepancy, dilated, confidence, margin, entropy,
    /// entropy-bounded or remask [default: uniform]
    #[cfg_attr(feature = "cli", arg(long, value_name = "ORDER"))]
    pub order: Option<OrderKind>,
    /// Open positions that an order looks at which chooses by what it sees [default: all]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N"))]
    pub candidates: Option<usize>,
    /// Nats of entropy that a step of entropy-bounded decodes at once [default: 0.5]
    #[cfg_attr(feature = "cli", arg(long, value_name = "NATS"))]
    pub entropy_bound: Option<f64>,
    /// Probability at which remask forgets a decoded token before a step [default: 0.05]
    #[cfg_attr(feature = "cli", arg(long, value_name = "P"))]
    pub remask_rate: Option<f64>,
}

impl OrderFlags {
    /// The order with its settings.
    ///
    /// # Errors
    /// Says which setting belongs to another order.
    pub fn kind(&self) -> Result<OrderKind, String> {
        let mut order = self.order.unwrap_or_default();
        match (self.entropy_bound, &mut order) {
            (Some(wanted), OrderKind::EntropyBounded { bound, .. }) => *bound = wanted,
            (Some(_), _) => return Err("--entropy-bound belongs to --order entropy-bounded".into()),
            _ => {}
        }
        match (self.remask_rate, &mut order) {
            (Some(wanted), OrderKind::Remask { rate }) => *rate = wanted,
            (Some(_), _) => return Err("--remask-rate belongs to --order remask".into()),
            _ => {}
        }
        match self.candidates {
            None => Ok(order),
            Some(0) => Err("--candidates must be at least 1".into()),
            Some(n) if order.with_candidates(CandidateLimit::Some(n)) != order => {
                Ok(order.with_candidates(CandidateLimit::Some(n)))
            }
            Some(_) => Err("--candidates belongs to the orders confidence, margin, entropy and entropy-bounded".into()),
        }
    }
}

// The k-th point of the sequence, in [0, 1).
fn van_der_corput(k: u64) -> f64 {
    k.reverse_bits() as f64 / 2.0_f64.powi(64)
}

// Positions fixed from the start, decoded from the end.
struct Queue(Vec<usize>);

impl Order for Queue {
    fn look(&mut self, view: &OrderContext<'_>, _rng: &mut dyn Rng) -> Vec<usize> {
        self.0.split_off(self.0.len() - view.n_to_decode.min(self.0.len()))
    }
}

fn draw_some(open: &[usize], n: usize, rng: &mut dyn Rng) -> Vec<usize> {
    if n >= open.len() {
        return open.to_vec();
    }
    index::sample(rng, open.len(), n).into_iter().map(|index| open[index]).collect()
}

impl CandidateLimit {
    fn at(self, view: &OrderContext<'_>, rng: &mut dyn Rng) -> Vec<usize> {
        match self {
            Self::All => view.open.to_vec(),
            Self::Some(n) => draw_some(view.open, n.max(view.n_to_decode), rng),
        }
    }
}

#[derive(Clone, Copy)]
enum By {
    Probability,
    Margin,
    Entropy,
}

struct Chosen {
    by: By,
    looked: CandidateLimit,
}

// Indices of the candidates, the best first; equals by position, so that the order of looking does not matter.
fn ranked(drawn: &[Candidate], score: impl Fn(&Candidate) -> f64) -> Vec<usize> {
    let mut ranking: Vec<usize> = (0..drawn.len()).collect();
    let key = |index: usize| (score(&drawn[index]), drawn[index].position);
    ranking.sort_by(|&a, &b| key(b).0.total_cmp(&key(a).0).then(key(a).1.cmp(&key(b).1)));
    ranking
}

impl Order for Chosen {
    fn look(&mut self, view: &OrderContext<'_>, rng: &mut dyn Rng) -> Vec<usize> {
        self.looked.at(view, rng)
    }

    fn keep(&mut self, view: &OrderContext<'_>, drawn: &[Candidate]) -> Vec<usize> {
        let mut ranking = ranked(drawn, |candidate| match self.by {
            By::Probability => candidate.log_probability,
            By::Margin => candidate.shape.margin,
            By::Entropy => -candidate.shape.entropy,
        });
        ranking.truncate(view.n_to_decode);
        ranking
    }

    fn needs_stats(&self) -> bool {
        !matches!(self.by, By::Probability)
    }
}

struct EntropyBounded {
    bound: f64,
    looked: CandidateLimit,
}

impl Order for EntropyBounded {
    fn look(&mut self, view: &OrderContext<'_>, rng: &mut dyn Rng) -> Vec<usize> {
        self.looked.at(view, rng)
    }

    fn keep(&mut self, _view: &OrderContext<'_>, drawn: &[Candidate]) -> Vec<usize> {
        let mut ranking = ranked(drawn, |candidate| -candidate.shape.entropy);
        // In rising order the sum without the largest is the sum of those before.
        let mut before = 0.0;
        let mut n = 0;
        for &index in &ranking {
            if n > 0 && before > self.bound {
                break;
            }
            before += drawn[index].shape.entropy;
            n += 1;
        }
        ranking.truncate(n);
        ranking
    }

    fn needs_stats(&self) -> bool {
        true
    }

    fn chooses_count(&self) -> bool {
        true
    }
}

struct Remask {
    rate: f64,
}

impl Order for Remask {
    fn look(&mut self, view: &OrderContext<'_>, rng: &mut dyn Rng) -> Vec<usize> {
        draw_some(view.open, view.n_to_decode, rng)
    }

    // What the law of the decoded share allows: a token may leave only as often as another can come instead.
    fn forget(&mut self, decoded: &[usize], [done, next]: [f64; 2], rng: &mut dyn Rng) -> Vec<usize> {
        let most = if done > 0.0 { (1.0 - next) / done } else { 0.0 };
        let probability = self.rate.min(most).clamp(0.0, 1.0);
        decoded.iter().copied().filter(|_| rng.random_bool(probability)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn decode(kind: OrderKind, open: &[usize], n_to_decode: usize) -> Vec<usize> {
        let mut rng = StdRng::seed_from_u64(3);
        let mut order = kind.start(open, &mut rng);
        let (mut open, mut decoded) = (open.to_vec(), Vec::new());
        while !open.is_empty() {
            let n_to_decode = n_to_decode.min(open.len());
            let taken = order.look(&OrderContext { length: 100, open: &open, n_to_decode }, &mut rng);
            assert_eq!(taken.len(), n_to_decode);
            open.retain(|position| !taken.contains(position));
            decoded.extend(taken);
        }
        decoded
    }

    #[test]
    fn fixed_orders_are_permutations_of_the_open_positions() {
        for n in [1, 2, 3, 17, 64, 90] {
            let open: Vec<usize> = (0..n).map(|index| index + 5).collect();
            let kinds = [OrderKind::Uniform, OrderKind::Sequential, OrderKind::LowDiscrepancy, OrderKind::Dilated];
            for kind in kinds {
                let mut decoded = decode(kind, &open, 3);
                if kind == OrderKind::Sequential {
                    let mut ascending = decode(kind, &open, 1);
                    assert_eq!(ascending, open);
                    ascending.clear();
                }
                decoded.sort_unstable();
                assert_eq!(decoded, open, "{kind:?}");
            }
        }
    }

    #[test]
    fn low_discrepancy_and_dilated_orders_leave_no_large_gap_at_any_moment() {
        let open: Vec<usize> = (0..64).collect();
        for kind in [OrderKind::LowDiscrepancy, OrderKind::Dilated] {
            let decoded = decode(kind, &open, 1);
            for n in [4, 8, 16, 32] {
                let mut first = decoded[..n].to_vec();
                first.sort_unstable();
                let gap = first.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
                assert!(gap <= 2 * 64 / n, "{kind:?}: a gap of {gap} after {n}");
            }
        }
    }

    fn candidates(entropies: &[f64]) -> Vec<Candidate> {
        let candidate = |(position, &entropy): (usize, &f64)| Candidate {
            position,
            token: 0,
            log_probability: -entropy,
            shape: LogitStats { margin: 1.0 - entropy, entropy },
        };
        entropies.iter().enumerate().map(candidate).collect()
    }

    #[test]
    fn orders_that_choose_take_the_surest_and_no_more_than_are_due() {
        let drawn = candidates(&[0.5, 0.1, 0.9, 0.3]);
        let view = OrderContext { length: 4, open: &[0, 1, 2, 3], n_to_decode: 2 };
        for kind in ["confidence", "margin", "entropy"] {
            let mut rng = StdRng::seed_from_u64(0);
            let mut order = kind.parse::<OrderKind>().unwrap().start(view.open, &mut rng);
            assert_eq!(order.look(&view, &mut rng), view.open);
            assert_eq!(order.keep(&view, &drawn), [1, 3], "{kind}");
            let mut few =
                kind.parse::<OrderKind>().unwrap().with_candidates(CandidateLimit::Some(3)).start(view.open, &mut rng);
            assert_eq!(few.look(&view, &mut rng).len(), 3);
        }
    }

    #[test]
    fn an_entropy_bound_counts_all_but_the_largest() {
        let drawn = candidates(&[0.5, 0.1, 0.9, 0.3]);
        let view = OrderContext { length: 4, open: &[0, 1, 2, 3], n_to_decode: 1 };
        let keep = |bound| {
            let mut order = EntropyBounded { bound, looked: CandidateLimit::All };
            order.keep(&view, &drawn)
        };
        assert_eq!(keep(0.0), [1]);
        assert_eq!(keep(0.1), [1, 3], "0.1 + 0.3 less 0.3");
        assert_eq!(keep(0.4), [1, 3, 0]);
        assert_eq!(keep(5.0), [1, 3, 0, 2]);
    }

    #[test]
    fn remask_forgets_at_its_rate_and_nothing_at_the_end() {
        let mut rng = StdRng::seed_from_u64(4);
        let decoded: Vec<usize> = (0..20_000).collect();
        let mut order = Remask { rate: 0.05 };
        assert!(order.forget(&decoded, [0.0, 0.1], &mut rng).is_empty());
        let n = order.forget(&decoded, [0.5, 0.6], &mut rng).len();
        assert!((900..1100).contains(&n), "{n}");
        assert!(order.forget(&decoded, [0.9, 1.0], &mut rng).is_empty());
    }

    #[test]
    fn names_are_read_and_a_wrong_one_is_answered_with_the_list() {
        for name in OrderKind::NAMES {
            assert!(name.parse::<OrderKind>().is_ok(), "{name}");
        }
        assert!("best".parse::<OrderKind>().unwrap_err().contains("low-discrepancy"));
    }
}
