//! `POST /v1/images/generations` and `/v1/images/edits`: pictures in OpenAI's form.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::image_answer::{ImageFormat, Images};
use super::image_samples::{check_pixels, check_size, classes, overrides};
use super::image_upload::edit_of;
use super::read::{read, read_edit};
use super::responses::{GenerateErrors, StreamEvent};
use crate::InferError;
use crate::picture::EditRun;
use crate::sample::SampleSettings;
use crate::serve::body::{EditBody, GenerationBody, RequestBody};
use crate::serve::error::{ApiError, ErrorBody};
use crate::serve::pictures::{Drawing, PictureSample, Pictures};
use crate::serve::resolve;
use crate::serve::run::{RunningRequest, in_background};
use crate::serve::state::{Admission, LoadedImages, Server};
use crate::serve::stream::answer;
use crate::settings::ImageOverrides;

/// Draws pictures
///
/// OpenAI's images. The class is what class, or else prompt names; without either the pictures are of no class in
/// particular. With stream, the event image_generation.completed carries each picture, after as many events
/// image_generation.partial_image as partial_images asks for, fewer where there are fewer steps.
#[utoipa::path(
    post,
    path = "/v1/images/generations",
    operation_id = "images",
    request_body = GenerationBody,
    responses(
        (status = 200, description = "The pictures, or their stream.", content(
            (Images = "application/json"),
            (StreamEvent = "text/event-stream"),
        )),
        GenerateErrors,
    ),
)]
pub async fn generations(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let body: GenerationBody = read(&server, request).await?;
    let model = Arc::clone(server.images(body.picture.model.as_deref())?);
    body.picture.classes()?;
    let n_pictures = resolve::n_samples(body.picture.n_pictures(), 1, server.limits())?;
    // The queue's places are taken before the body is checked, and kept until then even if the client leaves.
    let admission = model.admit(n_pictures, server.limits())?;
    let (admission, samples, settings, format) = in_background({
        let (model, limits) = (Arc::clone(&model), *server.limits());
        move || {
            body.check()?;
            let (fields, images) = (&body.picture, model.engine.model());
            let (width, height, _) = images.codec().shape();
            check_size(fields, (width, height))?;
            check_pixels(body.picture.n_pictures(), (width, height), &limits)?;
            let classes = classes(fields, images)?;
            let overrides = ImageOverrides {
                has_class: classes.iter().any(Option::is_some),
                as_published: body.as_published == Some(true),
                temp_warmup: body.temp_warmup,
                ..overrides(fields, images, &limits)?
            };
            let settings = overrides.settings(images)?;
            let seed = resolve::seed(fields.seed(), classes.len())?;
            let sample = |(number, class): (usize, Option<usize>)| {
                let seed = seed.wrapping_add(number as u64);
                PictureSample { class, seed, drawing: Drawing::new(images.request(class, seed)) }
            };
            let samples: Vec<PictureSample> = classes.into_iter().enumerate().map(sample).collect();
            let format = ImageFormat::new(&model.name, "image_generation", fields, (width, height));
            Ok((admission, samples, settings, format))
        }
    })
    .await?;
    respond(&server, &model, admission, samples, settings, format).await
}

/// Edits a picture
///
/// OpenAI's edits. What mask marks is drawn again, or the pixels in box, or the picture is continued beyond its edges by
/// outpaint. What is known stays as it is; with a codec the cells beside the region are drawn again, too, and blended. A
/// picture that is larger than the model's is edited in windows, one after the other.
#[utoipa::path(
    post,
    path = "/v1/images/edits",
    operation_id = "edit_image",
    request_body(content(
        (EditBody = "application/json"),
        (EditBody = "multipart/form-data"),
    )),
    responses(
        (status = 200, description = "The edited pictures, or their stream.", content(
            (Images = "application/json"),
            (StreamEvent = "text/event-stream"),
        )),
        (status = 403, description = "A page of another site posted a form.", body = ErrorBody),
        GenerateErrors,
    ),
)]
pub async fn edits(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let (body, turn) = read_edit(&server, request).await?;
    let model = Arc::clone(server.images(body.picture.model.as_deref())?);
    body.picture.classes()?;
    let n_pictures = resolve::n_samples(body.picture.n_pictures(), 1, server.limits())?;
    let admission = model.admit(n_pictures, server.limits())?;
    let (admission, samples, settings, format) = in_background({
        let (model, limits) = (Arc::clone(&model), *server.limits());
        move || {
            // The next body is read when the pictures of this one are decoded and dropped.
            let _turn = turn;
            body.check()?;
            let (fields, images) = (&body.picture, model.engine.model());
            let classes = classes(fields, images)?;
            let has_class = classes.iter().any(Option::is_some);
            let settings = ImageOverrides { has_class, ..overrides(fields, images, &limits)? }.settings(images)?;
            let (edit, n_windows) = edit_of(&body, images, &limits)?;
            let size = edit.region().size();
            check_size(fields, size)?;
            check_pixels(classes.len(), size, &limits)?;
            let seed = resolve::seed(fields.seed(), classes.len())?;
            let sample = |(number, class): (usize, Option<usize>)| {
                let seed = seed.wrapping_add(number as u64);
                let run = EditRun::new(images, Arc::clone(&edit), class, seed)?;
                Ok(PictureSample { class, seed, drawing: Drawing::Edit(Box::new(run), n_windows) })
            };
            let samples = classes.into_iter().enumerate().map(sample).collect::<Result<Vec<_>, InferError>>()?;
            let format = ImageFormat::new(&model.name, "image_edit", fields, size);
            Ok((admission, samples, settings, format))
        }
    })
    .await?;
    respond(&server, &model, admission, samples, settings, format).await
}

async fn respond(
    server: &Server,
    model: &Arc<LoadedImages>,
    admission: Admission,
    samples: Vec<PictureSample>,
    settings: SampleSettings,
    format: ImageFormat,
) -> Result<Response, ApiError> {
    let running = RunningRequest::new(server, &model.name, admission);
    let pictures = Pictures::start(&running, model, samples, settings, format.n_partial());
    let model = Arc::clone(model);
    if format.is_stream() {
        return Ok(format.stream(pictures, model));
    }
    let pictures = pictures.collect().await?;
    answer(running, move || Ok(format.answer(pictures, model.engine.model()))).await
}
