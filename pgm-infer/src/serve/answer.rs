//! Tasks run for a client, and what it is told of them.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::ask::ResolvedRequest;
use super::body::{CompletionBody, InfillBody};
use super::{ApiError, QueuePermit, Served, Server, ServerPhase, now};
use crate::engine::{Finish, Task, TaskEvent, TaskHandle, TaskInput, TaskOutput};
use crate::sample::RowChange;
use crate::sample::order::OrderKind;
use crate::text::canvas::Canvas;
use crate::{Engine, TextModel};

/// Frames of a stream that wait for its reader.
const BUFFER: usize = 64;
/// How long a stream waits for a reader that takes nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// `POST /v1/completions`.
pub async fn completions(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let body: CompletionBody = server.read(request).await?;
    let (stream, model) = (body.common.stream == Some(true), body.common.model.clone());
    let (served, engine) = server.model(model.as_deref())?;
    let ask = in_background({
        let server = Arc::clone(&server);
        move || body.ask(server.model(body.common.model.as_deref())?.1, &server.limits)
    });
    respond(&server, served, engine, ask.await?, Form::Completion, stream).await
}

/// `POST /infill`.
pub async fn infill(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let body: InfillBody = server.read(request).await?;
    let (stream, model) = (body.common.stream == Some(true), body.common.model.clone());
    let (served, engine) = server.model(model.as_deref())?;
    if body.n_predict == Some(0) {
        // How an editor asks llama.cpp to read ahead.
        let text: String = [body.input_prefix, body.prompt, body.input_suffix].into_iter().flatten().collect();
        let nothing = json!({
            "stop": true, "model": served.name, "content": "", "text": text, "blanks": [], "seed": 0, "steps": 0,
            "finish_reason": "length", "tokens": [], "order": [], "log_probabilities": [],
            "tokens_predicted": 0, "tokens_evaluated": 0,
            "timings": {"queued_ms": 0, "predicted_ms": 0, "predicted_per_second": 0},
        });
        return Ok(Json(nothing).into_response());
    }
    let ask = in_background({
        let server = Arc::clone(&server);
        move || body.ask(server.model(body.common.model.as_deref())?.1, &server.limits)
    });
    respond(&server, served, engine, ask.await?, Form::Infill, stream).await
}

/// Whose form an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// OpenAI's.
    Completion,
    /// llama.cpp's.
    Infill,
}

// Tokenising a long text and counting out a long answer would hold up other requests.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(ApiError::ended()))
}

async fn respond(
    server: &Arc<Server>,
    served: &Served,
    engine: &Engine,
    ask: ResolvedRequest,
    form: Form,
    stream: bool,
) -> Result<Response, ApiError> {
    let mut run = Run::start(server, served, engine, &ask.tasks, stream)?;
    let teller = Teller::new(served.name.clone(), form, ask);
    if !stream {
        let mut answers: Vec<Option<TaskOutput>> = (0..teller.rows.len()).map(|_| None).collect();
        while let Some((task, event)) = run.next().await? {
            match event {
                TaskEvent::Step { .. } => {}
                TaskEvent::Done(answer) => {
                    server.metrics.ended(&served.name, name_of(&answer.finish));
                    let place = task * teller.ask.n + answer.index;
                    answers[place] = Some(complete(server, *answer)?);
                }
                TaskEvent::Failed { error, .. } => {
                    server.metrics.ended(&served.name, "failed");
                    return Err(error.into());
                }
            }
        }
        let answers: Option<Vec<TaskOutput>> = answers.into_iter().collect();
        let answers = answers.ok_or_else(ApiError::ended)?;
        let (server, name) = (Arc::clone(server), served.name.clone());
        let whole = in_background(move || {
            let (_, engine) = server.model(Some(&name))?;
            Ok(teller.whole(engine.model(), &answers))
        });
        return Ok(Json(whole.await?).into_response());
    }
    let (sender, receiver) = mpsc::channel(BUFFER);
    let (server, name) = (Arc::clone(server), served.name.clone());
    tokio::spawn(async move {
        // Whoever goes away cancels: the run is dropped with this task.
        tokio::select! {
            () = sender.closed() => {}
            () = tell(&server, &name, run, teller, &sender) => {}
        }
    });
    let stream = ReceiverStream::new(receiver);
    let mut response = Sse::new(stream).keep_alive(KeepAlive::default()).into_response();
    // A proxy in between must not gather what is meant to be seen at once.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    Ok(response)
}

