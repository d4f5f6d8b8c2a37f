//! `POST /infill`: a template with blanks, or llama.cpp's prefix and suffix.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{Response, sse};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::infill_fit::fit_sides;
use super::read::read;
use super::responses::{GenerateErrors, StreamEvent};
use crate::TextModel;
use crate::engine::{Finish, Task, TaskInput, TaskOutput};
use crate::serve::body::{InfillBody, RequestBody};
use crate::serve::error::ApiError;
use crate::serve::kept::TaskBlanks;
use crate::serve::resolve::{self, FinishReason, check_length};
use crate::serve::run::{Run, RunningRequest, in_background};
use crate::serve::state::{Limits, Server};
use crate::serve::stream::{TEXT_EVENTS, answer, event, named_event, respond};
use crate::serve::text_stream::{StreamFormat, stream_text};
use crate::text::denoise::DenoiseStep;
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
    stop_type: StopType,
    /// The stop string that ended the text; empty if none did.
    stopping_word: String,
    model: String,
    /// The whole text, also what was cut off for the model.
    text: String,
    /// The generated text of each blank.
    blanks: Vec<String>,
    seed: u64,
    steps: usize,
    finish_reason: FinishReason,
    /// The tokens of the row.
    tokens: Vec<u32>,
    /// Positions in the order in which they were decoded.
    order: Vec<usize>,
    /// Log-probabilities of the drawn tokens in that order, in nats.
    log_probabilities: Vec<f64>,
    /// Tokens that the content is made of.
    tokens_predicted: usize,
    /// Tokens that were drawn. Those behind the end of a text count here.
    tokens_drawn: usize,
    /// Given tokens that the model has seen.
    tokens_evaluated: usize,
    /// Always 0: there is no cache.
    tokens_cached: usize,
    /// Whether the given text was longer than the model's rows, so that it was cut.
    truncated: bool,
    /// Tokens that were cut off on the left of the prefix.
    prefix_tokens_cut: usize,
    /// Tokens that were cut off on the right of the suffix.
    suffix_tokens_cut: usize,
    /// Fields of the request that have no effect here.
    ignored: Vec<&'static str>,
    generation_settings: GenerationSettings,
    timings: Timings,
    #[serde(flatten)]
    #[schema(ignore)]
    paths: Map<String, Value>,
}

/// Why the text ends, in llama.cpp's words.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum StopType {
    /// It has all its tokens.
    #[default]
    Limit,
    /// An EOS ends it.
    Eos,
    /// A stop string ends it.
    Word,
}

/// The settings that were used.
#[derive(Clone, Default, Serialize, ToSchema)]
pub struct GenerationSettings {
    /// The most tokens of a row, BOS included.
    n_ctx: usize,
    /// Tokens of all blanks.
    n_predict: usize,
    seed: u64,
    temperature: f64,
    top_k: usize,
    top_p: f64,
    steps: usize,
    order: &'static str,
    stop: Vec<String>,
}

/// How long a sample took. The given text is evaluated with every step: its own figures are 0.
#[derive(Default, Serialize, ToSchema)]
pub struct Timings {
    queued_ms: f64,
    cache_n: usize,
    prompt_n: usize,
    prompt_ms: f64,
    prompt_per_token_ms: f64,
    prompt_per_second: f64,
    predicted_n: usize,
    predicted_ms: f64,
    predicted_per_token_ms: f64,
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
/// llama.cpp's form with input_prefix and input_suffix, or a template. A prefix or suffix that is too long for the model is
/// cut; a template is not. With stream, as in completions; the last event has stop = true and the whole answer.
#[utoipa::path(
    post,
    path = "/infill",
    operation_id = "infill",
    request_body = InfillBody,
    responses(
        (status = 200, description = "The answer, or its stream.", content(
            (Infill = "application/json"),
            (StreamEvent = "text/event-stream"),
        )),
        GenerateErrors,
    ),
)]
pub async fn infill(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let body: InfillBody = read(&server, request).await?;
    let model = Arc::clone(server.model(body.common.model.as_deref())?);
    // The queue's place is taken before the body is checked and tokenised, and kept until then even if the client
    // leaves.
    let admission = model.admit(1, server.limits())?;
    let (stream, tells_steps) = (body.common.stream == Some(true), body.common.wants_steps());
    let (admission, resolved) = in_background({
        let (model, limits) = (Arc::clone(&model), *server.limits());
        move || Ok((admission, resolve_infill(&body, &model.name, model.engine.model(), &limits)?))
    })
    .await?;
    let (task, format) = match resolved {
        ResolvedInfill::Run { task, format } => (*task, InfillFormat { tells_steps, ..*format }),
        ResolvedInfill::Nothing(nothing) => {
            let request = RunningRequest::new(&server, &model.name, admission);
            if stream {
                return Ok(respond(TEXT_EVENTS, |client| async move {
                    client.send(event(&nothing), request.deadline(), || request.late()).await
                }));
            }
            return answer(request, || Ok(nothing)).await;
        }
    };
    let tasks = [task];
    let run = Run::start(&server, &model, admission, &tasks, stream)?;
    if stream {
        return Ok(stream_text(run, &model, &tasks, format));
    }
    let request = run.request().clone();
    let outputs = run.collect().await?;
    answer(request, move || {
        let output = outputs.first().ok_or_else(ApiError::engine_ended)?;
        let content = output.blanks.iter().map(|blank| blank.text.as_str()).collect();
        Ok(format.answer(content, output, model.engine.model()))
    })
    .await
}

