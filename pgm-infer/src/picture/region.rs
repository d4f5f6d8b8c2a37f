//! The part of a picture that is drawn again.

use image::DynamicImage;

use super::pixels::{Picture, decode, size};
use crate::InferError;

/// Values from which a mask's pixel is redrawn.
const WHITE: u8 = 128;

/// Which pixels of a picture are drawn again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    width: usize,
    height: usize,
    redrawn: Vec<bool>,
}

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelBox {
    /// Column of the left edge.
    pub x: usize,
    /// Row of the upper edge.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Region {
    /// The pixels of a rectangle.
    ///
    /// # Errors
    /// [`InferError::Request`] for a rectangle that is empty or reaches beyond the picture.
    pub fn of_box(picture: &Picture, area: PixelBox) -> Result<Self, InferError> {
        let PixelBox { x, y, width, height } = area;
        let (all, lines) = (picture.width(), picture.height());
        if width == 0 || height == 0 {
            return Err(InferError::Request(format!("the box {x},{y},{width},{height} has no pixel")));
        }
        let ends = x.checked_add(width).zip(y.checked_add(height));
        let Some((right, bottom)) = ends.filter(|&(right, bottom)| right <= all && bottom <= lines) else {
            let message = format!(
                "the box {x},{y},{width},{height} (left, top, width, height) reaches beyond the picture of {all} x {lines} \
                 pixels"
            );
            return Err(InferError::Request(message));
        };
        let inside = |index: usize| (x..right).contains(&(index % all)) && (y..bottom).contains(&(index / all));
        Ok(Self { width: all, height: lines, redrawn: (0..all * lines).map(inside).collect() })
    }

    /// The pixels that a mask marks: the transparent ones of a mask with transparent pixels, else the white ones.
    ///
    /// # Errors
    /// [`InferError::Request`] for a mask that is no picture, has another size or marks nothing; `origin` names it.
    pub fn of_mask(picture: &Picture, mask: &[u8], origin: &str) -> Result<Self, InferError> {
        let wrong = |problem: String| InferError::Request(format!("the mask {origin}: {problem}"));
        let (all, lines) = (picture.width(), picture.height());
        let check = |(width, height): (usize, usize)| {
            if (width, height) == (all, lines) {
                return Ok(());
            }
            let problem =
                format!("it has {width} x {height} pixels and the picture {all} x {lines}; they must be equal");
            Err(wrong(problem))
        };
        // A mask of another size is not decoded, however large it is. One may be turned by its Exif orientation.
        let header = size(mask).map_err(wrong)?;
        if header != (lines, all) {
            check(header)?;
        }
        let mask = decode(mask).map_err(wrong)?;
        let (width, height) = (mask.width() as usize, mask.height() as usize);
        check((width, height))?;
        let redrawn = marked(&mask);
        if !redrawn.contains(&true) {
            return Err(wrong("it marks nothing; what is to be drawn again must be white or transparent".into()));
        }
        Ok(Self { width, height, redrawn })
    }

    /// The transparent pixels of a picture, from the bytes of its file; none if it has no transparent pixel.
    ///
    /// # Errors
    /// [`InferError::Request`] for bytes that are no picture.
    pub fn of_transparency(bytes: &[u8]) -> Result<Option<Self>, InferError> {
        let image = decode(bytes).map_err(|problem| InferError::Request(format!("the picture: {problem}")))?;
        let (width, height) = (image.width() as usize, image.height() as usize);
        let redrawn: Vec<bool> = image.to_rgba8().pixels().map(|pixel| pixel.0[3] < WHITE).collect();
        Ok(redrawn.contains(&true).then_some(Self { width, height, redrawn }))
    }

    /// The marked pixels of a picture: a value for each, in rows from the top.
    ///
    /// # Errors
    /// [`InferError::Request`] for another number of values and when none is marked.
    pub fn of_pixels(picture: &Picture, redrawn: Vec<bool>) -> Result<Self, InferError> {
        let (width, height) = (picture.width(), picture.height());
        if redrawn.len() != width * height {
            let message = format!("the mask has {} values and the picture {} pixels", redrawn.len(), width * height);
            return Err(InferError::Request(message));
        }
        if !redrawn.contains(&true) {
            return Err(InferError::Request("the mask marks nothing that is to be drawn again".into()));
        }
        Ok(Self { width, height, redrawn })
    }

    /// Everything but a picture at a place in a larger one.
    pub(super) fn around(picture: &Picture, x: usize, y: usize, width: usize, height: usize) -> Self {
        let (right, bottom) = (x + picture.width(), y + picture.height());
        let outside = |index: usize| !(x..right).contains(&(index % width)) || !(y..bottom).contains(&(index / width));
        Self { width, height, redrawn: (0..width * height).map(outside).collect() }
    }

    /// Pixels of a row of the picture, and its rows.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// Whether a pixel is drawn again.
    ///
    /// # Panics
    /// Outside the picture.
    pub fn contains(&self, x: usize, y: usize) -> bool {
        assert!(x < self.width, "column {x} of {}", self.width);
        self.redrawn[y * self.width + x]
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.redrawn.contains(&true)
    }

    /// The smallest rectangle around the region; none if it is empty.
    pub(super) fn bounds(&self) -> Option<PixelBox> {
        let marked = || (0..self.redrawn.len()).filter(|&index| self.redrawn[index]);
        let columns = || marked().map(|index| index % self.width);
        let (x, right) = (columns().min()?, columns().max()?);
        let (y, bottom) = (marked().next()? / self.width, marked().next_back()? / self.width);
        Some(PixelBox { x, y, width: right + 1 - x, height: bottom + 1 - y })
    }

    /// The part of the region in a rectangle.
    pub(super) fn window(&self, area: PixelBox) -> Self {
        let PixelBox { x, y, width, height } = area;
        let line = |line: usize| &self.redrawn[(y + line) * self.width + x..][..width];
        Self { width, height, redrawn: (0..height).flat_map(line).copied().collect() }
    }

    pub(super) fn clear(&mut self, area: PixelBox) {
        for line in area.y..area.y + area.height {
            self.redrawn[line * self.width + area.x..][..area.width].fill(false);
        }
    }

    pub(super) fn n_pixels(&self) -> usize {
        self.redrawn.iter().filter(|&&redrawn| redrawn).count()
    }

    /// The cells of a grid over the region that hold one of its pixels, and all cells within `margin` of one.
    pub(super) fn cells(&self, rows: usize, columns: usize, margin: usize) -> Vec<bool> {
        let mut cells = vec![false; rows * columns];
        for index in (0..self.redrawn.len()).filter(|&index| self.redrawn[index]) {
            let row = index / self.width * rows / self.height;
            let column = index % self.width * columns / self.width;
            for row in row.saturating_sub(margin)..=(row + margin).min(rows - 1) {
                cells[row * columns..][column.saturating_sub(margin)..=(column + margin).min(columns - 1)].fill(true);
            }
        }
        cells
    }

    /// How much of the new picture each pixel takes: 1 in the region, less the farther away from it, by a Gaussian of this
    /// standard deviation in pixels.
    pub(super) fn soft(&self, deviation: f32) -> Vec<f32> {
        let hard: Vec<f32> = self.redrawn.iter().map(|&redrawn| f32::from(u8::from(redrawn))).collect();
        if deviation <= 0.0 {
            return hard;
        }
        let reach = (3.0 * deviation).ceil() as isize;
        let weight = |distance: isize| (-0.5 * (distance as f32 / deviation).powi(2)).exp();
        let total: f32 = (-reach..=reach).map(weight).sum();
        // Beyond an edge the mask goes on as at the edge.
        let blur = |values: &[f32], along_x: bool| -> Vec<f32> {
            let at = |index: usize, distance: isize| {
                let (x, y) = (index % self.width, index / self.width);
                let moved =
                    |place: usize, size: usize| (place as isize + distance).clamp(0, size as isize - 1) as usize;
                let (x, y) = if along_x { (moved(x, self.width), y) } else { (x, moved(y, self.height)) };
                values[y * self.width + x]
            };
            let sum = |index| (-reach..=reach).map(|distance| weight(distance) * at(index, distance)).sum::<f32>();
            (0..values.len()).map(|index| sum(index) / total).collect()
        };
        let blurred = blur(&blur(&hard, true), false);
        // The blurred mask is one half at a straight edge.
        hard.iter().zip(blurred).map(|(&hard, blurred)| hard.max((2.0 * blurred).min(1.0))).collect()
    }
}