// An answer that may be shown as one: what was cut short is an error by name.
fn complete(server: &Server, answer: TaskOutput) -> Result<TaskOutput, ApiError> {
    match answer.finish {
        Finish::Complete | Finish::Stop(_) | Finish::Eos => Ok(answer),
        Finish::Timeout => Err(ApiError::timeout(server.limits.timeout.as_secs())),
        Finish::Cancelled => Err(ApiError::stopping()),
    }
}

fn name_of(finish: &Finish) -> &'static str {
    match finish {
        Finish::Complete => "complete",
        Finish::Stop(_) | Finish::Eos => "stop",
        Finish::Cancelled => "cancelled",
        Finish::Timeout => "timeout",
    }
}

fn reason_of(finish: &Finish) -> &'static str {
    if *finish == Finish::Complete { "length" } else { "stop" }
}

// Tasks in work. Dropping it cancels them.
struct Run {
    events: mpsc::UnboundedReceiver<(usize, TaskEvent)>,
    tickets: Vec<TaskHandle>,
    // Kept until all is told: what a slow reader has not taken yet counts, too.
    _places: Vec<Arc<QueuePermit>>,
    phase: watch::Receiver<ServerPhase>,
}

impl Run {
    // Without `steps` it only hears of what has ended: waking a thread for each step would take the engine's time.
    fn start(server: &Server, served: &Served, engine: &Engine, tasks: &[Task], steps: bool) -> Result<Self, ApiError> {
        let (sender, events) = mpsc::unbounded_channel();
        let take = |task: &Task| QueuePermit::take(server, served, task.n).map(Arc::new);
        let places = tasks.iter().map(take).collect::<Result<Vec<_>, _>>()?;
        let phase = server.phase.subscribe();
        let mut run = Self { events, tickets: Vec::new(), _places: places.clone(), phase };
        for (index, (task, place)) in tasks.iter().zip(places).enumerate() {
            let sender = sender.clone();
            let metrics = Arc::clone(&server.metrics);
            let listener = move |event: TaskEvent| {
                // Cancelled by whoever asked; nobody is there to be told.
                if let TaskEvent::Done(answer) = &event
                    && sender.is_closed()
                {
                    metrics.ended(&place.model, name_of(&answer.finish));
                }
                let gone = match event {
                    TaskEvent::Step { .. } if !steps => sender.is_closed(),
                    event => sender.send((index, event)).is_err(),
                };
                if gone { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            run.tickets.push(engine.submit(task.clone(), Box::new(listener))?);
        }
        Ok(run)
    }

    // The next event, none after the last; an error once the server ends what it has.
    async fn next(&mut self) -> Result<Option<(usize, TaskEvent)>, ApiError> {
        tokio::select! {
            event = self.events.recv() => Ok(event),
            _ = self.phase.wait_for(|phase| *phase == ServerPhase::Cut) => Err(ApiError::stopping()),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.tickets.iter().for_each(TaskHandle::cancel);
    }
}

type Frames = mpsc::Sender<Result<sse::Event, std::convert::Infallible>>;

async fn tell(server: &Server, name: &str, mut run: Run, mut teller: Teller, frames: &Frames) {
    let Ok((_, engine)) = server.model(Some(name)) else { return };
    let model = engine.model();
    let mut out = teller.beginning(model);
    loop {
        for frame in out.drain(..) {
            if !matches!(tokio::time::timeout(PATIENCE, frames.send(Ok(frame))).await, Ok(Ok(()))) {
                return;
            }
        }
        let next = match run.next().await {
            Ok(Some((task, TaskEvent::Step { index, step, n_steps, change }))) => {
                Ok(teller.step(model, task * teller.ask.n + index, (step, n_steps), &change))
            }
            Ok(Some((task, TaskEvent::Done(answer)))) => {
                server.metrics.ended(name, name_of(&answer.finish));
                let place = task * teller.ask.n + answer.index;
                complete(server, *answer).map(|answer| teller.done(model, place, &answer))
            }
            Ok(Some((_, TaskEvent::Failed { error, .. }))) => {
                server.metrics.ended(name, "failed");
                Err(error.into())
            }
            Ok(None) if teller.n_ended < teller.rows.len() => Err(ApiError::ended()),
            Ok(None) => {
                for frame in teller.ending() {
                    let _ = frames.send(Ok(frame)).await;
                }
                return;
            }
            Err(error) => Err(error),
        };
        match next {
            Ok(next) => out = next,
            Err(error) => {
                let _ = frames.send(Ok(sse::Event::default().data(error.body().to_string()))).await;
                return;
            }
        }
    }
}

/// A sample while it is told.
struct Row {
    canvas: Canvas,
    // What stands before the first blank, and the blank.
    before: Vec<u32>,
    blank: Range<usize>,
    // How much of the blank was decoded without a gap when it was last looked at, and what was sent of its text.
    n_seen: usize,
    sent: String,
}

/// What one request is told, in its form.
struct Teller {
    form: Form,
    id: String,
    created: u64,
    model: String,
    ask: ResolvedRequest,
    rows: Vec<Row>,
    n_ended: usize,
    n_completion: usize,
}

impl Teller {
    fn new(model: String, form: Form, ask: ResolvedRequest) -> Self {
        let row = |task: &Task| {
            let TaskInput::Tokens { given, length } = &task.text else { unreachable!("a server's tasks are tokens") };
            let open = |position: &usize| given.iter().all(|(known, _)| known != position);
            let start = (0..*length).find(open).unwrap_or(*length);
            let end = (start..*length).find(|position| !open(position)).unwrap_or(*length);
            let canvas = Canvas::new(given, *length);
            Row { before: canvas.prefix(0..start), canvas, blank: start..end, n_seen: 0, sent: String::new() }
        };
        let rows = ask.tasks.iter().flat_map(|task| (0..ask.n).map(move |_| row(task))).collect();
        let id = format!("cmpl-{:016x}{:016x}", rand::random::<u64>(), rand::random::<u64>());
        Self { form, id, created: now(), model, ask, rows, n_ended: 0, n_completion: 0 }
    }

    fn task(&self, place: usize) -> &Task {
        &self.ask.tasks[place / self.ask.n]
    }

    fn seed(&self, place: usize) -> u64 {
        self.task(place).seed + (place % self.ask.n) as u64
    }

    // A frame's data: what every frame of the form has, with this.
    fn data(&self, with: Value) -> Value {
        let mut data = match self.form {
            Form::Completion => json!({
                "id": self.id, "object": "text_completion", "created": self.created, "model": self.model, "choices": [],
            }),
            Form::Infill => json!({"content": "", "stop": false}),
        };
        if let (Value::Object(data), Value::Object(with)) = (&mut data, with) {
            data.extend(with);
        }
        data
    }

    fn choice(&self, place: usize, text: &str, finish: Option<&str>, logprobs: Value) -> Value {
        json!({"index": place, "text": text, "finish_reason": finish, "logprobs": logprobs, "seed": self.seed(place)})
    }

    // What was sent as a piece of the finished text, in the form's frame.
    fn piece(&self, place: usize, text: &str) -> sse::Event {
        let data = match self.form {
            Form::Completion => json!({"choices": [self.choice(place, text, None, Value::Null)]}),
            Form::Infill => json!({"content": text}),
        };
        sse::Event::default().data(self.data(data).to_string())
    }

    // The event `denoise`. Clients that read every event find an ordinary piece in it, an empty one.
    fn denoise(
        &self,
        model: &TextModel,
        place: usize,
        (step, n_steps): (usize, usize),
        change: &RowChange,
    ) -> sse::Event {
        let decoded = change.decoded.iter().zip(&change.log_probabilities);
        let decoded: Vec<Value> = decoded
            .map(|(&(position, token), logprob)| {
                let text = model.decode_with_special(&[token]).unwrap_or_default();
                json!({"position": position, "token": token, "text": text, "logprob": logprob})
            })
            .collect();
        let mut data = json!({
            "index": place, "step": step, "n_steps": n_steps, "seed": self.seed(place), "decoded": decoded,
            "forgotten": change.forgotten, "segments": self.rows[place].canvas.segments(model),
        });
        if self.form == Form::Completion {
            data["choices"] = json!([self.choice(place, "", None, Value::Null)]);
        }
        sse::Event::default().event("denoise").data(self.data(data).to_string())
    }

    fn beginning(&self, model: &TextModel) -> Vec<sse::Event> {
        let mut frames = Vec::new();
        for place in 0..self.rows.len() {
            frames.push(self.denoise(model, place, (0, self.task(place).settings.steps), &RowChange::default()));
            if self.ask.echo {
                frames.push(self.piece(place, &self.ask.prompts[place / self.ask.n]));
            }
        }
        frames
    }

    fn step(&mut self, model: &TextModel, place: usize, steps: (usize, usize), change: &RowChange) -> Vec<sse::Event> {
        self.rows[place].canvas.apply(change);
        let mut frames = vec![self.denoise(model, place, steps, change)];
        let task = self.task(place);
        // What may be forgotten again is not finished.
        if !matches!(task.settings.order, OrderKind::Remask { .. }) {
            let eos = task.ends_at_eos.then_some(model.config().backbone().eos_index as u32);
            let stop = task.stop.clone();
            frames.extend(self.rows[place].finished(model, &stop, eos).map(|text| self.piece(place, &text)));
        }
        frames
    }

    fn done(&mut self, model: &TextModel, place: usize, answer: &TaskOutput) -> Vec<sse::Event> {
        self.n_ended += 1;
        self.n_completion += answer.sampled.order.len();
        let text = answer.blanks.first().map_or("", |blank| blank.text.as_str());
        let sent = &self.rows[place].sent;
        // A decoder that changes its mind about earlier text is followed as far as it agrees.
        let agreed = sent.char_indices().zip(text.chars()).take_while(|((_, a), b)| a == b);
        let rest = &text[agreed.last().map_or(0, |((at, a), _)| at + a.len_utf8())..];
        let reason = Some(reason_of(&answer.finish));
        let data = match self.form {
            Form::Completion => {
                let logprobs = if self.ask.logprobs { logprobs(model, answer, text) } else { Value::Null };
                json!({"choices": [self.choice(place, rest, reason, logprobs)]})
            }
            Form::Infill => {
                let mut data = self.filled(answer);
                // All pieces together are the content of an answer that is not a stream.
                let others = answer.blanks.iter().skip(1).map(|blank| blank.text.as_str());
                data.insert("content".into(), std::iter::once(rest).chain(others).collect::<String>().into());
                Value::Object(data)
            }
        };
        vec![sse::Event::default().data(self.data(data).to_string())]
    }

    fn ending(&self) -> Vec<sse::Event> {
        if self.form == Form::Infill {
            return Vec::new();
        }
        let usage = self.ask.usage.then(|| self.data(json!({"usage": self.usage(self.n_completion)})).to_string());
        usage.into_iter().chain(["[DONE]".into()]).map(|data| sse::Event::default().data(data)).collect()
    }

    fn usage(&self, n_completion: usize) -> Value {
        let n_prompt = self.ask.n_prompt;
        json!({"prompt_tokens": n_prompt, "completion_tokens": n_completion, "total_tokens": n_prompt + n_completion})
    }

    // The answer of a request that is not a stream.
    fn whole(&self, model: &TextModel, answers: &[TaskOutput]) -> Value {
        match (self.form, answers) {
            (Form::Infill, [answer]) => {
                let mut data = self.filled(answer);
                let content: String = answer.blanks.iter().map(|blank| blank.text.as_str()).collect();
                data.insert("content".into(), content.into());
                Value::Object(data)
            }
            _ => {
                let choice = |(place, answer): (usize, &TaskOutput)| {
                    let text = answer.blanks.first().map_or("", |blank| blank.text.as_str());
                    let logprobs = if self.ask.logprobs { logprobs(model, answer, text) } else { Value::Null };
                    let prompt = if self.ask.echo { self.ask.prompts[place / self.ask.n].as_str() } else { "" };
                    self.choice(place, &format!("{prompt}{text}"), Some(reason_of(&answer.finish)), logprobs)
                };
                let choices: Vec<Value> = answers.iter().enumerate().map(choice).collect();
                let n_completion = answers.iter().map(|answer| answer.sampled.order.len()).sum();
                self.data(json!({"choices": choices, "usage": self.usage(n_completion)}))
            }
        }
    }

    fn filled(&self, answer: &TaskOutput) -> Map<String, Value> {
        let blanks: Vec<&str> = answer.blanks.iter().map(|blank| blank.text.as_str()).collect();
        let (seconds, n) = (answer.duration.as_secs_f64(), answer.sampled.order.len());
        let data = json!({
            "stop": true, "model": self.model, "text": answer.text, "blanks": blanks, "seed": answer.seed,
            "steps": answer.steps, "finish_reason": reason_of(&answer.finish), "tokens": answer.sampled.tokens,
            "order": answer.sampled.order, "log_probabilities": answer.sampled.log_probabilities,
            "tokens_predicted": n, "tokens_evaluated": self.ask.n_prompt,
            "timings": {
                "queued_ms": answer.queued.as_secs_f64() * 1e3, "predicted_ms": seconds * 1e3,
                "predicted_per_second": if seconds > 0.0 { n as f64 / seconds } else { 0.0 },
            },
        });
        if let Value::Object(data) = data { data } else { Map::new() }
    }
}

impl Row {
    // What is new of the text that is decoded without a gap from the blank's start and cannot change any more.
    fn finished(&mut self, model: &TextModel, stop: &[String], eos: Option<u32>) -> Option<String> {
        let mut prefix = self.canvas.prefix(self.blank.clone());
        if prefix.len() == self.n_seen {
            return None;
        }
        self.n_seen = prefix.len();
        if let Some(at) = prefix.iter().position(|&token| Some(token) == eos) {
            prefix.truncate(at);
        }
        let mut tokens = self.before.clone();
        tokens.append(&mut prefix);
        let text = model.decode_after(&tokens, self.before.len()).ok()?;
        let text = settled(&text, stop);
        let new = text.strip_prefix(self.sent.as_str()).filter(|new| !new.is_empty())?.to_string();
        self.sent.push_str(&new);
        Some(new)
    }
}

// The part of a text that stays whatever follows: no half character, nothing from a stop string on, nor from what may
// become one.
fn settled<'a>(text: &'a str, stop: &[String]) -> &'a str {
    let text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
    if let Some(at) = stop.iter().filter_map(|stop| text.find(stop.as_str())).min() {
        return &text[..at];
    }
    let begins_stop = |at: &usize| stop.iter().any(|stop| stop.starts_with(&text[*at..]));
    let at = text.char_indices().map(|(at, _)| at).find(begins_stop);
    &text[..at.unwrap_or(text.len())]
}

// OpenAI's account of the tokens of a completion, up to the end of its text.
fn logprobs(model: &TextModel, answer: &TaskOutput, text: &str) -> Value {
    let Some(blank) = answer.blanks.first() else { return Value::Null };
    let sampled = &answer.sampled;
    let start = blank.positions.start;
    let text_of = |token: u32| model.decode_with_special(&[token]).unwrap_or_default();
    let (mut tokens, mut values, mut top, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for position in blank.positions.clone() {
        let Some(place) = sampled.order.iter().position(|&decoded| decoded == position) else { break };
        let context = &sampled.tokens[..position];
        let offset = model.decode_after(context, start).map_or(0, |before| before.chars().count());
        if position > start && offset >= text.chars().count() {
            break;
        }
        tokens.push(text_of(sampled.tokens[position]));
        values.push(sampled.log_probabilities[place]);
        offsets.push(offset);
        if let Some(best) = sampled.alternatives.get(place) {
            let mut best: Map<String, Value> =
                best.iter().map(|&(token, value)| (text_of(token), value.into())).collect();
            best.insert(text_of(sampled.tokens[position]), sampled.log_probabilities[place].into());
            top.push(Value::Object(best));
        }
    }
    let top = if top.is_empty() { Value::Null } else { Value::Array(top) };
    json!({"tokens": tokens, "token_logprobs": values, "top_logprobs": top, "text_offset": offsets})
}

#[cfg(test)]
mod tests {
    use super::settled;

    #[test]
    fn only_what_cannot_change_is_sent() {
        let stop = ["END".to_string(), "\n\n".to_string()];
        let cases = [
            ("abc", "abc"),
            ("abE", "ab"),
            ("abEN", "ab"),
            ("abEND x", "ab"),
            ("a\n", "a"),
            ("a\nb", "a\nb"),
            ("é\u{fffd}", "é"),
        ];
        for (text, expected) in cases {
            assert_eq!(settled(text, &stop), expected, "{text:?}");
        }
        assert_eq!(settled("abE", &[]), "abE");
    }
}
