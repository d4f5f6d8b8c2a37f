//! Earlier grids, newest first, with the settings and the seed that reproduce them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::drawing::Drawing;
use super::settings::PictureSettings;

/// The history keeps this many entries and drops the oldest.
const MAX_ENTRIES: usize = 100;
/// So many of them keep their pictures while the program runs.
const MAX_GRIDS: usize = 8;

/// One grid.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PictureEntry {
    /// The settings.
    pub settings: PictureSettings,
    /// The seed of the first picture.
    pub seed: u64,
    /// Number of pictures.
    pub n: usize,
    /// The model's name.
    pub model: String,
    /// Duration in seconds.
    pub seconds: f64,
    /// The grid's number; 0 in an earlier run of the program.
    #[serde(skip)]
    pub grid_id: u64,
    /// The pictures; none in an earlier run of the program.
    #[serde(skip)]
    pub grid: Vec<Drawing>,
}

/// The earlier grids, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PictureHistory {
    entries: VecDeque<PictureEntry>,
}

impl PictureHistory {
    /// Adds the newest grid.
    pub fn push(&mut self, entry: PictureEntry) {
        self.entries.push_front(entry);
        self.entries.truncate(MAX_ENTRIES);
        if let Some(old) = self.entries.get_mut(MAX_GRIDS) {
            old.grid = Vec::new();
        }
    }

    /// The grids, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &PictureEntry> {
        self.entries.iter()
    }

    /// A grid by its index; 0 is the newest.
    pub fn get(&self, index: usize) -> Option<&PictureEntry> {
        self.entries.get(index)
    }

    /// Takes an edited picture of a grid over.
    pub fn update(&mut self, grid_id: u64, index: usize, drawing: &Drawing) {
        let entry = self.entries.iter_mut().find(|entry| entry.grid_id == grid_id);
        if let Some(known) = entry.and_then(|entry| entry.grid.get_mut(index)) {
            *known = drawing.clone();
        }
    }

    /// Removes all grids.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use pgm_infer::Picture;

    use super::*;
    use crate::pictures::drawing::Shown;

    #[test]
    fn old_grids_are_dropped_before_their_settings() {
        let drawing = |value| Drawing {
            name: "a".into(),
            class: "a".into(),
            seed: Some(1),
            shown: Shown::complete(Picture::filled(1, 1, &[value])),
            before: Vec::new(),
        };
        let mut history = PictureHistory::default();
        for seed in 1..=MAX_ENTRIES as u64 + 3 {
            let entry = PictureEntry { seed, grid_id: seed, grid: vec![drawing(0)], ..PictureEntry::default() };
            history.push(entry);
        }
        assert_eq!(history.iter().count(), MAX_ENTRIES);
        assert_eq!(history.iter().filter(|entry| !entry.grid.is_empty()).count(), MAX_GRIDS);
        history.update(MAX_ENTRIES as u64 + 3, 0, &drawing(9));
        assert_eq!(history.get(0).unwrap().grid, [drawing(9)]);
    }
}
