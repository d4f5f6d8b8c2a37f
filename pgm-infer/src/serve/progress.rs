//! A sample while it is decoded: the text so far, and the part of it that cannot change any more.

use crate::engine::{Task, TaskInput};
use crate::sample::{Denoiser, RowChange};
use crate::text::canvas::Canvas;
use crate::text::denoise::{DenoiseStep, DenoiseText};
use crate::text::layout::BlankLayout;
use crate::{OrderKind, SamplingPath, TextModel};

/// A sample of a stream.
pub struct SampleProgress {
    seed: u64,
    stop: Vec<String>,
    eos: Option<u32>,
    // Whether decoded tokens may be masked again, so that no text is final before the end.
    remasks: bool,
    canvas: Canvas,
    // Only where the steps are told.
    denoise: Option<DenoiseText>,
    // The tokens before the first blank, and the positions of that blank.
    before: Vec<u32>,
    blank: BlankLayout,
    // Tokens from the start of the blank that were decoded without a gap when they were last read.
    n_read: usize,
    sent: String,
}

impl SampleProgress {
    /// The samples of `tasks`, in the order of the answer. With `tells_steps`, [`start`](Self::start) and
    /// [`apply`](Self::apply) describe the steps.
    ///
    /// # Panics
    /// If a task is not given as a row.
    pub fn of_tasks(tasks: &[Task], model: &TextModel, tells_steps: bool) -> Vec<Self> {
        let eos = model.config().backbone().eos_index as u32;
        let sample = |(number, (task, index, n_steps)): (usize, (&Task, usize, Option<usize>))| {
            let TaskInput::Row(row) = &task.text else { panic!("a server's task is given as a row") };
            let blank = row.layout.blanks.first().cloned().unwrap_or_default();
            let canvas = Canvas::of_row(row);
            let seed = task.seed.wrapping_add(index as u64);
            Self {
                seed,
                stop: task.stop.clone(),
                eos: task.ends_at_eos.then_some(eos),
                remasks: matches!(task.settings.order, OrderKind::Remask { .. }),
                before: canvas.prefix(0..blank.positions.start),
                denoise: n_steps.map(|n_steps| DenoiseText::new(number, (seed, n_steps), &canvas, model)),
                canvas,
                blank,
                n_read: 0,
                sent: String::new(),
            }
        };
        let denoiser = tells_steps.then(|| model.denoiser(SamplingPath::Clean));
        let all = tasks.iter().flat_map(|task| {
            let n_steps = denoiser.as_ref().map(|denoiser| n_steps(task, denoiser.as_ref()));
            (0..task.n).map(move |index| (task, index, n_steps))
        });
        all.enumerate().map(sample).collect()
    }

    /// The sample's seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The state before the first step.
    pub fn start(&self) -> Option<DenoiseStep> {
        Some(self.denoise.as_ref()?.start(&self.canvas))
    }

    /// Applies a step, and describes it; none for a step that changes nothing.
    pub fn apply(&mut self, steps: (usize, usize), change: &RowChange, model: &TextModel) -> Option<DenoiseStep> {
        self.canvas.apply(change);
        self.denoise.as_mut()?.apply(steps, change, &self.canvas, model)
    }

    /// The final text that was not returned yet: decoded without a gap from the start of the first blank, and certain to
    /// stay.
    pub fn new_text(&mut self, model: &TextModel) -> Option<String> {
        if self.remasks {
            return None;
        }
        let mut prefix = self.canvas.prefix(self.blank.positions.clone());
        if prefix.len() == self.n_read {
            return None;
        }
        self.n_read = prefix.len();
        if let Some(end) = prefix.iter().position(|&token| Some(token) == self.eos) {
            prefix.truncate(end);
        }
        let is_whole = prefix.len() == self.blank.positions.len();
        while !is_whole && prefix.last().is_some_and(|&token| model.is_byte_token(token)) {
            prefix.pop();
        }
        let mut tokens = self.before.clone();
        tokens.append(&mut prefix);
        let text = model.decode_after(&tokens, self.before.len()).ok()?;
        let text = settled(self.blank.own_text(&text, is_whole), &self.stop);
        let new = text.strip_prefix(self.sent.as_str()).filter(|new| !new.is_empty())?.to_string();
        self.sent.push_str(&new);
        Some(new)
    }

    /// The end of the finished text, without what [`new_text`](Self::new_text) returned.
    pub fn rest<'a>(&self, text: &'a str) -> &'a str {
        // A decoder may have changed earlier text; both are compared as far as they agree.
        let common = self.sent.char_indices().zip(text.chars()).take_while(|((_, a), b)| a == b);
        &text[common.last().map_or(0, |((at, a), _)| at + a.len_utf8())..]
    }
}

// Steps of a task's rows: those of the borders count, and an order may choose others than the settings say.
fn n_steps(task: &Task, denoiser: &dyn Denoiser) -> usize {
    let TaskInput::Row(row) = &task.text else { return task.settings.steps };
    denoiser.row(&row.request, &task.settings).map_or(task.settings.steps, |row| row.n_steps())
}

// The part of a text that stays whatever follows. It ends before an incomplete character, before a stop string, and before
// the beginning of what may become a stop string.
fn settled<'a>(text: &'a str, stop: &[String]) -> &'a str {
    let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
    if let Some(at) = stop.iter().filter_map(|stop| text.find(stop.as_str())).min() {
        return &text[..at];
    }
    let begins_stop = |at: &usize| stop.iter().any(|stop| stop.starts_with(&text[*at..]));
    let at = text.char_indices().map(|(at, _)| at).find(begins_stop);
    &text[..at.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::settled;

    #[test]
    fn only_text_that_cannot_change_is_settled() {
        let stop = ["END".to_string(), "\n\n".to_string()];
        let cases = [
            ("abc", "abc"),
            ("abE", "ab"),
            ("abEN", "ab"),
            ("abEND x", "ab"),
            ("a\n", "a"),
            ("a\nb", "a\nb"),
            ("é\u{fffd}", "é"),
        ];
        for (text, expected) in cases {
            assert_eq!(settled(text, &stop), expected, "{text:?}");
        }
        assert_eq!(settled("abE", &[]), "abE");
    }
}
