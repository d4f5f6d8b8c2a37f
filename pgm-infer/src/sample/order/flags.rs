//! An order by its name and settings, as a command or a request gives them.

use super::candidates::CandidateLimit;
use super::kind::OrderKind;

/// The name of an order and its settings: flags of a command, fields of a request.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct OrderFlags {
    /// Which positions a step decodes.
    #[cfg_attr(feature = "cli", arg(long, value_name = "ORDER", help = order_help()))]
    pub order: Option<OrderKind>,
    /// Open positions that confidence, margin, entropy and entropy-bounded consider [default: all]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N"))]
    pub candidates: Option<usize>,
    /// Nats of entropy that a step of entropy-bounded decodes at once [default: 0.5]
    #[cfg_attr(feature = "cli", arg(long, value_name = "NATS"))]
    pub entropy_bound: Option<f64>,
    /// Probability at which remask reopens a decoded position before a step [default: 0.05]
    #[cfg_attr(feature = "cli", arg(long, value_name = "P"))]
    pub remask_rate: Option<f64>,
    /// Gumbel noise on the confidence, times this, falling to 0 in the last step; MaskGIT's samplers take 5 [default: 0]
    #[cfg_attr(feature = "cli", arg(long, value_name = "R"))]
    pub noise: Option<f64>,
    /// Each sample starts halton at a random cell
    #[cfg_attr(feature = "cli", arg(long))]
    pub roll: bool,
}

#[cfg(feature = "cli")]
fn order_help() -> String {
    format!(
        "Which positions a step decodes: {} [default: {}, halton for pictures; generate, edit and eval images take the model's first]",
        OrderKind::NAMES.join(", "),
        OrderKind::default().name()
    )
}

impl OrderFlags {
    /// The order with its settings.
    ///
    /// # Errors
    /// Says which setting belongs to another order.
    pub fn kind(&self) -> Result<OrderKind, String> {
        self.kind_or(OrderKind::default())
    }

    /// As [`kind`](Self::kind), with the order `default` where none is named.
    ///
    /// # Errors
    /// As [`kind`](Self::kind).
    pub fn kind_or(&self, default: OrderKind) -> Result<OrderKind, String> {
        let mut order = self.order.unwrap_or(default);
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
        match (self.noise, &mut order) {
            (Some(wanted), OrderKind::Confidence(settings)) => settings.noise = wanted,
            (Some(_), _) => return Err("--noise belongs to --order confidence".into()),
            _ => {}
        }
        match (self.roll, &mut order) {
            (true, OrderKind::Halton { roll }) => *roll = true,
            (true, _) => return Err("--roll belongs to --order halton".into()),
            _ => {}
        }
        match self.candidates {
            None => Ok(order),
            Some(0) => Err("--candidates must be at least 1".into()),
            Some(n) if order.has_candidates() => Ok(order.with_candidates(CandidateLimit::Some(n))),
            Some(_) => Err("--candidates belongs to the orders confidence, margin, entropy and entropy-bounded".into()),
        }
    }
}
