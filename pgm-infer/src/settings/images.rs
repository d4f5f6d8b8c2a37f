//! The settings of models of pictures.

use pgm_model::{ModelConfig, WeightDtype};

use super::{Overrides, curve_schedule};
use crate::InferError;
use crate::picture::ImageModel;
use crate::sample::order::OrderKind;
use crate::sample::{
    AsPublished, Curve, Guidance, GuidanceSchedule, PublishedSampler, Refresh, SampleSettings, Schedule,
};

impl SampleSettings {
    /// The settings of a model of image codes, which encodes clean tokens anew as often as it was trained for.
    pub fn for_image_model(model: &ImageModel) -> Self {
        Self { refresh: Refresh::of_model(model.config()), ..Self::for_images(model.generation()) }
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
    /// See [`DrawSettings::temperature`](crate::DrawSettings::temperature).
    pub temperature: Option<f64>,
    /// See [`DrawSettings::top_k`](crate::DrawSettings::top_k).
    pub top_k: Option<usize>,
    /// See [`DrawSettings::top_p`](crate::DrawSettings::top_p).
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
