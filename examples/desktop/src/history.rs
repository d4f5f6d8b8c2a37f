//! Earlier results, newest first, with the text, seed and settings that reproduce them.

use std::collections::VecDeque;

use pgm_infer::text::canvas::Segment;
use serde::{Deserialize, Serialize};

use crate::settings::AppSettings;

/// The history keeps this many entries and drops the oldest.
const MAX_ENTRIES: usize = 100;

/// A piece of a finished text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextPiece {
    /// Given text.
    Given(String),
    /// Text that the model decoded.
    Written(String),
}

/// One result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The text with its blanks.
    pub template: String,
    /// The result.
    pub text: String,
    /// The result in pieces.
    pub pieces: Vec<TextPiece>,
    /// The seed.
    pub seed: u64,
    /// The settings.
    pub settings: AppSettings,
    /// The model's name.
    pub model: String,
    /// Sampling steps.
    pub steps: usize,
    /// Duration in seconds.
    pub seconds: f64,
}

/// The earlier results, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History {
    entries: VecDeque<HistoryEntry>,
}

impl History {
    /// Adds the newest result.
    pub fn push(&mut self, entry: HistoryEntry) {
        self.entries.push_front(entry);
        self.entries.truncate(MAX_ENTRIES);
    }

    /// The results, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &HistoryEntry> {
        self.entries.iter()
    }

    /// A result by its index; 0 is the newest.
    pub fn get(&self, index: usize) -> Option<&HistoryEntry> {
        self.entries.get(index)
    }

    /// Removes all results.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

/// The pieces of a finished text. Open segments are skipped.
pub fn pieces(segments: &[Segment]) -> Vec<TextPiece> {
    let mut pieces: Vec<TextPiece> = Vec::new();
    for segment in segments {
        match (segment, pieces.last_mut()) {
            (Segment::Open { .. }, _) => {}
            (Segment::Given { text }, Some(TextPiece::Given(last))) => last.push_str(text),
            (Segment::Given { text }, _) => pieces.push(TextPiece::Given(text.clone())),
            (Segment::Decoded { text } | Segment::New { text }, Some(TextPiece::Written(last))) => last.push_str(text),
            (Segment::Decoded { text } | Segment::New { text }, _) => pieces.push(TextPiece::Written(text.clone())),
        }
    }
    pieces
}

/// The pieces as segments of a canvas.
pub fn segments(pieces: &[TextPiece]) -> Vec<Segment> {
    let segment = |piece: &TextPiece| match piece {
        TextPiece::Given(text) => Segment::Given { text: text.clone() },
        TextPiece::Written(text) => Segment::Decoded { text: text.clone() },
    };
    pieces.iter().map(segment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_pieces_merge_and_open_segments_are_skipped() {
        let text = |text: &str| text.to_string();
        let shown = [
            Segment::Given { text: text("The ") },
            Segment::New { text: text("c") },
            Segment::Decoded { text: text("at") },
            Segment::Open { n: 3 },
            Segment::Given { text: text(".") },
        ];
        let found = pieces(&shown);
        assert_eq!(
            found,
            [TextPiece::Given(text("The ")), TextPiece::Written(text("cat")), TextPiece::Given(text("."))]
        );
        assert_eq!(pieces(&segments(&found)), found);
    }

    #[test]
    fn the_newest_is_first_and_the_oldest_are_dropped() {
        let mut history = History::default();
        for seed in 0..MAX_ENTRIES as u64 + 5 {
            history.push(HistoryEntry {
                template: "{1}".into(),
                text: "a".into(),
                pieces: Vec::new(),
                seed,
                settings: AppSettings::default(),
                model: "m".into(),
                steps: 1,
                seconds: 0.1,
            });
        }
        assert_eq!(history.iter().count(), MAX_ENTRIES);
        assert_eq!(history.get(0).map(|entry| entry.seed), Some(MAX_ENTRIES as u64 + 4));
    }
}