enum ResolvedInfill {
    Run { task: Box<Task>, format: Box<InfillFormat> },
    // Editors ask for no token to make llama.cpp cache the prompt.
    Nothing(Box<Infill>),
}

fn resolve_infill(
    body: &InfillBody,
    name: &str,
    model: &TextModel,
    limits: &Limits,
) -> Result<ResolvedInfill, ApiError> {
    body.check()?;
    let settings = resolve::settings(&body.common, model, limits)?;
    let max_length = resolve::max_length(model, limits);
    let mut format = InfillFormat {
        model: name.to_string(),
        ignored: body.without_effect(),
        paths: body.response_fields.clone().unwrap_or_default(),
        ..InfillFormat::default()
    };
    format.settings = GenerationSettings {
        n_ctx: max_length,
        temperature: settings.draw.temperature,
        top_k: settings.draw.top_k,
        top_p: settings.draw.top_p,
        steps: settings.steps,
        order: settings.order.name(),
        stop: body.common.stops()?,
        ..GenerationSettings::default()
    };
    let mut ends_at_eos = false;
    if let Some(length) = body.length {
        check_length(length, max_length, "length")?;
    }
    let row = match &body.template {
        None => {
            let (before, after) = body.sides();
            if body.n_predict == Some(0) {
                return Ok(ResolvedInfill::Nothing(Box::new(format.nothing(&before, &after, model)?)));
            }
            // Text before a suffix does not end at an EOS: the suffix follows.
            ends_at_eos = after.is_empty();
            let fitted = fit_sides(model, (&before, &after), body.n_predict(), body.length.unwrap_or(max_length))
                .map_err(|error| error.about("input_prefix"))?;
            resolve::check_given(&fitted.row, model, "input_prefix", "input_suffix")?;
            format.settings.n_predict = fitted.n_blank;
            (format.left, format.right) = (fitted.left, fitted.right);
            fitted.row
        }
        Some(template) => {
            let parts = template::parse(template, body.blank.unwrap_or(DEFAULT_BLANK))
                .map_err(|error| ApiError::from(error).about("template"))?;
            // Blanks are counted before memory is allocated for them.
            let n_blank = parts.iter().map(Part::least);
            check_length(n_blank.fold(1, usize::saturating_add), max_length, "template")?;
            let row = model
                .row_within(max_length, &parts, body.length, 0)
                .map_err(|error| ApiError::from(error).about("template"))?;
            resolve::check_given(&row, model, "template", "template")?;
            check_length(row.request.length, max_length, "template")?;
            format.settings.n_predict = row.request.length - 1 - row.n_given();
            row
        }
    };
    format.n_prompt_tokens = row.n_given();
    let mut task = Task::new(TaskInput::Row(row));
    (task.settings, task.seed) = (settings, resolve::seed(body.common.seed(), 1)?);
    (task.stop, task.ends_at_eos) = (format.settings.stop.clone(), ends_at_eos);
    format.blanks = TaskBlanks::of(&task);
    format.settings.seed = task.seed;
    Ok(ResolvedInfill::Run { task: Box::new(task), format: Box::new(format) })
}

