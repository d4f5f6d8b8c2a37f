//! What a user does with the window in a frame.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use eframe::egui::{DroppedFile, Event, HoveredFile, RawInput};

/// What is done in one frame.
#[derive(Debug)]
pub enum Gesture {
    /// Something with the pointer.
    Pointer(Event),
    /// A file hovers over the window.
    Hover(PathBuf),
    /// A file is dropped onto the window.
    Drop(PathBuf),
}

#[derive(Debug)]
struct File(PathBuf);

impl DroppedFile for File {
    fn path(&self) -> &Path {
        &self.0
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        std::fs::read(&self.0).map_err(|error| error.to_string())
    }
}

impl Gesture {
    /// Adds it to a frame's input.
    pub fn add(self, input: &mut RawInput) {
        match self {
            Self::Pointer(event) => input.events.push(event),
            Self::Hover(path) => {
                input.hovered_files.push(HoveredFile { path: Some(path), ..HoveredFile::default() });
            }
            Self::Drop(path) => input.dropped_files.push(Arc::new(File(path))),
        }
    }
}
