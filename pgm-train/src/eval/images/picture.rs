//! A picture in memory.

/// A picture in red, green and blue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    height: usize,
    width: usize,
    values: Vec<u8>,
}

impl Picture {
    /// # Shapes
    /// values `[H, W, 3]`; `None` when they are not as many or there are none
    pub fn new(height: usize, width: usize, values: Vec<u8>) -> Option<Self> {
        (!values.is_empty() && values.len() == 3 * height * width).then_some(Self { height, width, values })
    }

    /// A picture of one channel becomes grey, of three stays.
    ///
    /// # Shapes
    /// values `[H, W, channels]`; `None` when they are not as many or there are none
    pub fn of_channels(height: usize, width: usize, values: &[u8]) -> Option<Self> {
        if values.len() == height * width {
            return Self::new(height, width, values.iter().flat_map(|&value| [value; 3]).collect());
        }
        Self::new(height, width, values.to_vec())
    }

    /// Rows of pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Pixels of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Its values with 3 channels, or with 1: that of red, which a grey picture has in all three.
    ///
    /// # Shapes
    /// `[H, W, channels]`
    pub fn channels(&self, channels: usize) -> Vec<u8> {
        if channels == 1 { self.values.iter().step_by(3).copied().collect() } else { self.values.clone() }
    }

    /// Its values, `[H, W, 3]`.
    pub fn values(&self) -> &[u8] {
        &self.values
    }
}
