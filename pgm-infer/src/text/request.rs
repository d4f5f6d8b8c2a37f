//! Rows of a template: where its text and its blanks stand.

use pgm_model::config::MAX_LENGTH;

use super::model::TextModel;
use super::template::Part;
use crate::InferError;
use crate::sample::SampleRequest;

impl TextModel {
    /// A row that starts with BOS and the parts of a template; positions after them are open up to `length` tokens.
    ///
    /// Without `length` a template whose blanks all have a length is as long as its parts. Plain text is continued to the
    /// trained length, and blanks of free length fill the row up to it. Only with `length` is a row longer than that.
    ///
    /// # Errors
    /// [`InferError::Request`] when the parts do not fit into `length` or leave nothing to fill in.
    pub fn request(&self, parts: &[Part], length: Option<usize>, seed: u64) -> Result<SampleRequest, InferError> {
        self.request_within(self.config().backbone().length, parts, length, seed)
    }

    /// As [`request`](Self::request); `most` is the largest row without a `length`.
    pub(crate) fn request_within(
        &self,
        most: usize,
        parts: &[Part],
        length: Option<usize>,
        seed: u64,
    ) -> Result<SampleRequest, InferError> {
        let texts = parts.iter().map(|part| match part {
            Part::Text(text) => self.encode(text),
            Part::Blank(_) | Part::Free => Ok(Vec::new()),
        });
        let texts = texts.collect::<Result<Vec<_>, _>>()?;
        let n_free = parts.iter().filter(|part| matches!(part, Part::Free)).count();
        let size = |(part, text): (&Part, &Vec<u32>)| match part {
            Part::Blank(count) => *count,
            _ => text.len(),
        };
        let fixed = parts.iter().zip(&texts).map(size).fold(1_usize, usize::saturating_add);
        let has_blank = parts.iter().any(|part| matches!(part, Part::Blank(_)));
        let next = fixed.saturating_add(n_free);
        if length.is_none() && next > most {
            let message = format!(
                "the text and its blanks need {next} tokens with BOS; the model's rows have {most}, and a longer one must be \
                 asked for with --length"
            );
            return Err(InferError::Request(message));
        }
        let length = length.unwrap_or(if has_blank && n_free == 0 { fixed } else { most });
        if length > MAX_LENGTH {
            return Err(InferError::Request(format!("--length is {length}, a row has at most {MAX_LENGTH} tokens")));
        }
        if next > length {
            let message = format!("the text and its blanks need {next} tokens with BOS, but --length is {length}");
            return Err(InferError::Request(message));
        }
        let room = length - fixed;
        let (mut given, mut next) = (vec![(0, self.config().backbone().bos_index as u32)], 1_usize);
        let mut n_seen = 0;
        for (part, text) in parts.iter().zip(&texts) {
            given.extend(text.iter().enumerate().map(|(index, &token)| (next + index, token)));
            next += match part {
                Part::Text(_) => text.len(),
                Part::Blank(count) => *count,
                Part::Free => {
                    n_seen += 1;
                    room / n_free + usize::from(n_seen <= room % n_free)
                }
            };
        }
        if given.len() == length {
            let message = format!("the text fills all {length} tokens; give a larger --length or a blank");
            return Err(InferError::Request(message));
        }
        Ok(SampleRequest { length, given, seed })
    }
}
