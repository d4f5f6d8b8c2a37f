//! Which predictions a generative perplexity counts. The field has two conventions, and they differ.
//!
//! A judge predicts token `i + 1` from tokens `0..=i`. The first token has no prediction, because nothing is put before a
//! text. So `nll[i]` is the NLL of token `i + 1`, and a row of `n` tokens has `n - 1` predictions.
//!
//! **The public code** tokenises the text and cuts it to a maximal length. It pads shorter rows with EOS to the longest of
//! the set. Of the padded row it counts every token that is not EOS, and the first EOS. It leaves out the last position of
//! the padded row. Three consequences:
//! * The longest rows lose their last token. Shorter rows do not.
//! * A row without EOS that is at least two tokens shorter than the longest counts one EOS after its end: the first EOS of
//!   the padding.
//! * In a text that begins with EOS (GPT-2's BOS is its EOS) that is the first EOS. No later EOS counts.
//!
//! **The paper's eq. 14** counts every token of the sample: no cut, no exception for EOS.

use serde::{Deserialize, Serialize};

/// The counted NLLs of a row, or of many rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NllSum {
    /// Sum of the counted NLLs, in nats.
    pub nats: f64,
    /// Number of counted tokens.
    pub tokens: usize,
}

impl NllSum {
    /// The sum over rows.
    pub fn total(rows: &[Self]) -> Self {
        rows.iter()
            .fold(Self::default(), |total, row| Self { nats: total.nats + row.nats, tokens: total.tokens + row.tokens })
    }

    /// Nats per counted token; NaN when no token is counted.
    pub fn mean(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// The exponential of [`mean`](Self::mean).
    pub fn perplexity(&self) -> f64 {
        self.mean().exp()
    }
}

/// Whether the public code counts an EOS after the end of `row`, when rows are padded to `padded_length`. If so, the judge
/// must be given the row with one EOS appended.
pub fn counts_appended_eos(row: &[u32], eos: u32, padded_length: usize) -> bool {
    !row.is_empty() && row.len() + 2 <= padded_length && !row.contains(&eos)
}

/// The public code's sum for a row that is already cut. `nll` may be longer than the row. Its entry for the token after
/// the row is read only where [`counts_appended_eos`] is true.
///
/// # Panics
/// When `nll` has no entry for a counted token.
pub fn public_code(row: &[u32], nll: &[f64], eos: u32, padded_length: usize) -> NllSum {
    let first_eos = row.iter().position(|&token| token == eos);
    let is_counted = |&index: &usize| match row.get(index) {
        Some(&token) => token != eos || first_eos == Some(index),
        None => true,
    };
    let end = if counts_appended_eos(row, eos, padded_length) { row.len() + 1 } else { row.len() };
    let indices = (1..end.min(padded_length.saturating_sub(1))).filter(is_counted);
    indices.fold(NllSum::default(), |sum, index| NllSum { nats: sum.nats + nll[index - 1], tokens: sum.tokens + 1 })
}

/// Eq. 14's sum: every prediction within the row. `nll` may be longer than the row.
///
/// # Panics
/// When `nll` has fewer than `row.len() - 1` entries.
pub fn paper(row: &[u32], nll: &[f64]) -> NllSum {
    let tokens = row.len().saturating_sub(1);
    NllSum { nats: nll[..tokens].iter().sum(), tokens }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E: u32 = 9;

    #[test]
    fn the_public_codes_sum_agrees_with_its_own_arrays() {
        // nll[i] = 2^i belongs to token i + 1, so that a sum tells which tokens were counted.
        let nll: Vec<f64> = (0..8).map(|i| f64::from(1 << i)).collect();
        let cases: [(&[u32], usize, f64, usize); 11] = [
            // As long as the longest: tokens 1 and 2. Token 3 is at the last position.
            (&[1, 2, 3, 4], 4, 3.0, 2),
            // One shorter: tokens 1, 2 and 3. The first padding token is at the last position.
            (&[1, 2, 3, 4], 5, 7.0, 3),
            // Two shorter: the first padding token counts.
            (&[1, 2, 3, 4], 6, 15.0, 4),
            (&[1, 2, 3, 4], 9, 15.0, 4),
            // The first EOS counts, the second does not. Tokens between and after them count.
            (&[1, E, 3, E, 5, 6], 6, 1.0 + 2.0 + 8.0, 3),
            // The same, shorter than the longest: it has an EOS, so no padding token counts.
            (&[1, E, 3, E, 5, 6], 8, 1.0 + 2.0 + 8.0 + 16.0, 4),
            // The first EOS is the first token, which has no prediction. The EOS at the end is the second.
            (&[E, 2, 3, E], 8, 3.0, 2),
            (&[E, 2, 3, 4], 4, 3.0, 2),
            (&[1], 6, 1.0, 1),
            (&[1], 1, 0.0, 0),
            (&[], 6, 0.0, 0),
        ];
        for (row, padded_length, nats, tokens) in cases {
            let found = public_code(row, &nll, E, padded_length);
            assert_eq!(found, NllSum { nats, tokens }, "{row:?} padded to {padded_length}");
            // The same by the arrays of the public code: valid[1..] of the padded row, without the last.
            let mut padded = row.to_vec();
            padded.resize(padded_length, E);
            let n_eos = |end: usize| padded[..=end].iter().filter(|&&token| token == E).count();
            let valid = |index: usize| padded[index] != E || n_eos(index) == 1;
            let tokens = (1..padded_length.max(1) - usize::from(padded_length > 1)).filter(|&i| valid(i)).count();
            assert_eq!(found.tokens, tokens, "{row:?} padded to {padded_length}");
        }
    }

    #[test]
    fn an_eos_is_appended_only_where_it_is_counted() {
        assert!(
            counts_appended_eos(&[1, 2], E, 4)
                && !counts_appended_eos(&[1, 2], E, 3)
                && !counts_appended_eos(&[1, E], E, 9)
        );
        assert!(!counts_appended_eos(&[], E, 9));
    }

    #[test]
    fn the_paper_counts_every_token_that_has_a_prediction() {
        let nll = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(paper(&[1, E, 3, E], &nll), NllSum { nats: 7.0, tokens: 3 });
        assert_eq!(paper(&[E, E], &nll), NllSum { nats: 1.0, tokens: 1 });
        assert_eq!(paper(&[1], &nll), NllSum::default());
        assert_eq!(paper(&[], &[]), NllSum::default());
        let total = NllSum::total(&[paper(&[1, 2], &nll), paper(&[1, 2, 3], &nll)]);
        assert_eq!((total.nats, total.tokens), (4.0, 3));
        assert!((total.perplexity() - (4.0_f64 / 3.0).exp()).abs() < 1e-12);
    }
}
