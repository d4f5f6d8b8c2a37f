//! Which predictions a generative perplexity counts. The two ways of the field differ enough to say which is meant.
//!
//! A judge predicts token `i + 1` from tokens `0..=i`; the first token has no prediction, since nothing is put before
//! a text. `nll[i]` is therefore the NLL of token `i + 1`, and a row of `n` tokens has `n - 1` of them.
//!
//! **The public code** tokenises the text, cuts it to L, fills shorter rows with EOS up to the longest of the set, and
//! counts a token when it is no EOS or the row's first EOS. It then leaves out the prediction of the last place of the
//! filled row ("the last prediction dropped"), since training rows end in EOS there. Three things follow:
//! * a row as long as the longest loses its last token, a shorter one does not;
//! * a row without EOS that is shorter than the longest by two or more counts the end of text behind it, which is the
//!   filling's first EOS;
//! * a text that begins with the EOS token, as GPT-2's BOS is, has its first EOS there, and no later EOS counts.
//!
//! **The paper's eq. 14** counts every token of the sample as it is: no cut, no exception for EOS.

/// What is counted of a row, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counted {
    /// Sum of the counted NLLs, in nats.
    pub nats: f64,
    /// How many are counted.
    pub tokens: usize,
}

impl Counted {
    /// The sum of both numbers over rows.
    pub fn total(rows: &[Self]) -> Self {
        rows.iter()
            .fold(Self::default(), |total, row| Self { nats: total.nats + row.nats, tokens: total.tokens + row.tokens })
    }

    /// Nats per counted token; not a number when nothing is counted.
    pub fn mean(&self) -> f64 {
        self.nats / self.tokens as f64
    }

    /// The exponential of [`mean`](Self::mean).
    pub fn perplexity(&self) -> f64 {
        self.mean().exp()
    }
}

/// Whether the public code counts an EOS behind `row`, when rows are filled to `filled_length`. The judge must then be
/// given the row with one EOS appended.
pub fn counts_end(row: &[u32], eos: u32, filled_length: usize) -> bool {
    !row.is_empty() && row.len() + 2 <= filled_length && !row.contains(&eos)
}

/// The public code's counting of a row that is cut already. `nll` may run on behind the row; its entry for the token
/// right behind is read only where [`counts_end`].
///
/// # Panics
/// When `nll` is shorter than that.
pub fn public_code(row: &[u32], nll: &[f64], eos: u32, filled_length: usize) -> Counted {
    let first_eos = row.iter().position(|&token| token == eos);
    let is_counted = |&index: &usize| match row.get(index) {
        Some(&token) => token != eos || first_eos == Some(index),
        None => true,
    };
    let end = if counts_end(row, eos, filled_length) { row.len() + 1 } else { row.len() };
    let indices = (1..end.min(filled_length.saturating_sub(1))).filter(is_counted);
    indices.fold(Counted::default(), |counted, index| Counted {
        nats: counted.nats + nll[index - 1],
        tokens: counted.tokens + 1,
    })
}

/// Eq. 14's counting: every prediction within the row. `nll` may run on behind the row.
///
/// # Panics
/// When `nll` has fewer than `row.len() - 1` entries.
pub fn paper(row: &[u32], nll: &[f64]) -> Counted {
    let tokens = row.len().saturating_sub(1);
    Counted { nats: nll[..tokens].iter().sum(), tokens }
}

#[cfg(test)]
mod tests {
    use super::*;

    const E: u32 = 9;

    #[test]
    fn the_public_code_counts_what_its_arrays_say() {
        // NLLs are powers of two, so that a sum says which were counted: nll[i] = 2^i belongs to token i + 1.
        let nll: Vec<f64> = (0..8).map(|i| f64::from(1 << i)).collect();
        let cases: [(&[u32], usize, f64, usize); 11] = [
            // As long as the longest: tokens 1, 2; token 3 stands in the last place.
            (&[1, 2, 3, 4], 4, 3.0, 2),
            // One shorter: tokens 1, 2, 3; the first filling stands in the last place.
            (&[1, 2, 3, 4], 5, 7.0, 3),
            // Two shorter: the first filling counts as the end of the text.
            (&[1, 2, 3, 4], 6, 15.0, 4),
            (&[1, 2, 3, 4], 9, 15.0, 4),
            // The first EOS counts, the second does not, tokens between and behind do.
            (&[1, E, 3, E, 5, 6], 6, 1.0 + 2.0 + 8.0, 3),
            // The same, shorter than the longest: it has its EOS, so the filling counts nothing.
            (&[1, E, 3, E, 5, 6], 8, 1.0 + 2.0 + 8.0 + 16.0, 4),
            // The first EOS is the first token: it has no prediction, and the EOS at the end is the second.
            (&[E, 2, 3, E], 8, 3.0, 2),
            (&[E, 2, 3, 4], 4, 3.0, 2),
            (&[1], 6, 1.0, 1),
            (&[1], 1, 0.0, 0),
            (&[], 6, 0.0, 0),
        ];
        for (row, filled_length, nats, tokens) in cases {
            let found = public_code(row, &nll, E, filled_length);
            assert_eq!(found, Counted { nats, tokens }, "{row:?} filled to {filled_length}");
            // The same by the public code's own arrays: valid[1..] of the filled row, without the last.
            let mut filled = row.to_vec();
            filled.resize(filled_length, E);
            let n_eos = |end: usize| filled[..=end].iter().filter(|&&token| token == E).count();
            let valid = |index: usize| filled[index] != E || n_eos(index) == 1;
            let tokens = (1..filled_length.max(1) - usize::from(filled_length > 1)).filter(|&i| valid(i)).count();
            assert_eq!(found.tokens, tokens, "{row:?} filled to {filled_length}");
        }
    }

    #[test]
    fn an_end_is_needed_only_where_it_is_counted() {
        assert!(counts_end(&[1, 2], E, 4) && !counts_end(&[1, 2], E, 3) && !counts_end(&[1, E], E, 9));
        assert!(!counts_end(&[], E, 9));
    }

    #[test]
    fn the_paper_counts_every_token_that_has_a_prediction() {
        let nll = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(paper(&[1, E, 3, E], &nll), Counted { nats: 7.0, tokens: 3 });
        assert_eq!(paper(&[E, E], &nll), Counted { nats: 1.0, tokens: 1 });
        assert_eq!(paper(&[1], &nll), Counted::default());
        assert_eq!(paper(&[], &[]), Counted::default());
        let total = Counted::total(&[paper(&[1, 2], &nll), paper(&[1, 2, 3], &nll)]);
        assert_eq!((total.nats, total.tokens), (4.0, 3));
        assert!((total.perplexity() - (4.0_f64 / 3.0).exp()).abs() < 1e-12);
    }
}
