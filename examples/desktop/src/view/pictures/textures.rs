//! Pictures as textures. A texture is uploaded again only when its picture has changed.

use std::collections::HashMap;
use std::sync::Arc;

use eframe::egui::{Color32, ColorImage, Context, TextureFilter, TextureHandle, TextureId, TextureOptions};
use pgm_infer::Picture;

use crate::pictures::drawing::Shown;

/// Share of the colour of open pixels in the pixels that are open.
const COVER: f32 = 0.75;
/// Each pixel of a small picture stays a square.
const OPTIONS: TextureOptions = TextureOptions { minification: TextureFilter::Linear, ..TextureOptions::NEAREST };

/// Which texture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A picture of the grid.
    Grid(usize),
    /// The picture on the canvas.
    Canvas,
}

/// The textures of the pictures that were drawn last.
#[derive(Default)]
pub struct Textures {
    known: HashMap<Key, (Arc<Shown>, TextureHandle)>,
}

impl std::fmt::Debug for Textures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Textures").field("n", &self.known.len()).finish_non_exhaustive()
    }
}

impl Textures {
    /// The texture of a picture; open pixels are covered by a colour.
    pub fn get(&mut self, context: &Context, key: Key, shown: &Arc<Shown>, open: Color32) -> TextureId {
        match self.known.get_mut(&key) {
            Some((known, texture)) => {
                if !Arc::ptr_eq(known, shown) {
                    texture.set(colors(shown, open), OPTIONS);
                    *known = shown.clone();
                }
                texture.id()
            }
            None => {
                let texture = context.load_texture("picture", colors(shown, open), OPTIONS);
                let id = texture.id();
                self.known.insert(key, (shown.clone(), texture));
                id
            }
        }
    }

    /// Frees the textures of a grid that has become smaller.
    pub fn keep(&mut self, n: usize) {
        self.known.retain(|key, _| matches!(key, Key::Canvas) || matches!(key, Key::Grid(index) if *index < n));
    }
}

/// A picture as egui takes it.
pub fn color_image(picture: &Picture) -> ColorImage {
    let color = |pixel: &[u8]| match *pixel {
        [red, green, blue] => Color32::from_rgb(red, green, blue),
        _ => Color32::from_gray(pixel[0]),
    };
    let pixels = picture.pixels().chunks_exact(picture.channels()).map(color).collect();
    ColorImage::new([picture.width(), picture.height()], pixels)
}

fn colors(shown: &Shown, open: Color32) -> ColorImage {
    let mut image = color_image(&shown.picture);
    for (pixel, _) in image.pixels.iter_mut().zip(&shown.open).filter(|(_, open)| **open) {
        *pixel = pixel.lerp_to_gamma(open, COVER);
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_pixels_are_covered_and_the_others_are_exact() {
        let grey = Picture::new(3, 1, 1, vec![0, 100, 200]);
        let open = vec![false, true, false];
        let image = colors(&Shown { picture: grey.clone(), open }, Color32::WHITE);
        assert_eq!((image.pixels[0], image.pixels[2]), (Color32::BLACK, Color32::from_gray(200)));
        assert!(image.pixels[1].r() > 200);
        assert_eq!(color_image(&grey.with_channels(3)).pixels[1], Color32::from_gray(100));
        let context = Context::default();
        let mut textures = Textures::default();
        let shown = Shown::blank((2, 2, 3));
        let id = textures.get(&context, Key::Grid(1), &shown, Color32::RED);
        assert_eq!(textures.get(&context, Key::Grid(1), &shown, Color32::RED), id);
        textures.keep(1);
        assert!(textures.known.is_empty());
    }
}
