//! The answer to a request for pictures, and its stream.

use std::sync::Arc;

use axum::response::{Response, sse};
use serde::Serialize;
use utoipa::ToSchema;

use crate::picture::ImageModel;
use crate::serve::body::PictureFields;
use crate::serve::error::ApiError;
use crate::serve::metrics::unix_seconds;
use crate::serve::pictures::{DrawnPicture, PartialPicture, PictureEvent, Pictures};
use crate::serve::run::in_background;
use crate::serve::state::LoadedImages;
use crate::serve::stream::{Client, PICTURE_EVENTS, named_event, respond};

/// An answer.
#[derive(Serialize, ToSchema)]
pub struct Images {
    /// When the request was admitted, in seconds since 1970.
    created: u64,
    model: String,
    data: Vec<Image>,
    background: Background,
    output_format: OutputFormat,
    quality: Quality,
    /// Width and height, like 256x256.
    size: String,
    usage: ImageUsage,
}

/// What all pictures have in common, as the events have it.
#[derive(Clone, Serialize)]
struct Look {
    background: Background,
    output_format: OutputFormat,
    quality: Quality,
    size: String,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Background {
    Opaque,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum OutputFormat {
    Png,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Quality {
    Auto,
}

/// A picture.
#[derive(Serialize, ToSchema)]
pub struct Image {
    /// A PNG file in base64.
    b64_json: String,
    /// The number of its class; null for no class in particular.
    #[schema(required = true)]
    class: Option<usize>,
    /// The name of its class, or its number where it has none.
    #[schema(required = true)]
    class_name: Option<String>,
    seed: u64,
    /// Sampling steps.
    steps: usize,
}

/// Cells of pictures, which are OpenAI's image tokens.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
pub struct ImageUsage {
    /// Cells that were given.
    input_tokens: usize,
    #[schema(inline)]
    input_tokens_details: InputDetails,
    /// Cells that were drawn.
    output_tokens: usize,
    total_tokens: usize,
}

#[derive(Clone, Copy, Default, Serialize, ToSchema)]
struct InputDetails {
    image_tokens: usize,
    text_tokens: usize,
}

impl ImageUsage {
    fn new(n_given: usize, n_drawn: usize) -> Self {
        Self {
            input_tokens: n_given,
            input_tokens_details: InputDetails { image_tokens: n_given, text_tokens: 0 },
            output_tokens: n_drawn,
            total_tokens: n_given + n_drawn,
        }
    }
}

/// An event with an unfinished picture.
#[derive(Serialize)]
struct PartialEvent<'a> {
    r#type: &'a str,
    b64_json: String,
    created_at: u64,
    partial_image_index: usize,
    #[serde(flatten)]
    look: &'a Look,
    // Ours: which picture it is, and how far it is.
    index: usize,
    step: usize,
    n_steps: usize,
}

/// An event with a picture.
#[derive(Serialize)]
struct CompletedEvent<'a> {
    r#type: &'a str,
    created_at: u64,
    #[serde(flatten)]
    image: Image,
    #[serde(flatten)]
    look: &'a Look,
    usage: ImageUsage,
    index: usize,
    model: &'a str,
}

/// How the answer to one request is written.
pub struct ImageFormat {
    created: u64,
    model: String,
    // The first word of the events' names.
    kind: &'static str,
    look: Look,
    stream: bool,
    n_partial: usize,
}

impl ImageFormat {
    /// The form of an answer with pictures of this width and height.
    pub fn new(model: &str, kind: &'static str, fields: &PictureFields, (width, height): (usize, usize)) -> Self {
        let look = Look {
            background: Background::Opaque,
            output_format: OutputFormat::Png,
            quality: Quality::Auto,
            size: format!("{width}x{height}"),
        };
        let stream = fields.stream == Some(true);
        Self { created: unix_seconds(), model: model.to_string(), kind, look, stream, n_partial: fields.n_partial() }
    }

    /// Whether events are sent.
    pub fn is_stream(&self) -> bool {
        self.stream
    }

    /// Unfinished pictures of each picture.
    pub fn n_partial(&self) -> usize {
        self.n_partial
    }

    /// The answer in one piece.
    pub fn answer(self, pictures: Vec<DrawnPicture>, model: &ImageModel) -> Images {
        let sum = |of: fn(&DrawnPicture) -> usize| pictures.iter().map(of).sum();
        let usage = ImageUsage::new(sum(|picture| picture.n_given), sum(|picture| picture.n_drawn));
        let data = pictures.into_iter().map(|picture| image(picture, model)).collect();
        let Look { background, output_format, quality, size } = self.look;
        Images { created: self.created, model: self.model, data, background, output_format, quality, size, usage }
    }

    /// The answer as a stream. A client that reads too slowly loses the rest of it.
    pub fn stream(self, pictures: Pictures, model: Arc<LoadedImages>) -> Response {
        respond(PICTURE_EVENTS, |client| Arc::new(self).send(pictures, model, client))
    }

    async fn send(
        self: Arc<Self>,
        mut pictures: Pictures,
        model: Arc<LoadedImages>,
        client: Client,
    ) -> Result<(), ApiError> {
        while let Some(event) = pictures.next().await? {
            let (format, model) = (Arc::clone(&self), Arc::clone(&model));
            // A file of many pixels takes a while to be written as JSON.
            let write = move || match event {
                PictureEvent::Partial(partial) => format.partial(partial),
                PictureEvent::Done(picture) => format.completed(picture, model.engine.model()),
            };
            let event = in_background(move || Ok(write())).await?;
            client.send(event, pictures.deadline(), || pictures.late()).await?;
        }
        Ok(())
    }

    fn partial(&self, partial: PartialPicture) -> sse::Event {
        let name = format!("{}.partial_image", self.kind);
        let (step, n_steps) = partial.steps;
        let data = PartialEvent {
            r#type: &name,
            b64_json: partial.png,
            created_at: unix_seconds(),
            partial_image_index: partial.index,
            look: &self.look,
            index: partial.number,
            step,
            n_steps,
        };
        named_event(&name, &data)
    }

    fn completed(&self, picture: DrawnPicture, model: &ImageModel) -> sse::Event {
        let name = format!("{}.completed", self.kind);
        let data = CompletedEvent {
            r#type: &name,
            created_at: unix_seconds(),
            look: &self.look,
            usage: ImageUsage::new(picture.n_given, picture.n_drawn),
            index: picture.number,
            image: image(picture, model),
            model: &self.model,
        };
        named_event(&name, &data)
    }
}

fn image(picture: DrawnPicture, model: &ImageModel) -> Image {
    Image {
        b64_json: picture.png,
        class: picture.class,
        class_name: picture.class.map(|class| model.image().class_name(class)),
        seed: picture.seed,
        steps: picture.steps,
    }
}
