//! `POST /infill`: a template with blanks, or llama.cpp's prefix and suffix.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response, sse};
use serde::Serialize;
use utoipa::ToSchema;

use super::read::read;
use super::responses::GenerateErrors;
use crate::TextModel;
use crate::engine::{Task, TaskInput, TaskOutput};
use crate::serve::body::{InfillBody, RequestBody};
use crate::serve::error::ApiError;
use crate::serve::progress::DenoiseStep;
use crate::serve::resolve::{self, FinishReason, ResolvedRequest, check_length, n_replaced};
use crate::serve::run::{Run, StreamFormat, denoise_event, event, in_background};
use crate::serve::state::{Limits, Server};
use crate::text::template::{self, Part};

/// The default of `blank`: tokens of a `___` blank.
const DEFAULT_BLANK: usize = 8;

/// An answer.
#[derive(Default, Serialize, ToSchema)]
pub struct Infill {
    /// The generated text of all blanks; in the last event of a stream, what was not sent before.
    content: String,
    /// Whether the text is finished.
    stop: bool,
    model: String,
    /// The whole text.
    text: String,
    /// The generated text of each blank.
    blanks: Vec<String>,
    seed: u64,
    steps: usize,
    finish_reason: FinishReason,
    tokens: Vec<u32>,
    /// Positions in the order in which they were decoded.
    order: Vec<usize>,
    /// Log-probabilities of the drawn tokens in that order, in nats.
    log_probabilities: Vec<f64>,
    tokens_predicted: usize,
    tokens_evaluated: usize,
    timings: Timings,
}

/// How long a sample took.
#[derive(Default, Serialize, ToSchema)]
pub struct Timings {
    queued_ms: f64,
    predicted_ms: f64,
    predicted_per_second: f64,
}

/// An event of a stream but the last.
#[derive(Serialize)]
struct Chunk<'a> {
    content: &'a str,
    stop: bool,
    #[serde(flatten)]
    denoise: Option<DenoiseStep>,
}

/// Fills in blanks anywhere in a text
///
/// llama.cpp's form with input_prefix and input_suffix, or a template. With stream, as in completions; the last event has
/// stop = true and the whole answer.
#[utoipa::path(
    post,
    path = "/infill",
    operation_id = "infill",
    request_body = InfillBody,
    responses(
        (status = 200, description = "The answer, or its stream.", content(
            (Infill = "application/json"),
            (String = "text/event-stream"),
        )),
        GenerateErrors,
    ),
)]
pub async fn infill(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let body: InfillBody = read(&server, request).await?;
    let model = Arc::clone(server.model(body.common.model.as_deref())?);
    if body.n_predict == Some(0) {
        // Editors send this to make llama.cpp cache the prompt.
        body.check()?;
        let text = [body.input_prefix, body.prompt, body.input_suffix].into_iter().flatten().collect();
        return Ok(Json(Infill { text, stop: true, model: model.name.clone(), ..Infill::default() }).into_response());
    }
    // The queue's place is taken before the body is checked and tokenised, and kept until then even if the client
    // leaves.
    let admission = model.admit(1, server.limits())?;
    let (stream, tells_steps) = (body.common.stream == Some(true), body.common.wants_steps());
    let (admission, request) = in_background({
        let (model, limits) = (Arc::clone(&model), *server.limits());
        move || Ok((admission, resolve_infill(&body, model.engine.model(), &limits)?))
    })
    .await?;
    let n_replaced = request.tasks.first().map_or(0, n_replaced);
    let format =
        InfillFormat { model: model.name.clone(), tells_steps, n_prompt_tokens: request.n_prompt_tokens, n_replaced };
    let run = Run::start(&server, &model, admission, &request.tasks, stream)?;
    if stream {
        return Ok(run.stream(&request.tasks, format));
    }
    let outputs = run.collect().await?;
    let output = outputs.first().ok_or_else(ApiError::engine_ended)?;
    let content = output.blanks.iter().map(|blank| blank.text.as_str()).collect();
    Ok(Json(format.answer(content, output)).into_response())
}

