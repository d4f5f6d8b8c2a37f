//! What an order is made from.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::sample::grid::TokenGrid;

/// What is known of a row when its order is made.
///
/// There are two random streams to choose from:
///
/// | stream | what a draw does | for |
/// |---|---|---|
/// | [`rng`](Self::rng), the row's own | moves the uniforms of the tokens: other tokens are drawn for the same seed | an order that *is* a random permutation |
/// | [`independent_rng`](Self::independent_rng) | leaves the tokens' uniforms as they are | an order that wants noise beside them: a random offset, noise on a score |
///
/// An order that needs randomness in later steps keeps the generator of [`independent_rng`](Self::independent_rng):
///
/// ```
/// use pgm_infer::Order;
/// use pgm_infer::sample::order::{OrderContext, OrderStart};
/// use rand::{Rng, RngExt};
/// use rand_chacha::ChaCha8Rng;
///
/// // Decodes a window of neighbours, at another random place in each step.
/// struct RandomWindow(ChaCha8Rng);
///
/// impl RandomWindow {
///     fn start(start: OrderStart<'_>) -> Box<dyn Order> {
///         Box::new(Self(start.independent_rng()))
///     }
/// }
///
/// impl Order for RandomWindow {
///     fn candidates(&mut self, context: &OrderContext<'_>, _rng: &mut dyn Rng) -> Vec<usize> {
///         let first = self.0.random_range(0..=context.open.len() - context.n_to_decode);
///         context.open[first..first + context.n_to_decode].to_vec()
///     }
/// }
/// ```
pub struct OrderStart<'a> {
    /// Tokens of the row, given ones included.
    pub length: usize,
    /// Open positions, ascending.
    pub open: &'a [usize],
    /// Where a picture's cells stand in the row, if it is one.
    pub grid: Option<TokenGrid>,
    /// The row's seed.
    pub seed: u64,
    /// The row's own stream, at its beginning.
    pub rng: &'a mut dyn Rng,
}

// The row's own stream has number 0.
const INDEPENDENT_STREAM: u64 = 1;

impl OrderStart<'_> {
    /// A generator that is a function of the row's seed and independent of [`rng`](Self::rng): ChaCha8 with the same key and
    /// another stream number. Each call returns it from its beginning.
    pub fn independent_rng(&self) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(INDEPENDENT_STREAM);
        rng
    }
}

impl std::fmt::Debug for OrderStart<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { length, open, grid, seed, .. } = self;
        let mut fields = f.debug_struct("OrderStart");
        fields
            .field("length", length)
            .field("open", open)
            .field("grid", grid)
            .field("seed", seed)
            .finish_non_exhaustive()
    }
}