/// How the answer to one request is written.
#[derive(Default)]
struct InfillFormat {
    model: String,
    tells_steps: bool,
    n_prompt_tokens: usize,
    blanks: TaskBlanks,
    // What was cut off on either side, and its tokens.
    left: (String, usize),
    right: (String, usize),
    ignored: Vec<&'static str>,
    paths: Vec<String>,
    settings: GenerationSettings,
}

impl InfillFormat {
    fn nothing(self, before: &str, after: &str, model: &TextModel) -> Result<Infill, ApiError> {
        let n_prompt_tokens = model.encode(before)?.len() + model.encode(after)?.len();
        let answer = Infill {
            stop: true,
            model: self.model,
            text: format!("{before}{after}"),
            tokens_evaluated: n_prompt_tokens,
            ignored: self.ignored,
            generation_settings: self.settings,
            timings: Timings { prompt_n: n_prompt_tokens, ..Timings::default() },
            ..Infill::default()
        };
        Ok(answer.with_paths(&self.paths))
    }

    fn answer(&self, content: String, output: &TaskOutput, model: &TextModel) -> Infill {
        let (seconds, n) = (output.duration.as_secs_f64(), self.blanks.n_kept(model, output));
        let (left, right) = (&self.left, &self.right);
        let per = |amount: f64, n: f64| if n > 0.0 { amount / n } else { 0.0 };
        let (stop_type, stopping_word) = match &output.finish {
            Finish::Stop(word) => (StopType::Word, word.clone()),
            Finish::Eos => (StopType::Eos, String::new()),
            Finish::Complete | Finish::Cancelled | Finish::Timeout => (StopType::Limit, String::new()),
        };
        let answer = Infill {
            content,
            stop: true,
            stop_type,
            stopping_word,
            model: self.model.clone(),
            text: format!("{}{}{}", left.0, output.text, right.0),
            blanks: output.blanks.iter().map(|blank| blank.text.clone()).collect(),
            seed: output.seed,
            steps: output.steps,
            finish_reason: FinishReason::of(&output.finish),
            tokens: output.sampled.tokens.clone(),
            order: output.sampled.order.clone(),
            log_probabilities: output.sampled.log_probabilities.clone(),
            tokens_predicted: n,
            tokens_drawn: self.blanks.n_drawn(output),
            tokens_evaluated: self.n_prompt_tokens,
            tokens_cached: 0,
            truncated: left.1 + right.1 > 0,
            prefix_tokens_cut: left.1,
            suffix_tokens_cut: right.1,
            ignored: self.ignored.clone(),
            generation_settings: self.settings.clone(),
            timings: Timings {
                queued_ms: output.queued.as_secs_f64() * 1e3,
                prompt_n: self.n_prompt_tokens,
                predicted_n: n,
                predicted_ms: seconds * 1e3,
                predicted_per_token_ms: per(seconds * 1e3, n as f64),
                predicted_per_second: per(n as f64, seconds),
                ..Timings::default()
            },
            paths: Map::new(),
        };
        answer.with_paths(&self.paths)
    }
}

impl Infill {
    // The answer with the values at some paths under the paths' own names. llama.vim reads them there.
    fn with_paths(mut self, paths: &[String]) -> Self {
        if paths.iter().any(|path| path.contains('/')) {
            let whole = serde_json::to_value(&self).unwrap_or_default();
            let value = |path: &String| Some((path.clone(), whole.pointer(&format!("/{path}"))?.clone()));
            self.paths = paths.iter().filter(|path| path.contains('/')).filter_map(value).collect();
        }
        self
    }
}

impl StreamFormat for InfillFormat {
    fn tells_steps(&self) -> bool {
        self.tells_steps
    }

    fn denoise(&self, step: DenoiseStep) -> sse::Event {
        named_event("denoise", &Chunk { content: "", stop: false, denoise: Some(step) })
    }

    fn echo(&self, _sample: usize) -> Option<&str> {
        None
    }

    fn text(&self, _sample: usize, _seed: u64, text: &str) -> sse::Event {
        event(&Chunk { content: text, stop: false, denoise: None })
    }

    fn done(&mut self, _sample: usize, rest: &str, output: &TaskOutput, model: &TextModel) -> sse::Event {
        // The contents of all events together are the content of an answer that is not a stream.
        let others = output.blanks.iter().skip(1).map(|blank| blank.text.as_str());
        event(&self.answer(std::iter::once(rest).chain(others).collect(), output, model))
    }

    fn end(&self) -> Vec<sse::Event> {
        Vec::new()
    }
}
