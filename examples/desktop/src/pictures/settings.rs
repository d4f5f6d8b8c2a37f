//! The settings of drawing, as they are saved, and the sampler's settings made from them.

use pgm_infer::sample::{Curve, Guidance, GuidanceSchedule};
use pgm_infer::settings::curve_schedule;
use pgm_infer::{DrawSettings, ImageModel, OrderKind, SampleSettings};
use serde::{Deserialize, Serialize};

use super::classes;
use crate::settings::sentence;

/// Pictures of a grid, at most.
pub const MOST_PICTURES: usize = 1024;
/// Pixels of a grid's pictures together, at most.
const MOST_PIXELS: usize = 1 << 25;
/// A model with so many classes draws all of them at first.
const FEW_CLASSES: usize = 16;

/// The settings in the side panel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PictureSettings {
    /// The model that these settings were made for.
    pub model: String,
    /// The classes, see [`classes::parse`].
    pub classes: String,
    /// Pictures of each class.
    pub n: usize,
    /// Sampling steps.
    pub steps: usize,
    /// One of [`OrderKind::NAMES`].
    pub order: String,
    /// The weight of guidance; 0 is none.
    pub guidance: f64,
    /// Whether the weight rises from 0 over the steps.
    pub rises: bool,
    /// The temperature divides the logits; 0 takes the most probable token.
    pub temperature: f64,
    /// The seed as a number; empty for a seed from the clock.
    pub seed: String,
}

impl Default for PictureSettings {
    fn default() -> Self {
        let plain = SampleSettings::for_images(&pgm_infer::GenerationConfig::default());
        Self {
            model: String::new(),
            classes: String::new(),
            n: 4,
            steps: plain.steps,
            order: plain.order.name().to_string(),
            guidance: 0.0,
            rises: false,
            temperature: plain.draw.temperature,
            seed: String::new(),
        }
    }
}

impl PictureSettings {
    /// The defaults of a model with its name; of the settings before, only the seed and the number of pictures stay.
    pub fn for_model(&self, model: &ImageModel, name: &str) -> Self {
        let defaults = SampleSettings::for_image_model(model);
        let n_classes = model.image().n_classes;
        let first = if n_classes <= FEW_CLASSES { n_classes } else { 1 };
        Self {
            model: name.to_string(),
            classes: classes::format(&(0..first).collect::<Vec<_>>(), model),
            n: self.n,
            steps: defaults.steps,
            order: defaults.order.name().to_string(),
            temperature: defaults.draw.temperature,
            seed: self.seed.clone(),
            ..Self::default()
        }
    }

    /// Class and seed of each picture: picture i has the seed plus i.
    ///
    /// # Errors
    /// One sentence for a class that does not exist and for too many pictures.
    pub fn pictures(&self, model: &ImageModel, seed: u64) -> Result<Vec<(Option<usize>, u64)>, String> {
        let classes = classes::parse(&self.classes, model)?;
        let (n, (width, height, _)) = (classes.len().saturating_mul(self.n), model.codec().shape());
        let most = (MOST_PIXELS / (width * height)).clamp(1, MOST_PICTURES);
        if n == 0 {
            return Err("No picture was asked for; at least 1 of each class is needed.".into());
        }
        if n > most {
            let (classes, each) = (classes.len(), self.n);
            return Err(format!("{each} of each of {classes} classes are {n} pictures; at most {most} can be drawn."));
        }
        let all = classes.iter().flat_map(|&class| (0..self.n).map(move |_| class));
        Ok(all.zip(0..).map(|(class, index)| (class, seed.wrapping_add(index))).collect())
    }

    /// The sampler's settings. Guidance needs a class.
    ///
    /// # Errors
    /// One sentence for a setting that is out of range.
    pub fn sampler(&self, model: &ImageModel, has_class: bool) -> Result<SampleSettings, String> {
        let order = self.order.parse::<OrderKind>().map_err(|error| sentence(&error))?;
        let defaults = SampleSettings::for_image_model(model);
        let schedule = if self.rises { GuidanceSchedule::Linear } else { GuidanceSchedule::Constant };
        let weight = if has_class { self.guidance } else { 0.0 };
        let settings = SampleSettings {
            steps: self.steps,
            order,
            schedule: curve_schedule(Curve::Arccos, order),
            draw: DrawSettings { temperature: self.temperature, ..defaults.draw },
            guidance: Guidance { weight, schedule },
            ..defaults
        };
        settings.validate().map_err(|error| sentence(&error.to_string()))?;
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::tiny::tiny;

    #[test]
    fn a_grid_has_its_classes_in_turn_and_a_seed_for_each_picture() {
        let model = tiny(["a", "b", "c"]);
        let settings = PictureSettings { n: 2, classes: "c, a".into(), ..PictureSettings::default() };
        let expected = [(Some(2), 5), (Some(2), 6), (Some(0), 7), (Some(0), 8)];
        assert_eq!(settings.pictures(&model, 5).unwrap(), expected);
        let many = PictureSettings { n: 2000, ..settings.clone() };
        assert!(many.pictures(&model, 0).unwrap_err().contains("4000 pictures; at most 1024"));
        assert!(PictureSettings { n: 0, ..settings }.pictures(&model, 0).unwrap_err().contains("at least 1"));
    }

    #[test]
    fn a_model_begins_with_its_own_defaults() {
        let model = tiny(["a", "b", "c"]);
        let before = PictureSettings { n: 9, seed: "3".into(), temperature: 0.1, ..PictureSettings::default() };
        let settings = before.for_model(&model, "m");
        assert_eq!((settings.classes.as_str(), settings.n, &*settings.seed), ("all", 9, "3"));
        assert_eq!((settings.steps, settings.order.as_str(), settings.temperature), (32, "halton", 1.0));
    }

    #[test]
    fn guidance_without_a_class_is_none_and_wrong_settings_are_a_sentence() {
        let model = tiny(["a", "b", "c"]);
        let settings = PictureSettings { guidance: 2.0, rises: true, ..PictureSettings::default() };
        assert_eq!(settings.sampler(&model, false).unwrap().guidance.weight, 0.0);
        let guidance = settings.sampler(&model, true).unwrap().guidance;
        assert_eq!((guidance.weight, guidance.schedule), (2.0, GuidanceSchedule::Linear));
        let wrong = PictureSettings { steps: 0, ..PictureSettings::default() }.sampler(&model, true).unwrap_err();
        assert_eq!(wrong, "Steps 0 must be at least 1.");
        let wrong = PictureSettings { order: "spiral".into(), ..settings }.sampler(&model, true).unwrap_err();
        assert!(wrong.starts_with("Spiral is not an order"));
    }
}
