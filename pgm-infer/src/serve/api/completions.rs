//! `POST /v1/completions`: OpenAI's completions.

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
use crate::serve::body::{CompletionBody, Prompt, RequestBody};
use crate::serve::error::ApiError;
use crate::serve::logprobs::{Logprobs, logprobs};
use crate::serve::metrics::unix_seconds;
use crate::serve::progress::DenoiseStep;
use crate::serve::resolve::{self, FinishReason, ResolvedRequest, check_length, n_replaced};
use crate::serve::run::{Run, StreamFormat, denoise_event, event, in_background};
use crate::serve::state::{Limits, Server};
use crate::text::request::RowPart;
use crate::text::template::Part;

/// The default of `max_tokens`.
const DEFAULT_MAX_TOKENS: usize = 16;

/// An answer.
#[derive(Serialize, ToSchema)]
pub struct Completion {
    id: String,
    object: CompletionObject,
    /// When the request was admitted, in seconds since 1970.
    created: u64,
    model: String,
    choices: Vec<Choice>,
    usage: Usage,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
enum CompletionObject {
    #[serde(rename = "text_completion")]
    TextCompletion,
}

/// A sample.
#[derive(Serialize, ToSchema)]
pub struct Choice {
    index: usize,
    text: String,
    #[schema(required = true)]
    finish_reason: Option<FinishReason>,
    #[schema(required = true)]
    logprobs: Option<Logprobs>,
    seed: u64,
}

/// Counts of tokens.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
}

/// An event of a stream. A `denoise` event has no choices, so that a client that reads every event as a piece of text still
/// works.
#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: CompletionObject,
    created: u64,
    model: &'a str,
    choices: Vec<Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(flatten)]
    denoise: Option<DenoiseStep>,
}

/// Continues a text, or fills the gap before a suffix
///
/// OpenAI's completions with the additional fields steps, order and top_k. With stream, each event carries text that is
/// final. Where stream_options asks for it, the event denoise carries the positions and tokens of each step.
#[utoipa::path(
    post,
    path = "/v1/completions",
    operation_id = "completions",
    request_body = CompletionBody,
    responses(
        (status = 200, description = "The answer, or its stream.", content(
            (Completion = "application/json"),
            (String = "text/event-stream"),
        )),
        GenerateErrors,
    ),
)]
pub async fn completions(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let body: CompletionBody = read(&server, request).await?;
    let model = Arc::clone(server.model(body.common.model.as_deref())?);
    let n_samples = resolve::n_samples(body.n.unwrap_or(1), body.n_prompts(), server.limits())?;
    // The queue's places are taken before the body is checked and tokenised, and kept until then even if the client
    // leaves.
    let admission = model.admit(n_samples, server.limits())?;
    let stream = body.common.stream == Some(true);
    let (admission, request, format) = in_background({
        let (model, limits) = (Arc::clone(&model), *server.limits());
        move || {
            let (request, format) = resolve_completion(&body, &model.name, model.engine.model(), &limits)?;
            Ok((admission, request, format))
        }
    })
    .await?;
    let run = Run::start(&server, &model, admission, &request.tasks, stream)?;
    if stream {
        return Ok(run.stream(&request.tasks, format));
    }
    let outputs = run.collect().await?;
    let answer = in_background(move || Ok(format.completion(&outputs, model.engine.model()))).await?;
    Ok(Json(answer).into_response())
}

