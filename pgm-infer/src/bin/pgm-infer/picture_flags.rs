//! Flags of sampling pictures, which `generate` and `edit` share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use burn::tensor::Device;
use clap::Args;
use pgm_infer::picture::{CodecFolder, PictureCodec};
use pgm_infer::sample::order::{OrderFlags, OrderKind};
use pgm_infer::sample::{Curve, GuidanceSchedule, Refresh};
use pgm_infer::settings::ImageOverrides;
use pgm_infer::{ImageModel, SampleSettings, Schedule};
use pgm_model::{WeightDtype, model_folder};

/// What is asked of a model of pictures.
#[derive(Args)]
pub struct PictureFlags {
    /// Pictures: a class by its name or number, several as a,b,c, or all [default: no class in particular]
    #[arg(long, help_heading = "Pictures")]
    pub class: Option<String>,
    /// Pictures: how much the class counts; 0 is not guided
    #[arg(long, value_name = "WEIGHT", allow_negative_numbers = true, help_heading = "Pictures")]
    pub cfg: Option<f64>,
    /// Pictures: the weight in all steps, or rising linearly from 0: constant or linear [default: constant]
    #[arg(long, value_name = "NAME", help_heading = "Pictures")]
    pub cfg_schedule: Option<GuidanceSchedule>,
    /// Pictures: the codec of the model's codes; a model whose tokens are pixels needs none
    #[arg(long, value_name = "FOLDER", help_heading = "Pictures")]
    pub codec: Option<PathBuf>,
    /// Pictures: sample as the public sampler of the model and the order (halton or confidence) does, with its mistakes; see
    /// docs/image-sampling.md
    #[arg(long, help_heading = "Pictures")]
    pub as_published: bool,
    /// Pictures: with --as-published, halves the logits in the first steps [default: 0]
    #[arg(long, value_name = "STEPS", help_heading = "Pictures")]
    pub temp_warmup: Option<usize>,
}

/// How a step's tokens are drawn.
pub struct DrawFlags<'a> {
    pub steps: Option<usize>,
    pub curve: Option<Curve>,
    pub order: &'a OrderFlags,
    pub temperature: Option<f64>,
    pub top_k: Option<usize>,
    pub top_p: Option<f64>,
    pub refresh: Option<Refresh>,
}

impl PictureFlags {
    /// A flag that was given although the model writes text.
    pub fn given(&self) -> Option<&'static str> {
        let given = [
            (self.class.is_some(), "--class"),
            (self.cfg.is_some(), "--cfg"),
            (self.cfg_schedule.is_some(), "--cfg-schedule"),
            (self.codec.is_some(), "--codec"),
            (self.as_published, "--as-published"),
            (self.temp_warmup.is_some(), "--temp-warmup"),
        ];
        given.into_iter().find(|(given, _)| *given).map(|(_, name)| name)
    }

    /// Opens the model and its codec.
    pub fn model(&self, folder: &Path, device: &Device, weights: WeightDtype) -> anyhow::Result<ImageModel> {
        let codec = match &self.codec {
            Some(path) => {
                let codec = CodecFolder::open(path, device)?.for_model(&model_folder::load_config(folder)?)?;
                Some(Arc::new(codec) as Arc<dyn PictureCodec>)
            }
            None => None,
        };
        Ok(ImageModel::load(folder, codec, device)?.with_weight_dtype(weights)?)
    }

    /// The classes that `--class` names; no class without it.
    pub fn classes(&self, model: &ImageModel) -> anyhow::Result<Vec<Option<usize>>> {
        let Some(text) = &self.class else { return Ok(vec![None]) };
        // The name of a class may be "all", or have a comma.
        if let Ok(class) = model.class(text) {
            return Ok(vec![Some(class)]);
        }
        if text == "all" {
            return Ok((0..model.image().n_classes).map(Some).collect());
        }
        let classes = text.split(',').map(|name| Ok(Some(model.class(name.trim())?)));
        classes.collect::<anyhow::Result<Vec<_>>>()
    }

    /// The model's settings, overridden by the flags; a schedule that is given counts.
    pub fn settings(
        &self,
        model: &ImageModel,
        draw: &DrawFlags<'_>,
        schedule: Option<Schedule>,
    ) -> anyhow::Result<SampleSettings> {
        let defaults = SampleSettings::for_image_model(model);
        let order: OrderKind = draw.order.kind_or(defaults.order).map_err(|message| anyhow!(message))?;
        let overrides = ImageOverrides {
            steps: draw.steps,
            curve: draw.curve,
            schedule,
            order: Some(order),
            temperature: draw.temperature,
            top_k: draw.top_k,
            top_p: draw.top_p,
            refresh: draw.refresh,
            cfg: self.cfg,
            cfg_schedule: self.cfg_schedule,
            has_class: self.class.is_some(),
            as_published: self.as_published,
            temp_warmup: self.temp_warmup,
        };
        Ok(overrides.settings(model)?)
    }
}

/// The name that a picture of a class has in files.
pub fn class_name(model: &ImageModel, class: Option<usize>) -> String {
    class.map_or_else(String::new, |class| model.image().class_name(class))
}

/// The settings as part of a manifest.
pub fn describe(settings: &SampleSettings, seed: u64) -> serde_json::Value {
    let schedule = match settings.schedule {
        Schedule::Uniform => "uniform",
        Schedule::Binomial => "binomial",
        Schedule::Curve(curve) | Schedule::CurveFromZero(curve) => curve.name(),
    };
    serde_json::json!({
        "steps": settings.steps, "schedule": schedule, "decoding_order": settings.order,
        "temperature": settings.draw.temperature, "top_k": settings.draw.top_k, "top_p": settings.draw.top_p,
        "guidance": settings.guidance, "seed": seed, "as_published": settings.as_published.is_some(),
        "temp_warmup": settings.as_published.map_or(0, |published| published.warm_up),
    })
}
