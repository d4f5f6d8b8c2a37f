//! A picture while it fills.

use std::collections::VecDeque;

use super::model::ImageModel;
use super::pixels::Picture;
use crate::InferError;
use crate::sample::{RowChange, SampleRequest};

/// What an open part of a picture looks like.
const OPEN: u8 = 112;

/// The tokens of a picture so far.
#[derive(Clone, Debug)]
pub struct Filling {
    // Of each token of the grid.
    tokens: Vec<Option<u32>>,
}

impl Filling {
    /// The picture before the first step: given tokens are known.
    pub fn new(model: &ImageModel, request: &SampleRequest) -> Self {
        let grid = model.grid();
        let mut tokens = vec![None; grid.n_tokens()];
        for &(position, token) in &request.given {
            if let Some(index) = grid.index(position) {
                tokens[index] = Some(token);
            }
        }
        Self { tokens }
    }

    /// Takes over what a step changed.
    pub fn apply(&mut self, model: &ImageModel, change: &RowChange) {
        let grid = model.grid();
        for &position in &change.forgotten {
            if let Some(index) = grid.index(position) {
                self.tokens[index] = None;
            }
        }
        // A public sampler may draw a token that is no code; it is read as the last code.
        let last = (model.config().backbone().mask_index as u32).saturating_sub(1);
        for &(position, token) in &change.decoded {
            if let Some(index) = grid.index(position) {
                self.tokens[index] = Some(token.min(last));
            }
        }
    }

    /// Whether no cell is open.
    pub fn is_complete(&self) -> bool {
        self.tokens.iter().all(Option::is_some)
    }

    /// The picture as it is now. Open cells are grey; with a codec, whose neighbours they influence, they are decoded from the
    /// nearest known token and half grey.
    ///
    /// # Errors
    /// As [`PictureCodec::decode`](super::PictureCodec::decode).
    pub fn picture(&self, model: &ImageModel) -> Result<Picture, InferError> {
        let grid = model.grid();
        let known = self.nearest(grid.rows, grid.columns, grid.channels);
        let mut picture = model.codec().decode(&[&known])?.remove(0);
        let (width, height) = (picture.width(), picture.height());
        let is_exact = model.codec().is_exact();
        for y in 0..height {
            for x in 0..width {
                let cell = model.cell_at(x, y);
                let channels = picture.channels();
                for channel in 0..channels {
                    // A cell of codes has one token for all channels.
                    let token = cell * grid.channels + channel.min(grid.channels - 1);
                    if self.tokens[token].is_none() {
                        let value = &mut picture.pixel_mut(x, y)[channel];
                        *value = if is_exact { OPEN } else { value.midpoint(OPEN) };
                    }
                }
            }
        }
        Ok(picture)
    }

    /// Whether each cell of the grid has a token that is still open.
    pub fn open_cells(&self, model: &ImageModel) -> Vec<bool> {
        self.tokens.chunks(model.grid().channels).map(|tokens| tokens.contains(&None)).collect()
    }

    // Every token; an open one is that of the nearest known cell in the same channel, or 0 if none is known.
    fn nearest(&self, rows: usize, columns: usize, channels: usize) -> Vec<u32> {
        let mut tokens = self.tokens.clone();
        let mut queue: VecDeque<usize> = (0..tokens.len()).filter(|&index| tokens[index].is_some()).collect();
        while let Some(index) = queue.pop_front() {
            let (cell, channel) = (index / channels, index % channels);
            let (row, column) = (cell / columns, cell % columns);
            let neighbours = [
                (row > 0).then(|| cell - columns),
                (row + 1 < rows).then(|| cell + columns),
                (column > 0).then(|| cell - 1),
                (column + 1 < columns).then(|| cell + 1),
            ];
            for neighbour in neighbours.into_iter().flatten().map(|cell| cell * channels + channel) {
                if tokens[neighbour].is_none() {
                    tokens[neighbour] = tokens[index];
                    queue.push_back(neighbour);
                }
            }
        }
        tokens.into_iter().map(Option::unwrap_or_default).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_cell_takes_the_nearest_known_token_of_its_channel() {
        let mut filling = Filling { tokens: vec![None; 2 * 4 * 2] };
        assert_eq!(filling.nearest(2, 4, 2), [0; 16]);
        filling.tokens[0] = Some(5);
        filling.tokens[2 * 7] = Some(9);
        filling.tokens[1] = Some(3);
        let nearest = filling.nearest(2, 4, 2);
        let channel = |channel: usize| nearest.iter().copied().skip(channel).step_by(2).collect::<Vec<u32>>();
        assert_eq!(channel(0), [5, 5, 5, 9, 5, 5, 9, 9]);
        assert_eq!(channel(1), [3; 8]);
    }
}
