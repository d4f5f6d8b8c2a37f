//! `POST /v1/chat/completions`: OpenAI's chat, for models with a chat template.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{Response, sse};
use serde::Serialize;
use serde_json::Map;
use utoipa::ToSchema;

use super::read::read;
use super::responses::{GenerateErrors, StreamEvent};
use super::usage::Usage;
use crate::TextModel;
use crate::engine::{Task, TaskInput, TaskOutput};
use crate::serve::body::{ChatBody, RequestBody};
use crate::serve::chat::{ChatInput, render};
use crate::serve::error::ApiError;
use crate::serve::kept::TaskBlanks;
use crate::serve::logprobs::{ChatLogprobs, entries_of_sample};
use crate::serve::metrics::unix_seconds;
use crate::serve::resolve::{self, FinishReason, check_length};
use crate::serve::run::{Run, in_background};
use crate::serve::state::{Limits, Server};
use crate::serve::stream::{answer, event, named_event};
use crate::serve::text_stream::{StreamFormat, stream_text};
use crate::text::denoise::DenoiseStep;
use crate::text::request::RowPart;
use crate::text::template::Part;

/// An answer.
#[derive(Serialize, ToSchema)]
pub struct Chat {
    id: String,
    object: ChatObject,
    /// When the request was admitted, in seconds since 1970.
    created: u64,
    model: String,
    choices: Vec<ChatChoice>,
    usage: Usage,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
enum ChatObject {
    #[serde(rename = "chat.completion")]
    Chat,
}

/// A sample.
#[derive(Serialize, ToSchema)]
pub struct ChatChoice {
    index: usize,
    message: AnswerMessage,
    finish_reason: FinishReason,
    #[schema(required = true)]
    logprobs: Option<ChatLogprobs>,
    seed: u64,
}

/// The answer's message.
#[derive(Serialize, ToSchema)]
pub struct AnswerMessage {
    role: Role,
    content: String,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Role {
    Assistant,
}

/// An event of a stream.
#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<ChunkChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(flatten)]
    denoise: Option<DenoiseStep>,
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: usize,
    delta: Delta<'a>,
    finish_reason: Option<FinishReason>,
    logprobs: Option<ChatLogprobs>,
    seed: u64,
}

#[derive(Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

/// Answers a conversation
///
/// OpenAI's chat for a model whose folder has a chat template. The names of special tokens in the template's text stand for
/// these tokens. An answer ends at an EOS, at a stop string, or when it has all its tokens.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    operation_id = "chat",
    request_body = ChatBody,
    responses(
        (status = 200, description = "The answer, or its stream.", content(
            (Chat = "application/json"),
            (StreamEvent = "text/event-stream"),
        )),
        GenerateErrors,
    ),
)]
pub async fn chat(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let body: ChatBody = read(&server, request).await?;
    let model = Arc::clone(server.model(body.common.model.as_deref())?);
    let n_samples = resolve::n_samples(body.n.unwrap_or(1), 1, server.limits())?;
    let admission = model.admit(n_samples, server.limits())?;
    let stream = body.common.stream == Some(true);
    let (admission, task, n_prompt_tokens, body) = in_background({
        let (model, limits) = (Arc::clone(&model), *server.limits());
        move || {
            let (task, n_prompt_tokens) = resolve_chat(&body, &model.name, model.engine.model(), &limits)?;
            Ok((admission, task, n_prompt_tokens, body))
        }
    })
    .await?;
    let format = ChatFormat {
        id: format!("chatcmpl-{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>()),
        created: unix_seconds(),
        model: model.name.clone(),
        blanks: TaskBlanks::of(&task),
        logprobs: body.logprobs().is_some(),
        include_usage: body.common.wants_usage(),
        tells_steps: body.common.wants_steps(),
        n_prompt_tokens,
        n_completion_tokens: 0,
        n_drawn_tokens: 0,
    };
    let tasks = [task];
    // A body may hold much that nothing needs while the request waits.
    drop(body);
    let run = Run::start(&server, &model, admission, &tasks, stream)?;
    if stream {
        return Ok(stream_text(run, &model, &tasks, format));
    }
    let request = run.request().clone();
    let outputs = run.collect().await?;
    answer(request, move || Ok(format.chat(&outputs, model.engine.model()))).await
}

fn resolve_chat(body: &ChatBody, name: &str, model: &TextModel, limits: &Limits) -> Result<(Task, usize), ApiError> {
    body.check()?;
    let mut settings = resolve::settings(&body.common, model, limits)?;
    settings.alternatives = body.logprobs().unwrap_or(0);
    let special = model.special_tokens();
    let (backbone, max_length) = (model.config().backbone(), resolve::max_length(model, limits));
    let source = special.chat.source(body.chat_template.as_deref()).map_err(|why| {
        let field = if body.chat_template.is_some() { "chat_template" } else { "model" };
        ApiError::field(field, format!("the model {name} cannot chat: {why}"))
    })?;
    // Where the folder does not name them, the tokenizer does.
    let named = |key: &str, index: usize| {
        special.text(key).is_none().then(|| (key.to_string(), model.token_name(index as u32)))
    };
    let mut texts = special.texts.clone();
    texts.extend(named("bos_token", backbone.bos_index));
    texts.extend(named("eos_token", backbone.eos_index));
    let (messages, no_variables) = (body.messages()?, Map::new());
    let input = ChatInput {
        messages: &messages,
        add_generation_prompt: body.add_generation_prompt.unwrap_or(true),
        special: &texts,
        variables: body.chat_template_kwargs.as_ref().unwrap_or(&no_variables),
    };
    let text = render(source, &input).map_err(|why| ApiError::field("messages", why))?;
    let mut tokens = model.encode_with_special(&text)?;
    if tokens.contains(&(backbone.mask_index as u32)) {
        return Err(resolve::mask_error("messages", backbone.mask_index));
    }
    // The row begins with one BOS, whether the template writes it or not.
    if tokens.first() == Some(&(backbone.bos_index as u32)) {
        tokens.remove(0);
    }
    let room = max_length.saturating_sub(1 + tokens.len());
    let n_blank = body.max_tokens().unwrap_or(room.max(1));
    let field = if body.max_tokens().is_some() && room > 0 { "max_tokens" } else { "messages" };
    check_length(tokens.len().saturating_add(n_blank).saturating_add(1), max_length, field)?;
    let parts = [RowPart::Tokens(tokens), RowPart::Template(Part::Blank(n_blank))];
    let row = model.row_of_parts(&parts, 0)?;
    let n_prompt_tokens = row.n_given();
    let mut task = Task::new(TaskInput::Row(row));
    (task.settings, task.n) = (settings, body.n.unwrap_or(1));
    task.seed = resolve::seed(body.common.seed(), task.n)?;
    (task.stop, task.ends_at_eos) = (body.common.stops()?, true);
    Ok((task, n_prompt_tokens))
}

/// How the answer to one request is written.
struct ChatFormat {
    id: String,
    created: u64,
    model: String,
    blanks: TaskBlanks,
    logprobs: bool,
    include_usage: bool,
    tells_steps: bool,
    n_prompt_tokens: usize,
    n_completion_tokens: usize,
    n_drawn_tokens: usize,
}

impl ChatFormat {
    fn usage(&self) -> Usage {
        Usage::new(self.n_prompt_tokens, self.n_completion_tokens, self.n_drawn_tokens)
    }

    fn count(&mut self, output: &TaskOutput, model: &TextModel) {
        self.n_completion_tokens += self.blanks.n_kept(model, output);
        self.n_drawn_tokens += self.blanks.n_drawn(output);
    }

    fn logprobs(&self, output: &TaskOutput, model: &TextModel) -> Option<ChatLogprobs> {
        let kept = self.logprobs.then(|| self.blanks.kept(model, output, 0))?;
        Some(ChatLogprobs::new(model, &entries_of_sample(output, &kept)))
    }

    fn chat(mut self, outputs: &[TaskOutput], model: &TextModel) -> Chat {
        let choice = |(index, output): (usize, &TaskOutput)| {
            self.count(output, model);
            let content = output.blanks.first().map_or("", |blank| blank.text.as_str()).to_string();
            ChatChoice {
                index,
                message: AnswerMessage { role: Role::Assistant, content },
                finish_reason: FinishReason::of(&output.finish),
                logprobs: self.logprobs(output, model),
                seed: output.seed,
            }
        };
        let choices = outputs.iter().enumerate().map(choice).collect();
        let usage = self.usage();
        let Self { id, created, model, .. } = self;
        Chat { id, object: ChatObject::Chat, created, model, choices, usage }
    }

    fn chunk<'a>(&'a self, choices: Vec<ChunkChoice<'a>>) -> Chunk<'a> {
        let (object, created) = ("chat.completion.chunk", self.created);
        Chunk { id: &self.id, object, created, model: &self.model, choices, usage: None, denoise: None }
    }
}

impl StreamFormat for ChatFormat {
    fn tells_steps(&self) -> bool {
        self.tells_steps
    }

    fn denoise(&self, step: DenoiseStep) -> sse::Event {
        named_event("denoise", &Chunk { denoise: Some(step), ..self.chunk(Vec::new()) })
    }

    // Nothing is repeated, but each answer begins with an event that names its role.
    fn echo(&self, _sample: usize) -> Option<&str> {
        Some("")
    }

    fn text(&self, sample: usize, seed: u64, text: &str) -> sse::Event {
        let role = text.is_empty().then_some(Role::Assistant);
        let delta = Delta { role, content: Some(text) };
        event(&self.chunk(vec![ChunkChoice { index: sample, delta, finish_reason: None, logprobs: None, seed }]))
    }

    fn done(&mut self, sample: usize, rest: &str, output: &TaskOutput, model: &TextModel) -> sse::Event {
        self.count(output, model);
        let delta = Delta { role: None, content: (!rest.is_empty()).then_some(rest) };
        let (finish_reason, logprobs) = (Some(FinishReason::of(&output.finish)), self.logprobs(output, model));
        let choice = ChunkChoice { index: sample, delta, finish_reason, logprobs, seed: output.seed };
        event(&self.chunk(vec![choice]))
    }

    fn end(&self) -> Vec<sse::Event> {
        let usage = self.include_usage.then(|| event(&Chunk { usage: Some(self.usage()), ..self.chunk(Vec::new()) }));
        usage.into_iter().chain([sse::Event::default().data("[DONE]")]).collect()
    }
}
