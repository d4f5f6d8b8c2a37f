//! What has been written, newest first, with what is needed to write it again.

use std::collections::VecDeque;

use pgm_infer::text::canvas::Segment;
use serde::{Deserialize, Serialize};

use crate::settings::Settings;

/// More than this nobody scrolls through; the oldest go.
const MOST: usize = 100;

/// A stretch of a finished text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// It was given.
    Given(String),
    /// The model wrote it.
    Written(String),
}

/// One result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The text with its blanks.
    pub template: String,
    /// The text without them.
    pub text: String,
    /// The same in stretches.
    pub pieces: Vec<Piece>,
    /// The seed that was used, whether typed or from the clock.
    pub seed: u64,
    /// The settings that were used.
    pub settings: Settings,
    /// The model's name.
    pub model: String,
    /// Steps that were taken.
    pub steps: usize,
    /// How long they took.
    pub seconds: f64,
}

/// The results.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History {
    entries: VecDeque<Entry>,
}

impl History {
    /// Adds a result in front.
    pub fn push(&mut self, entry: Entry) {
        self.entries.push_front(entry);
        self.entries.truncate(MOST);
    }

    /// The newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// A result by its place, 0 being the newest.
    pub fn get(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

/// The stretches of a text in which nothing is new any more; open ones have no text.
pub fn pieces(segments: &[Segment]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for segment in segments {
        match (segment, pieces.last_mut()) {
            (Segment::Open { .. }, _) => {}
            (Segment::Given { text }, Some(Piece::Given(last))) => last.push_str(text),
            (Segment::Given { text }, _) => pieces.push(Piece::Given(text.clone())),
            (Segment::Decoded { text } | Segment::New { text }, Some(Piece::Written(last))) => last.push_str(text),
            (Segment::Decoded { text } | Segment::New { text }, _) => pieces.push(Piece::Written(text.clone())),
        }
    }
    pieces
}

/// The stretches as a canvas would show them.
pub fn segments(pieces: &[Piece]) -> Vec<Segment> {
    let segment = |piece: &Piece| match piece {
        Piece::Given(text) => Segment::Given { text: text.clone() },
        Piece::Written(text) => Segment::Decoded { text: text.clone() },
    };
    pieces.iter().map(segment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_merge_and_open_stretches_go() {
        let text = |text: &str| text.to_string();
        let shown = [
            Segment::Given { text: text("The ") },
            Segment::New { text: text("c") },
            Segment::Decoded { text: text("at") },
            Segment::Open { n: 3 },
            Segment::Given { text: text(".") },
        ];
        let found = pieces(&shown);
        assert_eq!(found, [Piece::Given(text("The ")), Piece::Written(text("cat")), Piece::Given(text("."))]);
        assert_eq!(pieces(&segments(&found)), found);
    }

    #[test]
    fn the_newest_is_first_and_the_oldest_go() {
        let mut history = History::default();
        for seed in 0..MOST as u64 + 5 {
            history.push(Entry {
                template: "{1}".into(),
                text: "a".into(),
                pieces: Vec::new(),
                seed,
                settings: Settings::default(),
                model: "m".into(),
                steps: 1,
                seconds: 0.1,
            });
        }
        assert_eq!(history.iter().count(), MOST);
        assert_eq!(history.get(0).map(|entry| entry.seed), Some(MOST as u64 + 4));
    }
}
