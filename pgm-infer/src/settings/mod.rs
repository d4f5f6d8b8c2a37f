//! How a model is sampled unless a caller says otherwise: the only place where the defaults of command, server, C
//! interface, desktop and evaluation are put together.
//!
//! A value comes from the caller's [`Overrides`], else from the folder's `generation_config.json`, else from here.

#[cfg(feature = "files")]
mod images;

use pgm_model::ModelConfig;

#[cfg(feature = "files")]
pub use images::ImageOverrides;

use crate::sample::draw::DrawSettings;
use crate::sample::order::OrderKind;
use crate::sample::{Curve, Guidance, Refresh, SampleSettings, Schedule};
use crate::text::{GenerationConfig, TextModel};

/// Steps, unless the model's folder or the caller says otherwise.
pub const DEFAULT_STEPS: usize = 128;

impl Default for SampleSettings {
    fn default() -> Self {
        Self {
            steps: DEFAULT_STEPS,
            schedule: Schedule::default(),
            order: OrderKind::default(),
            draw: DrawSettings::default(),
            guidance: Guidance::default(),
            alternatives: 0,
            refresh: Refresh::default(),
            as_published: None,
        }
    }
}

/// Steps of a model of image codes, unless its folder or the caller says otherwise.
pub const DEFAULT_IMAGE_STEPS: usize = 32;

impl GenerationConfig {
    // The folder's draw, completed by `plain`.
    fn draw(&self, plain: DrawSettings) -> DrawSettings {
        DrawSettings {
            temperature: self.temperature.unwrap_or(plain.temperature),
            top_k: self.top_k.unwrap_or(plain.top_k),
            top_p: self.top_p.unwrap_or(plain.top_p),
        }
    }
}

impl SampleSettings {
    /// The settings of a model of image codes: its folder's, completed by those of the paper's tables, Halton's order with
    /// the curve arccos.
    pub fn for_images(generation: &GenerationConfig) -> Self {
        let plain = Self::default();
        Self {
            steps: generation.steps.unwrap_or(DEFAULT_IMAGE_STEPS),
            schedule: Schedule::Curve(Curve::Arccos),
            order: generation.order.unwrap_or(OrderKind::Halton { roll: false }),
            draw: generation.draw(plain.draw),
            ..plain
        }
    }

    /// The settings of a model: its folder's, completed by the defaults.
    pub fn for_model(model: &TextModel) -> Self {
        let (generation, plain) = (model.generation(), Self::default());
        let draw = generation.draw(plain.draw);
        let steps = generation.steps.unwrap_or(plain.steps);
        let order = generation.order.unwrap_or(plain.order);
        let (schedule, refresh) = (default_schedule(model.config()), Refresh::of_model(model.config()));
        Self { steps, draw, order, schedule, refresh, ..plain }
    }
}

/// The schedule of a kind of model: equal shares, but binomial counts for the masked baseline, as its authors sample it.
pub fn default_schedule(config: &ModelConfig) -> Schedule {
    match config {
        ModelConfig::Partition(_) | ModelConfig::Autoregressive(_) | ModelConfig::MaskGit(_) => Schedule::Uniform,
        ModelConfig::Masked(_) => Schedule::Binomial,
    }
}

/// The schedule of a curve in an order, as the public samplers of images follow it: those that rank positions count from 0.
pub fn curve_schedule(curve: Curve, order: OrderKind) -> Schedule {
    if order.has_candidates() { Schedule::CurveFromZero(curve) } else { Schedule::Curve(curve) }
}

/// The settings that a caller changes; absent ones keep their value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overrides {
    /// See [`SampleSettings::steps`].
    pub steps: Option<usize>,
    /// See [`SampleSettings::schedule`].
    pub schedule: Option<Schedule>,
    /// See [`SampleSettings::order`].
    pub order: Option<OrderKind>,
    /// See [`DrawSettings::temperature`].
    pub temperature: Option<f64>,
    /// See [`DrawSettings::top_k`].
    pub top_k: Option<usize>,
    /// See [`DrawSettings::top_p`].
    pub top_p: Option<f64>,
    /// See [`SampleSettings::guidance`].
    pub guidance: Option<Guidance>,
    /// See [`SampleSettings::alternatives`].
    pub alternatives: Option<usize>,
    /// See [`SampleSettings::refresh`].
    pub refresh: Option<Refresh>,
}

impl Overrides {
    /// `settings` with what is set here. The ranges are not checked, see [`SampleSettings::validate`].
    #[must_use]
    pub fn apply(&self, settings: SampleSettings) -> SampleSettings {
        SampleSettings {
            steps: self.steps.unwrap_or(settings.steps),
            schedule: self.schedule.unwrap_or(settings.schedule),
            order: self.order.unwrap_or(settings.order),
            draw: DrawSettings {
                temperature: self.temperature.unwrap_or(settings.draw.temperature),
                top_k: self.top_k.unwrap_or(settings.draw.top_k),
                top_p: self.top_p.unwrap_or(settings.draw.top_p),
            },
            guidance: self.guidance.unwrap_or(settings.guidance),
            alternatives: self.alternatives.unwrap_or(settings.alternatives),
            refresh: self.refresh.unwrap_or(settings.refresh),
            as_published: settings.as_published,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_change_what_they_set_and_nothing_else() {
        let settings = SampleSettings { steps: 7, alternatives: 2, ..SampleSettings::default() };
        let same = Overrides::default().apply(settings);
        assert_eq!((same.steps, same.order, same.draw, same.alternatives), (7, settings.order, settings.draw, 2));
        let overrides = Overrides {
            steps: Some(3),
            schedule: Some(Schedule::Binomial),
            order: Some(OrderKind::Dilated),
            top_p: Some(0.5),
            ..Overrides::default()
        };
        let changed = overrides.apply(settings);
        assert_eq!((changed.steps, changed.schedule, changed.order), (3, Schedule::Binomial, OrderKind::Dilated));
        assert_eq!(changed.draw, DrawSettings { top_p: 0.5, ..settings.draw });
    }
}