fn resolve_infill(body: &InfillBody, model: &TextModel, limits: &Limits) -> Result<ResolvedRequest, ApiError> {
    body.check()?;
    let parts = match &body.template {
        Some(template) => template::parse(template, body.blank.unwrap_or(DEFAULT_BLANK))
            .map_err(|error| ApiError::from(error).about("template"))?,
        None => sides(body),
    };
    let settings = resolve::settings(&body.common, model, limits)?;
    let max_length = resolve::max_length(model, limits);
    // Blanks of a given length are counted before memory is allocated for them.
    let n_blank = parts.iter().map(|part| if let Part::Blank(n) = part { *n } else { 0 });
    check_length(n_blank.fold(1, usize::saturating_add), max_length, "template")?;
    if let Some(length) = body.length {
        check_length(length, max_length, "length")?;
    }
    let (before, after) = match body.template {
        Some(_) => ("template", "template"),
        None => ("input_prefix", "input_suffix"),
    };
    let row =
        model.row_within(max_length, &parts, body.length, 0).map_err(|error| ApiError::from(error).about(before))?;
    resolve::check_given(&row, model, before, after)?;
    check_length(row.request.length, max_length, "template")?;
    let n_prompt_tokens = row.n_given();
    let mut task = Task::new(TaskInput::Row(row));
    (task.settings, task.seed, task.stop) = (settings, resolve::seed(&body.common), body.common.stops()?);
    Ok(ResolvedRequest { tasks: vec![task], n_prompt_tokens })
}

// llama.cpp's form: a text, one blank, another text.
fn sides(body: &InfillBody) -> Vec<Part> {
    let text = |text: String| (!text.is_empty()).then_some(Part::Text(text));
    let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
    let n_predict = body.n_predict.and_then(|n| usize::try_from(n).ok());
    let before = text(or_empty(&body.input_prefix) + &or_empty(&body.prompt));
    let blank = n_predict.map_or(Part::Free, Part::Blank);
    [before, Some(blank), text(or_empty(&body.input_suffix))].into_iter().flatten().collect()
}

/// How the answer to one request is written.
struct InfillFormat {
    model: String,
    tells_steps: bool,
    n_prompt_tokens: usize,
    // Drawn tokens that stand for a given one.
    n_replaced: usize,
}

impl InfillFormat {
    fn answer(&self, content: String, output: &TaskOutput) -> Infill {
        let seconds = output.duration.as_secs_f64();
        let n = output.sampled.order.len().saturating_sub(self.n_replaced);
        Infill {
            content,
            stop: true,
            model: self.model.clone(),
            text: output.text.clone(),
            blanks: output.blanks.iter().map(|blank| blank.text.clone()).collect(),
            seed: output.seed,
            steps: output.steps,
            finish_reason: FinishReason::of(&output.finish),
            tokens: output.sampled.tokens.clone(),
            order: output.sampled.order.clone(),
            log_probabilities: output.sampled.log_probabilities.clone(),
            tokens_predicted: n,
            tokens_evaluated: self.n_prompt_tokens,
            timings: Timings {
                queued_ms: output.queued.as_secs_f64() * 1e3,
                predicted_ms: seconds * 1e3,
                predicted_per_second: if seconds > 0.0 { n as f64 / seconds } else { 0.0 },
            },
        }
    }
}

impl StreamFormat for InfillFormat {
    fn tells_steps(&self) -> bool {
        self.tells_steps
    }

    fn denoise(&self, step: DenoiseStep) -> sse::Event {
        denoise_event(&Chunk { content: "", stop: false, denoise: Some(step) })
    }

    fn echo(&self, _sample: usize) -> Option<&str> {
        None
    }

    fn text(&self, _sample: usize, _seed: u64, text: &str) -> sse::Event {
        event(&Chunk { content: text, stop: false, denoise: None })
    }

    fn done(&mut self, _sample: usize, rest: &str, output: &TaskOutput, _model: &TextModel) -> sse::Event {
        // The contents of all events together are the content of an answer that is not a stream.
        let others = output.blanks.iter().skip(1).map(|blank| blank.text.as_str());
        event(&self.answer(std::iter::once(rest).chain(others).collect(), output))
    }

    fn end(&self) -> Vec<sse::Event> {
        Vec::new()
    }
}
