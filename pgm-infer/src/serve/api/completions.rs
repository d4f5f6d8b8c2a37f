//! `POST /v1/completions`: OpenAI's completions.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{Response, sse};
use serde::Serialize;
use utoipa::ToSchema;

use super::completion_tasks::{CompletionRequest, GivenPrompt, prompt_estimator, resolve_completion};
use super::read::read;
use super::responses::{GenerateErrors, StreamEvent};
use super::usage::Usage;
use crate::TextModel;
use crate::engine::TaskOutput;
use crate::serve::body::CompletionBody;
use crate::serve::error::ApiError;
use crate::serve::kept::TaskBlanks;
use crate::serve::logprobs::{Logprobs, entries_of_sample};
use crate::serve::metrics::unix_seconds;
use crate::serve::resolve::{self, FinishReason};
use crate::serve::run::{Run, RunningRequest, in_background};
use crate::serve::scoring::scoring;
use crate::serve::state::Server;
use crate::serve::stream::{TEXT_EVENTS, answer, event, named_event, respond};
use crate::serve::text_stream::{StreamFormat, stream_text};
use crate::text::denoise::DenoiseStep;

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
/// OpenAI's completions with the additional fields steps, order and top_k. With echo and logprobs the tokens of the prompt
/// are scored, too. With stream, each event carries text that is final. Where stream_options asks for it, the event denoise
/// carries the positions and tokens of each step.
#[utoipa::path(
    post,
    path = "/v1/completions",
    operation_id = "completions",
    request_body = CompletionBody,
    responses(
        (status = 200, description = "The answer, or its stream.", content(
            (Completion = "application/json"),
            (StreamEvent = "text/event-stream"),
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
    let (admission, body, request) = in_background({
        let (model, limits) = (Arc::clone(&model), *server.limits());
        move || {
            let request = resolve_completion(&body, model.engine.model(), &limits)?;
            Ok((admission, body, request))
        }
    })
    .await?;
    let (admission, request) = if request.scores_prompts.is_some() {
        let work = move |model: &TextModel, watch: &_| {
            let mut request = request;
            request.score_prompts(model, watch)?;
            Ok(request)
        };
        scoring(&server, &model, admission, work).await?
    } else {
        (admission, request)
    };
    let CompletionRequest { tasks, prompts, n_prompt_tokens, .. } = request;
    let format = CompletionFormat {
        id: format!("cmpl-{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>()),
        created: unix_seconds(),
        model: model.name.clone(),
        n: body.n.unwrap_or(1),
        echo: body.echo.unwrap_or(false),
        prompts,
        logprobs: body.logprobs,
        include_usage: body.common.wants_usage(),
        tells_steps: body.common.wants_steps(),
        blanks: tasks.iter().map(TaskBlanks::of).collect(),
        seed: resolve::seed(body.common.seed(), n_samples)?,
        n_prompt_tokens,
        n_completion_tokens: 0,
        n_drawn_tokens: 0,
    };
    // A body may hold much that nothing needs while the request waits.
    drop(body);
    // Without a token to write there is nothing to run.
    let run = match tasks.is_empty() {
        true => Err(admission),
        false => Ok(Run::start(&server, &model, admission, &tasks, stream)?),
    };
    match run {
        Ok(run) if stream => Ok(stream_text(run, &model, &tasks, format)),
        Ok(run) => {
            let request = run.request().clone();
            let outputs = run.collect().await?;
            answer(request, move || Ok(format.completion(&outputs, model.engine.model()))).await
        }
        Err(admission) => {
            let request = RunningRequest::new(&server, &model.name, admission);
            if stream {
                let (format, choices) = in_background(move || {
                    let choices = format.prompts_alone(model.engine.model());
                    Ok((format, choices))
                })
                .await?;
                return Ok(format.stream_choices(request, choices));
            }
            let whole = move || {
                let choices = format.prompts_alone(model.engine.model());
                Ok(format.whole(choices))
            };
            answer(request, whole).await
        }
    }
}

/// How the answer to one request is written.
struct CompletionFormat {
    id: String,
    created: u64,
    model: String,
    // Samples of each prompt.
    n: usize,
    // Whether the prompts are repeated.
    echo: bool,
    prompts: Vec<GivenPrompt>,
    // How many of the most probable tokens are told with each, if log-probabilities are asked for.
    logprobs: Option<usize>,
    include_usage: bool,
    tells_steps: bool,
    // Of each prompt.
    blanks: Vec<TaskBlanks>,
    // Of choices for which nothing was drawn.
    seed: u64,
    n_prompt_tokens: usize,
    n_completion_tokens: usize,
    n_drawn_tokens: usize,
}

impl CompletionFormat {
    fn usage(&self) -> Usage {
        Usage::new(self.n_prompt_tokens, self.n_completion_tokens, self.n_drawn_tokens)
    }

    fn logprobs(&self, index: usize, output: Option<&TaskOutput>, model: &TextModel) -> Option<Logprobs> {
        let (n_best, prompt) = (self.logprobs?, &self.prompts[index / self.n]);
        let written = output.map_or_else(Vec::new, |output| {
            entries_of_sample(output, &self.blanks[index / self.n].kept(model, output, 0))
        });
        let n_chars = prompt.text.chars().count();
        let given = self.echo.then(|| (prompt.entries.as_slice(), n_chars, prompt_estimator(model)));
        Some(Logprobs::new(model, given, &written, n_best > 0))
    }

    fn finished(&mut self, index: usize, text: String, output: &TaskOutput, model: &TextModel) -> Choice {
        let blanks = &self.blanks[index / self.n];
        self.n_completion_tokens += blanks.n_kept(model, output);
        self.n_drawn_tokens += blanks.n_drawn(output);
        let logprobs = self.logprobs(index, Some(output), model);
        Choice { index, text, finish_reason: Some(FinishReason::of(&output.finish)), logprobs, seed: output.seed }
    }

    fn completion(mut self, outputs: &[TaskOutput], model: &TextModel) -> Completion {
        let choices = outputs.iter().enumerate().map(|(index, output)| {
            let text = output.blanks.first().map_or("", |blank| blank.text.as_str());
            let text = format!("{}{text}", self.echo(index).unwrap_or_default());
            self.finished(index, text, output, model)
        });
        let choices = choices.collect();
        self.whole(choices)
    }

    fn whole(self, choices: Vec<Choice>) -> Completion {
        let usage = self.usage();
        let Self { id, created, model, .. } = self;
        Completion { id, object: CompletionObject::TextCompletion, created, model, choices, usage }
    }

    // The choices that repeat the prompts and add nothing.
    fn prompts_alone(&self, model: &TextModel) -> Vec<Choice> {
        let choice = |index: usize| Choice {
            index,
            text: self.prompts[index / self.n].text.clone(),
            finish_reason: Some(FinishReason::Length),
            logprobs: self.logprobs(index, None, model),
            seed: self.seed.wrapping_add(index as u64),
        };
        (0..self.prompts.len() * self.n).map(choice).collect()
    }

    fn stream_choices(self, request: RunningRequest, choices: Vec<Choice>) -> Response {
        respond(TEXT_EVENTS, |client| async move {
            let first = choices.into_iter().map(|choice| event(&self.chunk(vec![choice])));
            for event in first.chain(self.end()) {
                client.send(event, request.deadline(), || request.late()).await?;
            }
            Ok(())
        })
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
        named_event("denoise", &Chunk { denoise: Some(step), ..self.chunk(Vec::new()) })
    }

    fn echo(&self, sample: usize) -> Option<&str> {
        self.echo.then(|| self.prompts[sample / self.n].text.as_str())
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
