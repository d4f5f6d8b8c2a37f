//! What the brush has marked on a picture.

/// A value for each pixel of a picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    width: usize,
    height: usize,
    marked: Vec<bool>,
    // Changes with every stroke.
    revision: u64,
}

impl Mask {
    /// Nothing is marked.
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height, marked: vec![false; width * height], revision: 0 }
    }

    /// Pixels of a row, and rows.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// The values, in rows from the top.
    pub fn marked(&self) -> &[bool] {
        &self.marked
    }

    /// Whether nothing is marked.
    pub fn is_empty(&self) -> bool {
        !self.marked.contains(&true)
    }

    /// Changes whenever the mask does.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Marks nothing.
    pub fn clear(&mut self) {
        self.marked.fill(false);
        self.revision += 1;
    }

    /// A stroke of a round brush from one point to another, in pixels from the left upper corner: it marks, or erases.
    pub fn stroke(&mut self, from: [f32; 2], to: [f32; 2], diameter: f32, erases: bool) {
        let radius = (diameter / 2.0).max(0.5);
        let range = |a: f32, b: f32, end: usize| {
            let (low, high) = (a.min(b) - radius, a.max(b) + radius);
            (low.floor().max(0.0) as usize).min(end)..(high.ceil().max(0.0) as usize).min(end)
        };
        let (columns, rows) = (range(from[0], to[0], self.width), range(from[1], to[1], self.height));
        for y in rows {
            for x in columns.clone() {
                let centre = [x as f32 + 0.5, y as f32 + 0.5];
                if distance(centre, from, to) <= radius {
                    self.marked[y * self.width + x] = !erases;
                }
            }
        }
        // A brush of one pixel marks the one under it, wherever in it the point is.
        let [x, y] = to;
        if x >= 0.0 && y >= 0.0 && (x as usize) < self.width && (y as usize) < self.height {
            self.marked[y as usize * self.width + x as usize] = !erases;
        }
        self.revision += 1;
    }
}

// Of a point from a line between two points.
fn distance(point: [f32; 2], from: [f32; 2], to: [f32; 2]) -> f32 {
    let (along, offset) = ([to[0] - from[0], to[1] - from[1]], [point[0] - from[0], point[1] - from[1]]);
    let length = along[0] * along[0] + along[1] * along[1];
    let share = if length > 0.0 { (along[0] * offset[0] + along[1] * offset[1]) / length } else { 0.0 };
    let share = share.clamp(0.0, 1.0);
    (offset[0] - share * along[0]).hypot(offset[1] - share * along[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(mask: &Mask) -> Vec<String> {
        let line = |line: &[bool]| line.iter().map(|&marked| if marked { '#' } else { '.' }).collect();
        mask.marked().chunks(mask.size().0).map(line).collect()
    }

    #[test]
    fn a_stroke_marks_a_band_and_the_eraser_takes_it_away() {
        let mut mask = Mask::new(7, 5);
        mask.stroke([1.5, 2.5], [5.5, 2.5], 2.4, false);
        assert_eq!(rows(&mask), [".......", ".#####.", "#######", ".#####.", "......."]);
        mask.stroke([3.1, 0.0], [3.1, 4.9], 1.0, true);
        assert_eq!(rows(&mask), [".......", ".##.##.", "###.###", ".##.##.", "......."]);
        let revision = mask.revision();
        mask.clear();
        assert!(mask.is_empty() && mask.revision() != revision);
    }

    #[test]
    fn a_stroke_outside_is_cut_off_and_the_smallest_brush_marks_one_pixel() {
        let mut mask = Mask::new(4, 3);
        mask.stroke([-20.0, -3.0], [-9.0, 40.0], 4.0, false);
        assert!(mask.is_empty());
        mask.stroke([2.9, 1.9], [2.9, 1.9], 1.0, false);
        assert_eq!(rows(&mask), ["....", "..#.", "...."]);
        mask.stroke([-5.0, 1.5], [50.0, 1.5], 1.0, false);
        assert_eq!(rows(&mask), ["....", "####", "...."]);
    }
}
