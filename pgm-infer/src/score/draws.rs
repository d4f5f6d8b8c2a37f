//! Which tokens of a row are hidden in a draw of a likelihood bound (NELBO), and with which weight they count.
//!
//! The any-order bound draws how many of the n tokens are hidden: a count k, whose weight is n/k. The counts are
//! stratified: a draw takes one of several equal parts of the unit interval, and a point x of the part gives
//! `k = 1 + floor(n x)`.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The purpose of the streams that hide tokens in an evaluation, see [`stream`].
pub const EVALUATION_GROUPS: u64 = 7;
/// The purpose of the streams that divide clean tokens into sets in an evaluation.
pub const EVALUATION_SETS: u64 = 11;
/// The purpose of the streams of orders, see [`one_pass_nll`](super::one_pass_nll).
pub const ONE_PASS_ORDERS: u64 = 12;

/// The random stream of one purpose (a constant) at one index (a step, a row): nothing drawn depends on what was drawn
/// before.
pub fn stream(seed: u64, purpose: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_mut(8).zip([seed, purpose, index]) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// The hidden tokens of one draw.
#[derive(Clone, Debug, PartialEq)]
pub struct HiddenTokens {
    /// Whether each position is hidden.
    pub is_hidden: Vec<bool>,
    /// The factor of the sum of the hidden tokens' cross-entropies.
    pub weight: f64,
}

impl HiddenTokens {
    /// A draw of the any-order bound for a row of `length` positions, of which the first `n` have tokens. It lies in part
    /// `part` of `n_parts`. Padding is hidden as in a random order of all positions, since a model is trained so: visible
    /// padding would tell it how long the text is.
    ///
    /// Each position takes one uniform, so rows of different lengths that are drawn from one stream share the order in
    /// which their common positions are hidden.
    pub fn any_order(length: usize, n: usize, (part, n_parts): (usize, usize), rng: &mut ChaCha8Rng) -> Self {
        let mut is_hidden = vec![false; length];
        if n == 0 {
            return Self { is_hidden, weight: 0.0 };
        }
        let point = (part as f64 + rng.random::<f64>()) / n_parts as f64;
        let k = (1 + (n as f64 * point) as usize).min(n);
        // The k positions with the smallest uniforms: each subset is equally probable.
        let uniforms: Vec<f64> = (0..n).map(|_| rng.random()).collect();
        let mut positions: Vec<usize> = (0..n).collect();
        positions.sort_unstable_by(|&a, &b| uniforms[a].total_cmp(&uniforms[b]));
        positions[..k].iter().for_each(|&position| is_hidden[position] = true);
        let last = uniforms[positions[k - 1]];
        is_hidden[n..].iter_mut().for_each(|is_hidden| *is_hidden = rng.random::<f64>() < last);
        Self { is_hidden, weight: n as f64 / k as f64 }
    }
}

/// The draws of the any-order bound for one text of `length` tokens: those of `pgm-train eval choice` for a question with
/// this seed and index.
pub fn any_order(seed: u64, index: usize, length: usize, n_draws: usize) -> impl Iterator<Item = HiddenTokens> {
    (0..n_draws).map(move |draw| {
        let mut rng = stream(seed, EVALUATION_GROUPS, (index * n_draws + draw) as u64);
        HiddenTokens::any_order(length, length, (draw, n_draws), &mut rng)
    })
}
