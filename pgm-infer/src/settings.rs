//! How a model is sampled unless a caller says otherwise: the only place where the defaults of command, server, C
//! interface, desktop and evaluation are put together.
//!
//! A value comes from the caller's [`Overrides`], else from the folder's `generation_config.json`, else from here.

use pgm_model::{ModelConfig, WeightDtype};

use crate::InferError;
use crate::picture::ImageModel;
use crate::sample::draw::DrawSettings;
use crate::sample::order::OrderKind;
use crate::sample::{
    AsPublished, Curve, Guidance, GuidanceSchedule, PublishedSampler, Refresh, SampleSettings, Schedule,
};
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
            order: OrderKind::Halton { roll: false },
            draw: generation.draw(plain.draw),
            ..plain
        }
    }

    /// The settings of a model of image codes, which encodes clean tokens anew as often as it was trained for.
    pub fn for_image_model(model: &ImageModel) -> Self {
        Self { refresh: Refresh::of_model(model.config()), ..Self::for_images(model.generation()) }
    }

    /// The settings of a model: its folder's, completed by the defaults.
    pub fn for_model(model: &TextModel) -> Self {
        let (generation, plain) = (model.generation(), Self::default());
        let draw = generation.draw(plain.draw);
        let steps = generation.steps.unwrap_or(plain.steps);
        let (schedule, refresh) = (default_schedule(model.config()), Refresh::of_model(model.config()));
        Self { steps, draw, schedule, refresh, ..plain }
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

/// What a caller changes of the settings of a model of pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ImageOverrides {
    /// See [`SampleSettings::steps`].
    pub steps: Option<usize>,
    /// The curve of the schedule; it counts before `schedule`.
    pub curve: Option<Curve>,
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
    /// See [`Guidance::weight`].
    pub cfg: Option<f64>,
    /// See [`Guidance::schedule`].
    pub cfg_schedule: Option<GuidanceSchedule>,
    /// See [`SampleSettings::refresh`].
    pub refresh: Option<Refresh>,
    /// Whether a class is asked for, so that guidance has something to count more.
    pub has_class: bool,
    /// Whether to sample as the public sampler of the model and the order does, see [`AsPublished`]. Also, the temperature
    /// multiplies the logits, and the weight of the class rises linearly (in MaskGIT with Halton's order it is constant).
    pub as_published: bool,
    /// See [`AsPublished::warm_up`].
    pub temp_warmup: Option<usize>,
}

impl ImageOverrides {
    /// The model's settings with what is set here, checked.
    ///
    /// # Errors
    /// [`InferError::Setting`] for a value out of its range, for guidance without a class or without a weight, and for a refresh
    /// of a model that keeps nothing.
    pub fn settings(&self, model: &ImageModel) -> Result<SampleSettings, InferError> {
        let defaults = SampleSettings::for_image_model(model);
        if let Some(refresh) = self.refresh.filter(|_| !matches!(model.config(), ModelConfig::Partition(_))) {
            let problem = "does not apply: only a partition model keeps what it has encoded";
            return Err(InferError::Setting { name: "--refresh", value: refresh.to_string(), problem });
        }
        let order = self.order.unwrap_or(defaults.order);
        let weight = self.cfg.unwrap_or(0.0);
        if !self.has_class && weight != 0.0 {
            let problem = "has no class to count more; give --class";
            return Err(InferError::Setting { name: "--cfg", value: weight.to_string(), problem });
        }
        if let (None, Some(schedule)) = (self.cfg, self.cfg_schedule) {
            let problem = "has no weight to change; give --cfg";
            return Err(InferError::Setting { name: "--cfg-schedule", value: schedule.name().into(), problem });
        }
        let as_published = self.published(model, order)?;
        // The public sampler of MaskGIT in Halton's order has a constant weight, all others have a linear one.
        let is_linear = as_published.is_some_and(|published| published.sampler != PublishedSampler::MaskGitHalton);
        let published = if is_linear { GuidanceSchedule::Linear } else { GuidanceSchedule::Constant };
        let guidance = Guidance { weight, schedule: self.cfg_schedule.unwrap_or(published) };
        let schedule = match (self.curve, self.schedule) {
            (Some(curve), _) => curve_schedule(curve, order),
            (None, Some(schedule)) => schedule,
            (None, None) => curve_schedule(Curve::Arccos, order),
        };
        let overrides = Overrides {
            steps: self.steps,
            schedule: Some(schedule),
            order: Some(order),
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            guidance: Some(guidance),
            alternatives: None,
            refresh: self.refresh,
        };
        let mut settings = SampleSettings { as_published, ..overrides.apply(defaults) };
        if self.as_published && settings.draw.temperature > 0.0 {
            settings.draw.temperature = 1.0 / settings.draw.temperature;
        }
        settings.validate()?;
        Ok(settings)
    }

    fn published(&self, model: &ImageModel, order: OrderKind) -> Result<Option<AsPublished>, InferError> {
        let wrong = |name, value: String, problem| Err(InferError::Setting { name, value, problem });
        if let (false, Some(n)) = (self.as_published, self.temp_warmup) {
            return wrong("--temp-warmup", n.to_string(), "belongs to --as-published");
        }
        if !self.as_published {
            return Ok(None);
        }
        let sampler = match (model.config(), order) {
            (ModelConfig::MaskGit(_), OrderKind::Halton { .. }) => PublishedSampler::MaskGitHalton,
            (ModelConfig::MaskGit(_), OrderKind::Confidence(_)) => PublishedSampler::MaskGitConfidence,
            (_, OrderKind::Halton { .. }) => PublishedSampler::PartitionHalton,
            (_, OrderKind::Confidence(_)) => PublishedSampler::PartitionConfidence,
            (_, order) => {
                let problem = "has no public sampler; with --as-published it must be halton or confidence";
                return wrong("--order", order.name().into(), problem);
            }
        };
        if let (OrderKind::Confidence(_), Some(n)) = (order, self.temp_warmup) {
            return wrong("--temp-warmup", n.to_string(), "belongs to the order halton");
        }
        if sampler == PublishedSampler::PartitionConfidence && model.weights() != WeightDtype::F32 {
            let problem = "runs with dropout, which needs weights in f32";
            return wrong("--as-published", "confidence".into(), problem);
        }
        let (has_registers, mask) = (model.image().registers > 0, model.config().backbone().mask_index as u32);
        Ok(Some(AsPublished { sampler, has_registers, mask, warm_up: self.temp_warmup.unwrap_or(0) }))
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
