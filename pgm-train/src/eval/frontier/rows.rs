//! The held-out rows, and samples as they are judged.

use pgm_data::{DataFolder, Mode, RowOrder, Split};
use pgm_infer::TextModel;

use super::settings::FrontierSettings;
use crate::TrainError;
use crate::judge::Sample;

/// Held-out rows, drawn with the seed; all of them when the split has no more. `model` decodes their text.
///
/// # Errors
/// [`TrainError::Config`] when the split has fewer than two rows; the data's errors.
pub(super) fn held_out(
    data: &DataFolder,
    model: &TextModel,
    settings: &FrontierSettings,
) -> Result<Vec<Sample>, TrainError> {
    let split = if settings.split == "train" { Split::Train } else { Split::Validation };
    let rows = data.rows(split)?;
    if rows.len() < 2 {
        let problem =
            format!("the {} split has fewer than two rows; prepare data with more held-out text", settings.split);
        return Err(TrainError::Config { origin: "--data".to_string(), problem });
    }
    let chosen = RowOrder::new(settings.seed, rows.len()).step(0, settings.samples.min(rows.len()));
    chosen.into_iter().map(|row| sample(rows.row(row)?.tokens, data, model)).collect()
}

/// A row as it is judged. Of padded data a row ends with its first EOS after the first token: what follows is no text.
///
/// # Errors
/// When the tokens cannot be decoded.
pub(super) fn sample(mut tokens: Vec<u32>, data: &DataFolder, model: &TextModel) -> Result<Sample, TrainError> {
    if data.manifest().mode == Mode::Pad {
        let eos = model.config().backbone().eos_index as u32;
        tokens.truncate(end(&tokens, eos));
    }
    Ok(Sample { text: model.decode_with_special(&tokens)?, tokens: Some(tokens) })
}

fn end(tokens: &[u32], eos: u32) -> usize {
    let after_first = tokens.iter().skip(1).position(|&token| token == eos);
    after_first.map_or(tokens.len(), |place| place + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_padded_row_ends_with_its_first_eos_after_the_first_token() {
        for (tokens, length) in
            [(&[9, 1, 2, 9, 9][..], 4), (&[9, 9, 9], 2), (&[9, 1, 2], 3), (&[9], 1), (&[][..], 0), (&[1, 2, 9, 3], 3)]
        {
            assert_eq!(end(tokens, 9), length, "{tokens:?}");
        }
    }
}