fn resolve_completion(
    body: &CompletionBody,
    name: &str,
    model: &TextModel,
    limits: &Limits,
) -> Result<(ResolvedRequest, CompletionFormat), ApiError> {
    body.check()?;
    let mut settings = resolve::settings(&body.common, model, limits)?;
    settings.alternatives = body.logprobs.unwrap_or(0);
    let suffix = body.suffix.clone().unwrap_or_default();
    let n_blank = body.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
    // The blank is counted before memory is allocated for it.
    check_length(n_blank.saturating_add(1), resolve::max_length(model, limits), "max_tokens")?;
    let (n, seed, stop) = (body.n.unwrap_or(1), resolve::seed(&body.common), body.common.stops()?);
    let (backbone, max_length) = (model.config().backbone(), resolve::max_length(model, limits));
    let mut request = ResolvedRequest { tasks: Vec::new(), n_prompt_tokens: 0 };
    let mut echo = Vec::new();
    for (index, prompt) in body.prompts()?.into_iter().enumerate() {
        let (prompt, prompt_text) = match prompt {
            Prompt::Text(text) => (RowPart::Template(Part::Text(text.clone())), Some(text)),
            Prompt::Tokens(tokens) => {
                if tokens.iter().any(|&token| token as usize >= backbone.vocab_size) {
                    let message = format!("prompt has a token beyond the model's {} tokens", backbone.vocab_size);
                    return Err(ApiError::field("prompt", message));
                }
                echo.push(model.decode(&tokens)?);
                (RowPart::Tokens(tokens), None)
            }
        };
        if let Some(text) = prompt_text {
            echo.push(if model.keeps_text() { text } else { model.decode(&model.encode(&text)?)? });
        }
        let blank = RowPart::Template(Part::Blank(n_blank));
        let parts = [prompt, blank, RowPart::Template(Part::Text(suffix.clone()))];
        let row = model.row_of_parts(&parts, 0)?;
        resolve::check_given(&row, model, "prompt", "suffix")?;
        check_length(row.request.length, max_length, "max_tokens")?;
        request.n_prompt_tokens += row.n_given();
        let mut task = Task::new(TaskInput::Row(row));
        (task.settings, task.n, task.seed) = (settings, n, seed.wrapping_add((index * n) as u64));
        // Text before a suffix does not end at an EOS: the suffix follows.
        (task.stop, task.ends_at_eos) = (stop.clone(), suffix.is_empty());
        request.tasks.push(task);
    }
    let format = CompletionFormat {
        id: format!("cmpl-{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>()),
        created: unix_seconds(),
        model: name.to_string(),
        n,
        echo: body.echo.unwrap_or(false).then_some(echo),
        logprobs: body.logprobs.is_some(),
        include_usage: body.common.wants_usage(),
        tells_steps: body.common.wants_steps(),
        n_prompt_tokens: request.n_prompt_tokens,
        n_replaced: request.tasks.iter().map(n_replaced).collect(),
        n_completion_tokens: 0,
    };
    Ok((request, format))
}

/// How the answer to one request is written.
struct CompletionFormat {
    id: String,
    created: u64,
    model: String,
    // Samples of each prompt.
    n: usize,
    // The text of each prompt, if it is to be repeated.
    echo: Option<Vec<String>>,
    logprobs: bool,
    include_usage: bool,
    tells_steps: bool,
    n_prompt_tokens: usize,
    // Of each prompt: drawn tokens that stand for a given one.
    n_replaced: Vec<usize>,
    n_completion_tokens: usize,
}

impl CompletionFormat {
    fn usage(&self) -> Usage {
        let (prompt_tokens, completion_tokens) = (self.n_prompt_tokens, self.n_completion_tokens);
        Usage { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens }
    }

    fn finished(&mut self, index: usize, text: String, output: &TaskOutput, model: &TextModel) -> Choice {
        let n_replaced = self.n_replaced.get(index / self.n).copied().unwrap_or(0);
        self.n_completion_tokens += output.sampled.order.len().saturating_sub(n_replaced);
        let whole = output.blanks.first().map_or("", |blank| blank.text.as_str());
        let logprobs = if self.logprobs { logprobs(model, output, whole) } else { None };
        Choice { index, text, finish_reason: Some(FinishReason::of(&output.finish)), logprobs, seed: output.seed }
    }

    fn completion(mut self, outputs: &[TaskOutput], model: &TextModel) -> Completion {
        let choices = outputs.iter().enumerate().map(|(index, output)| {
            let text = output.blanks.first().map_or("", |blank| blank.text.as_str());
            let text = format!("{}{text}", self.echo(index).unwrap_or_default());
            self.finished(index, text, output, model)
        });
        let choices = choices.collect();
        let usage = self.usage();
        let Self { id, created, model, .. } = self;
        Completion { id, object: CompletionObject::TextCompletion, created, model, choices, usage }
    }

    fn chunk(&self, choices: Vec<Choice>) -> Chunk<'_> {
        let object = CompletionObject::TextCompletion;
        Chunk { id: &self.id, object, created: self.created, model: &self.model, choices, usage: None, denoise: None }
    }

    fn piece(&self, index: usize, seed: u64, text: &str) -> Chunk<'_> {
        self.chunk(vec![Choice { index, text: text.to_string(), finish_reason: None, logprobs: None, seed }])
    }
}

impl StreamFormat for CompletionFormat {
    fn tells_steps(&self) -> bool {
        self.tells_steps
    }

    fn denoise(&self, step: DenoiseStep) -> sse::Event {
        denoise_event(&Chunk { denoise: Some(step), ..self.chunk(Vec::new()) })
    }

    fn echo(&self, sample: usize) -> Option<&str> {
        Some(self.echo.as_ref()?.get(sample / self.n)?)
    }

    fn text(&self, sample: usize, seed: u64, text: &str) -> sse::Event {
        event(&self.piece(sample, seed, text))
    }

    fn done(&mut self, sample: usize, rest: &str, output: &TaskOutput, model: &TextModel) -> sse::Event {
        let choice = self.finished(sample, rest.to_string(), output, model);
        event(&self.chunk(vec![choice]))
    }

    fn end(&self) -> Vec<sse::Event> {
        let usage = self.include_usage.then(|| event(&Chunk { usage: Some(self.usage()), ..self.chunk(Vec::new()) }));
        usage.into_iter().chain([sse::Event::default().data("[DONE]")]).collect()
    }
}
