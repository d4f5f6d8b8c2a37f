//! A picture of the window.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use eframe::egui::{ColorImage, Context};

/// A picture of the window that was asked for.
#[derive(Debug)]
pub struct Screenshot {
    path: PathBuf,
    image: Receiver<Arc<ColorImage>>,
}

impl Screenshot {
    /// Asks for one, which becomes a file.
    pub fn request(context: &Context, path: PathBuf) -> Self {
        let (sender, image) = channel();
        let wake = context.clone();
        context.request_screenshot(move |image| {
            let _ = sender.send(image);
            wake.request_repaint();
        });
        Self { path, image }
    }

    /// Saves it, if it is there.
    ///
    /// # Errors
    /// A sentence when the window has one colour, or when the file cannot be written.
    pub fn is_saved(&self) -> Result<bool, String> {
        let Ok(image) = self.image.try_recv() else { return Ok(false) };
        if image.pixels.iter().all(|pixel| *pixel == image.pixels[0]) {
            return Err(format!("the window is empty instead of {}", self.path.display()));
        }
        save(&image, &self.path)?;
        Ok(true)
    }
}

fn save(image: &ColorImage, path: &Path) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{} cannot be written: {error}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    }
    let file = std::fs::File::create(path).map_err(|error| failed(&error))?;
    let [width, height] = image.size;
    let mut encoder = png::Encoder::new(std::io::BufWriter::new(file), width as u32, height as u32);
    encoder.set_color(png::ColorType::Rgb);
    let bytes: Vec<u8> = image.pixels.iter().flat_map(|pixel| [pixel.r(), pixel.g(), pixel.b()]).collect();
    let mut writer = encoder.write_header().map_err(|error| failed(&error))?;
    writer.write_image_data(&bytes).map_err(|error| failed(&error))?;
    writer.finish().map_err(|error| failed(&error))
}
