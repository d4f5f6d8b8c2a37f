//! The stream of a request for text: its samples' events in a protocol's form.

use std::sync::Arc;

use axum::response::{Response, sse};

use super::error::ApiError;
use super::progress::SampleProgress;
use super::run::{Run, SampleEvent};
use super::state::LoadedModel;
use super::stream::{Client, TEXT_EVENTS, respond};
use crate::TextModel;
use crate::engine::{Task, TaskOutput};
use crate::text::denoise::DenoiseStep;

/// The events of a stream in one protocol's form. Samples are numbered over the request.
pub trait StreamFormat: Send + 'static {
    /// Whether the client asks for the event `denoise`.
    fn tells_steps(&self) -> bool {
        false
    }

    /// A step that changes something: the named event `denoise`.
    fn denoise(&self, step: DenoiseStep) -> sse::Event;

    /// The given text that is repeated before a sample's, if the request asks for it.
    fn echo(&self, sample: usize) -> Option<&str>;

    /// New text of a sample.
    fn text(&self, sample: usize, seed: u64, text: &str) -> sse::Event;

    /// The end of a sample; `rest` is the text that was not sent yet.
    fn done(&mut self, sample: usize, rest: &str, output: &TaskOutput, model: &TextModel) -> sse::Event;

    /// The end of the stream.
    fn end(&self) -> Vec<sse::Event>;
}

/// Sends the events of the samples in a protocol's form. The request's timeout counts for this, too: a client that reads too
/// slowly loses the rest of the stream, and its places are free.
pub fn stream_text(run: Run, model: &Arc<LoadedModel>, tasks: &[Task], format: impl StreamFormat) -> Response {
    let samples = SampleProgress::of_tasks(tasks, model.engine.model(), format.tells_steps());
    let model = Arc::clone(model);
    respond(TEXT_EVENTS, |client| send_events(run, model, samples, format, client))
}

async fn send_events(
    mut run: Run,
    loaded: Arc<LoadedModel>,
    mut samples: Vec<SampleProgress>,
    mut format: impl StreamFormat,
    client: Client,
) -> Result<(), ApiError> {
    let (model, deadline) = (loaded.engine.model(), run.request().deadline());
    let mut events = Vec::new();
    for (index, sample) in samples.iter().enumerate() {
        events.extend(sample.start().map(|step| format.denoise(step)));
        events.extend(format.echo(index).map(|text| format.text(index, sample.seed(), text)));
    }
    loop {
        for event in events.drain(..) {
            client.send(event, deadline, || run.request().late()).await?;
        }
        match run.next().await? {
            Some(SampleEvent::Step { sample: index, steps, change }) => {
                let sample = &mut samples[index];
                events.extend(sample.apply(steps, &change, model).map(|step| format.denoise(step)));
                events.extend(sample.new_text(model).map(|text| format.text(index, sample.seed(), &text)));
            }
            Some(SampleEvent::Done { sample: index, output }) => {
                let text = output.blanks.first().map_or("", |blank| blank.text.as_str());
                events.push(format.done(index, samples[index].rest(text), &output, model));
            }
            None => break,
        }
    }
    for event in format.end() {
        client.send(event, deadline, || run.request().late()).await?;
    }
    Ok(())
}
