//! Two texts around a blank, cut to the length of a model's rows.

use crate::TextModel;
use crate::serve::error::ApiError;
use crate::text::TextRow;
use crate::text::request::RowPart;
use crate::text::template::Part;

/// A row that fits.
pub struct FittedSides {
    pub row: TextRow,
    /// Tokens of the blank.
    pub n_blank: usize,
    /// What was cut off on the left, and its tokens.
    pub left: (String, usize),
    /// What was cut off on the right, and its tokens.
    pub right: (String, usize),
}

// A text's tokens: where the text of each ends, in bytes.
struct Side<'a> {
    text: &'a str,
    ends: Vec<usize>,
}

impl<'a> Side<'a> {
    fn new(text: &'a str, model: &TextModel) -> Result<Self, ApiError> {
        Ok(Self { text, ends: model.encode_with_ends(text)?.1 })
    }

    fn n_tokens(&self) -> usize {
        self.ends.len()
    }

    // The text of the last `n` tokens, from the first whole character on, and what comes before it.
    fn last(&self, n: usize) -> (&'a str, &'a str) {
        let cut = self.n_tokens().saturating_sub(n);
        let mut at = cut.checked_sub(1).map_or(0, |last| self.ends[last]);
        while !self.text.is_char_boundary(at) {
            at += 1;
        }
        let (before, kept) = self.text.split_at(at);
        (kept, before)
    }

    // The text of the first `n` tokens, up to the last whole character, and what comes behind it.
    fn first(&self, n: usize) -> (&'a str, &'a str) {
        let n = n.min(self.n_tokens());
        let mut at =
            if n == self.n_tokens() { self.text.len() } else { n.checked_sub(1).map_or(0, |last| self.ends[last]) };
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        self.text.split_at(at)
    }
}

/// The row of a text, a blank and another text, at most `most` tokens long.
///
/// The blank has `n_predict` tokens, or as many as fit, but at least a quarter of the row where the texts fill it. What does
/// not fit then is cut off: the text before the blank on its left, the text behind it on its right. The text behind the
/// blank keeps a quarter of the given tokens, and more where the other one leaves room.
///
/// # Errors
/// When not even the blank fits, and when the tokenizer fails.
pub fn fit_sides(
    model: &TextModel,
    (before, after): (&str, &str),
    n_predict: Option<usize>,
    most: usize,
) -> Result<FittedSides, ApiError> {
    let room = most.saturating_sub(1);
    if room == 0 {
        let message = format!("at most {most} tokens with BOS leave no room for a blank");
        return Err(ApiError::field("n_predict", message));
    }
    let (before, after) = (Side::new(before, model)?, Side::new(after, model)?);
    let n_given = before.n_tokens() + after.n_tokens();
    let n_blank = n_predict.unwrap_or(room).min(room.div_ceil(4).max(room.saturating_sub(n_given))).max(1);
    let mut n_kept = room - n_blank;
    loop {
        let mut n_after = after.n_tokens().min(n_kept / 4);
        let n_before = before.n_tokens().min(n_kept - n_after);
        n_after = after.n_tokens().min(n_kept - n_before);
        let ((kept_before, left), (kept_after, right)) = (before.last(n_before), after.first(n_after));
        let text = |text: &str| (!text.is_empty()).then(|| RowPart::Template(Part::Text(text.to_string())));
        let blank = Some(RowPart::Template(Part::Blank(n_blank)));
        let parts: Vec<RowPart> = [text(kept_before), blank, text(kept_after)].into_iter().flatten().collect();
        let row = model.row_of_parts(&parts, 0)?;
        // A text that is cut may have more tokens than it had as a part of the whole one.
        let n_over = row.request.length.saturating_sub(most);
        if n_over == 0 {
            let (left, right) = (left.to_string(), right.to_string());
            let n_cut = (before.n_tokens() - n_before, after.n_tokens() - n_after);
            return Ok(FittedSides { row, n_blank, left: (left, n_cut.0), right: (right, n_cut.1) });
        }
        if n_kept == 0 {
            let message = format!("a blank of {n_blank} tokens does not fit into {most} tokens with BOS");
            return Err(ApiError::field("n_predict", message));
        }
        n_kept = n_kept.saturating_sub(n_over);
    }
}