fn marked(mask: &DynamicImage) -> Vec<bool> {
    let alpha: Vec<u8> = mask.to_rgba8().pixels().map(|pixel| pixel.0[3]).collect();
    if alpha.iter().any(|&alpha| alpha < WHITE) {
        return alpha.into_iter().map(|alpha| alpha < WHITE).collect();
    }
    mask.to_luma8().into_raw().into_iter().map(|value| value >= WHITE).collect()
}

#[cfg(test)]
mod tests {
    use image::codecs::png::PngEncoder;
    use image::{ExtendedColorType, ImageEncoder};

    use super::*;

    fn picture() -> Picture {
        Picture::filled(8, 6, &[50])
    }

    fn area(x: usize, y: usize, width: usize, height: usize) -> PixelBox {
        PixelBox { x, y, width, height }
    }

    #[test]
    fn a_box_marks_its_pixels_and_must_lie_inside() {
        let region = Region::of_box(&picture(), area(5, 1, 3, 2)).unwrap();
        assert_eq!((region.n_pixels(), region.bounds()), (6, Some(area(5, 1, 3, 2))));
        assert!(region.contains(7, 2) && !region.contains(4, 1));
        assert_eq!(region.window(area(4, 0, 4, 4)).bounds(), Some(area(1, 1, 3, 2)));
        let refused = |area| Region::of_box(&picture(), area).unwrap_err().to_string();
        assert!(refused(area(6, 0, 3, 1)).contains("beyond the picture of 8 x 6"));
        assert!(refused(area(0, usize::MAX, 1, 1)).contains("beyond"));
        assert!(refused(area(1, 1, 0, 4)).contains("no pixel"));
    }

