//! From the fields of a request for pictures to classes and settings.

use crate::picture::ImageModel;
use crate::sample::order::OrderFlags;
use crate::sample::{SampleSettings, Schedule};
use crate::serve::body::{ClassName, Classes, PictureFields};
use crate::serve::error::ApiError;
use crate::serve::resolve::{named, order_of, parsed_refresh, steps};
use crate::serve::state::Limits;
use crate::settings::ImageOverrides;

/// Pictures of the largest size that a request may ask for.
const MOST_LARGE: usize = 4;

/// What the fields of a request change of the model's settings.
///
/// # Errors
/// Names the field that cannot be met.
pub fn overrides(fields: &PictureFields, model: &ImageModel, limits: &Limits) -> Result<ImageOverrides, ApiError> {
    let defaults = SampleSettings::for_image_model(model);
    let flags = OrderFlags {
        order: named("order", fields.order.as_deref())?,
        candidates: fields.candidates,
        entropy_bound: fields.entropy_bound,
        remask_rate: fields.remask_rate,
        noise: fields.noise,
        roll: fields.roll == Some(true),
    };
    let (curve, schedule) = match fields.schedule.as_deref() {
        Some("uniform") => (None, Some(Schedule::Uniform)),
        Some("binomial") => (None, Some(Schedule::Binomial)),
        name => (named("schedule", name)?, None),
    };
    Ok(ImageOverrides {
        steps: Some(steps(fields.steps, &defaults, limits)?),
        curve,
        schedule,
        order: Some(order_of(&flags, defaults.order)?),
        temperature: fields.temperature,
        top_k: fields.top_k,
        top_p: fields.top_p,
        refresh: fields.refresh()?.map(|text| parsed_refresh(&text)).transpose()?,
        cfg: fields.cfg,
        cfg_schedule: named("cfg_schedule", fields.cfg_schedule.as_deref())?,
        ..ImageOverrides::default()
    })
}

/// Checks the pixels of all pictures of a request, which are in memory together.
///
/// # Errors
/// When they are more than those of [`MOST_LARGE`] pictures of the largest size.
pub fn check_pixels(n: usize, (width, height): (usize, usize), limits: &Limits) -> Result<(), ApiError> {
    let most = limits.max_pixels.saturating_mul(MOST_LARGE);
    if n.saturating_mul(width).saturating_mul(height) > most {
        let message = format!(
            "{n} pictures of {width} x {height} are more than {most} pixels; ask for fewer at a time, or for smaller ones"
        );
        return Err(ApiError::field("n", message));
    }
    Ok(())
}

/// The class of each picture.
///
/// # Errors
/// Says which classes the model has.
pub fn classes(fields: &PictureFields, model: &ImageModel) -> Result<Vec<Option<usize>>, ApiError> {
    let field = fields.class_field();
    let class = |name: &ClassName| {
        let n_classes = model.image().n_classes;
        match name {
            ClassName::Number(number) if *number < n_classes => Ok(Some(*number)),
            // The error of a name that no class has.
            ClassName::Number(number) => model.class(&format!("{number}")).map(Some),
            ClassName::Name(name) => model.class(name).map(Some),
        }
        .map_err(|error| {
            let shown = shorten(ApiError::from(error));
            let advice = if field == "prompt" { "; the prompt is the name of a class, empty for none" } else { "" };
            ApiError { message: shown.message + advice, ..shown }.about(field)
        })
    };
    match fields.classes()? {
        Classes::None => Ok(vec![None; fields.n_pictures()]),
        Classes::Same(name) => Ok(vec![class(&name)?; fields.n_pictures()]),
        Classes::Each(names) => names.iter().map(class).collect(),
    }
}

// A prompt may be long; its beginning is enough to know it by.
fn shorten(error: ApiError) -> ApiError {
    const MOST: usize = 600;
    let n_chars = error.message.chars().count();
    if n_chars <= MOST {
        return error;
    }
    let (begin, end) = (error.message.chars().take(80), error.message.chars().skip(n_chars - MOST + 80));
    ApiError { message: begin.chain("… ".chars()).chain(end).collect(), ..error }
}

/// Checks that the size is that of the pictures.
///
/// # Errors
/// Says which size they have.
pub fn check_size(fields: &PictureFields, (width, height): (usize, usize)) -> Result<(), ApiError> {
    let Some(size) = fields.size.as_deref().filter(|size| *size != "auto") else { return Ok(()) };
    let sides = size.split_once('x').and_then(|(width, height)| width.parse().ok().zip(height.parse().ok()));
    match sides {
        Some(sides) if sides == (width, height) => Ok(()),
        Some(_) => {
            let message = format!("the pictures have {width}x{height} pixels, not {size}; leave size out, or say auto");
            Err(ApiError::field("size", message))
        }
        None => {
            let shown: String = size.chars().take(64).collect();
            let message = format!("size must be auto, or width and height like {width}x{height}, not {shown:?}");
            Err(ApiError::field("size", message))
        }
    }
}
