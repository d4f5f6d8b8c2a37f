//! A picture with its class, its seed and its earlier versions.

use std::sync::Arc;

use pgm_infer::Picture;

/// A picture as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The picture.
    pub picture: Picture,
    /// Whether each pixel is still open, in rows from the top; empty when none is.
    pub open: Vec<bool>,
}

impl Shown {
    /// A picture and whether each of its pixels is open.
    pub fn new(picture: Picture, open: Vec<bool>) -> Arc<Self> {
        let open = if open.contains(&true) { open } else { Vec::new() };
        Arc::new(Self { picture, open })
    }

    /// A picture without open pixels.
    pub fn complete(picture: Picture) -> Arc<Self> {
        Arc::new(Self { picture, open: Vec::new() })
    }

    /// A picture of which nothing is known.
    pub fn blank((width, height, channels): (usize, usize, usize)) -> Arc<Self> {
        let picture = Picture::filled(width, height, &vec![0; channels]);
        Arc::new(Self { picture, open: vec![true; width * height] })
    }

    /// Number of open pixels.
    pub fn n_open(&self) -> usize {
        self.open.iter().filter(|open| **open).count()
    }
}

/// A picture of the grid, or one that was opened from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawing {
    /// The class's name, or the file's; empty for no class in particular.
    pub name: String,
    /// The text that names its class, see [`classes::parse`](super::classes::parse).
    pub class: String,
    /// The seed that drew it; absent for a file.
    pub seed: Option<u64>,
    /// As it is now.
    pub shown: Arc<Shown>,
    /// Before each refill, the last one last.
    pub before: Vec<Arc<Shown>>,
}

impl Drawing {
    /// Takes a refilled picture over; the picture before can be brought back.
    pub fn replace(&mut self, shown: Arc<Shown>) {
        self.before.push(std::mem::replace(&mut self.shown, shown));
    }

    /// Brings the picture before the last refill back; false when there is none.
    pub fn undo(&mut self) -> bool {
        let before = self.before.pop();
        let is_undone = before.is_some();
        self.shown = before.unwrap_or_else(|| self.shown.clone());
        is_undone
    }

    /// Whether nothing of it is open.
    pub fn is_complete(&self) -> bool {
        self.shown.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refill_is_undone_to_the_picture_before() {
        let picture = |value| Shown::complete(Picture::filled(2, 2, &[value]));
        let (name, class) = ("a".to_string(), "a".to_string());
        let mut drawing = Drawing { name, class, seed: Some(1), shown: picture(1), before: Vec::new() };
        assert!(!drawing.undo());
        drawing.replace(picture(2));
        drawing.replace(picture(3));
        assert!(drawing.undo() && drawing.shown == picture(2));
        assert!(drawing.undo() && drawing.shown == picture(1));
        assert!(!drawing.undo() && drawing.shown == picture(1));
        assert_eq!((Shown::blank((3, 2, 1)).n_open(), drawing.shown.n_open()), (6, 0));
    }
}