    #[test]
    fn a_mask_marks_white_or_transparent_pixels_and_must_fit() {
        let mut white = Picture::filled(8, 6, &[0]);
        white.paste(&Picture::filled(2, 3, &[255]), 1, 2);
        let region = Region::of_mask(&picture(), &white.png().unwrap(), "mask.png").unwrap();
        assert_eq!((region.n_pixels(), region.bounds()), (6, Some(area(1, 2, 2, 3))));
        // White everywhere, transparent in one pixel.
        let mut rgba = vec![255_u8; 8 * 6 * 4];
        rgba[4 * (8 + 3) + 3] = 0;
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes).write_image(&rgba, 8, 6, ExtendedColorType::Rgba8).unwrap();
        assert_eq!(Region::of_mask(&picture(), &bytes, "m").unwrap().bounds(), Some(area(3, 1, 1, 1)));
        let refused =
            |mask: &Picture| Region::of_mask(&picture(), &mask.png().unwrap(), "m.png").unwrap_err().to_string();
        let error = refused(&Picture::filled(6, 8, &[255]));
        assert!(error.contains("m.png") && error.contains("6 x 8 pixels and the picture 8 x 6"), "{error}");
        assert!(refused(&Picture::filled(8, 6, &[0])).contains("marks nothing"));
        assert!(Region::of_mask(&picture(), b"GIF", "m").unwrap_err().to_string().contains("no PNG"));
    }

    #[test]
    fn cells_hold_a_pixel_of_the_region_or_are_next_to_one() {
        let region = Region::of_box(&picture(), area(4, 3, 1, 1)).unwrap();
        let marked = |cells: Vec<bool>| (0..cells.len()).filter(|&cell| cells[cell]).collect::<Vec<_>>();
        assert_eq!(marked(region.cells(3, 4, 0)), [6], "row 1, column 2");
        assert_eq!(marked(region.cells(3, 4, 1)), [1, 2, 3, 5, 6, 7, 9, 10, 11]);
        assert_eq!(marked(region.cells(6, 8, 0)), [28], "cells of one pixel");
    }

    #[test]
    fn a_mask_with_a_soft_edge_and_nothing_transparent_is_read_by_its_white_pixels() {
        let mut mask = image::RgbaImage::from_pixel(8, 6, image::Rgba([0, 0, 0, 255]));
        mask.put_pixel(2, 1, image::Rgba([255, 255, 255, 255]));
        mask.put_pixel(3, 1, image::Rgba([0, 0, 0, 250]));
        let mut bytes = Vec::new();
        PngEncoder::new(&mut bytes).write_image(&mask, 8, 6, ExtendedColorType::Rgba8).unwrap();
        let region = Region::of_mask(&picture(), &bytes, "m.png").unwrap();
        assert_eq!(region.n_pixels(), 1);
        assert_eq!(region, Region::of_box(&picture(), area(2, 1, 1, 1)).unwrap());
    }

    #[test]
    fn a_soft_mask_is_whole_in_the_region_and_falls_outside() {
        let wide = Picture::filled(40, 9, &[0]);
        let region = Region::of_box(&wide, area(0, 0, 20, 9)).unwrap();
        let soft = region.soft(4.0);
        let line = &soft[4 * 40..5 * 40];
        assert!(line[..20].iter().all(|&weight| weight == 1.0));
        assert!(line[20..].is_sorted_by(|a, b| a >= b) && line[20] < 1.0 && line[39] < 1e-3, "{line:?}");
        assert!((line[24] - 0.32).abs() < 0.1, "one deviation away: {}", line[24]);
        let hard = region.soft(0.0);
        assert!(hard.iter().enumerate().all(|(index, &weight)| (weight == 1.0) == (index % 40 < 20)));
    }
}
