//! The state of the window: what is open, what is being written, what was written. It draws nothing.
//!
//! Everything that takes time happens on other threads (`worker.rs`, the engine); what they send is taken in once a frame,
//! so that a model which is faster than the screen costs no more than one frame of drawing.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use pgm_infer::engine::{Finish, TaskEvent, TaskHandle};
use pgm_infer::sample::RowChange;
use pgm_infer::settings::default_schedule;
use pgm_infer::text::canvas::{Canvas, Segment};
use pgm_infer::text::template;
use serde::{Deserialize, Serialize};

use crate::history::{self, Entry, History};
use crate::settings::{Settings, sentence};
use crate::worker::{self, Message, Opened, Post, Source};

/// What the editor holds at the first start.
const FIRST_TEXT: &str = "Once upon a time there was {12}. Every day she {8}, and in the end {*}";

/// What is kept between runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// The text with its blanks.
    pub text: String,
    /// The settings.
    pub settings: Settings,
    /// The results.
    pub history: History,
    /// The model folder that was open; nothing for the built-in model.
    pub folder: Option<PathBuf>,
}

impl Default for Kept {
    fn default() -> Self {
        Self { text: FIRST_TEXT.into(), settings: Settings::default(), history: History::default(), folder: None }
    }
}

/// The model, as far as it is there.
#[derive(Debug)]
pub enum Model {
    /// None could be opened.
    Absent,
    /// It is being read.
    Opening {
        /// Where from.
        source: Source,
        /// How much of it is read, from 0 to 1.
        share: f64,
    },
    /// It can write.
    Ready {
        /// Where it came from.
        source: Source,
        /// The engine.
        opened: Box<Opened>,
    },
}

/// How far a generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It writes.
    SampleRow,
    /// It has written everything.
    Complete,
    /// It was stopped.
    Cancelled,
    /// It went wrong.
    Failed,
}

/// A generation, kept after its end for the status line.
#[derive(Debug)]
pub struct Run {
    id: u64,
    ticket: TaskHandle,
    canvas: Canvas,
    changed: bool,
    template: String,
    settings: Settings,
    started: Instant,
    took: Option<Duration>,
    /// Its seed.
    pub seed: u64,
    /// How far it is.
    pub phase: Phase,
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub n_steps: usize,
    /// Tokens written.
    pub n_tokens: usize,
}

impl Run {
    /// Time it has taken.
    pub fn seconds(&self) -> f64 {
        self.took.unwrap_or_else(|| self.started.elapsed()).as_secs_f64()
    }

    /// Tokens a second, once there is something to divide.
    pub fn speed(&self) -> Option<f64> {
        let seconds = self.seconds();
        (self.n_tokens > 0 && seconds > 0.0).then(|| self.n_tokens as f64 / seconds)
    }
}

/// The state.
#[derive(Debug)]
pub struct App {
    /// The text with its blanks.
    pub text: String,
    /// The settings.
    pub settings: Settings,
    /// The results.
    pub history: History,
    /// The model.
    pub model: Model,
    /// Devices to choose from.
    pub devices: Vec<String>,
    /// The generation that runs or the last one; nothing after a result of the history was taken back.
    pub run: Option<Run>,
    /// The text as it fills.
    pub shown: Vec<Segment>,
    /// The seed of what is shown.
    pub shown_seed: Option<u64>,
    /// One sentence on what went wrong last.
    pub error: Option<String>,
    /// Whether a folder is being asked for.
    pub choosing: bool,
    folder: Option<PathBuf>,
    post: Post,
    messages: Receiver<Message>,
    next_id: u64,
    opening: u64,
    // The model that stays if the one that is being opened cannot be.
    before: Option<(Source, Box<Opened>)>,
}

impl App {
    /// What was kept, with no model yet; `wake` is called from any thread when there is something to take in.
    pub fn new(kept: Kept, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        let (sender, messages) = channel();
        Self {
            text: kept.text,
            settings: kept.settings,
            history: kept.history,
            model: Model::Absent,
            devices: vec!["auto".to_string()],
            run: None,
            shown: Vec::new(),
            shown_seed: None,
            error: None,
            choosing: false,
            folder: kept.folder,
            post: Post::new(sender, wake),
            messages,
            next_id: 0,
            opening: 0,
            before: None,
        }
    }

    /// Opens the first model (a folder that was asked for, else the last one, else the built-in one) and looks for devices.
    pub fn start(&mut self, folder: Option<PathBuf>) {
        let folder = folder.or_else(|| self.folder.clone());
        worker::devices(self.post.clone());
        self.open(folder.map_or(Source::Bundled, Source::Folder));
    }

    /// What is to be kept.
    pub fn kept(&self) -> Kept {
        Kept {
            text: self.text.clone(),
            settings: self.settings.clone(),
            history: self.history.clone(),
            folder: self.folder.clone(),
        }
    }

    /// Opens a model in the place of the one that is open.
    pub fn open(&mut self, source: Source) {
        self.let_go();
        self.error = None;
        self.next_id += 1;
        self.opening = self.next_id;
        worker::open(source.clone(), self.settings.device.clone(), self.opening, self.post.clone());
        if let Model::Ready { source, opened } =
            std::mem::replace(&mut self.model, Model::Opening { source, share: 0.0 })
        {
            self.before = Some((source, opened));
        }
    }

    /// Opens the same model again, on the device of the settings.
    pub fn reopen(&mut self) {
        match &self.model {
            Model::Opening { source, .. } | Model::Ready { source, .. } => self.open(source.clone()),
            Model::Absent => self.open(self.folder.clone().map_or(Source::Bundled, Source::Folder)),
        }
    }

    /// Asks for a model folder.
    pub fn choose(&mut self) {
        if !std::mem::replace(&mut self.choosing, true) {
            let start = self.folder.as_ref().and_then(|folder| folder.parent()).map(PathBuf::from);
            worker::choose(start, self.post.clone());
        }
    }

    /// Whether a generation runs.
    pub fn is_running(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.phase == Phase::SampleRow)
    }

    /// Whether a generation can start.
    pub fn can_generate(&self) -> bool {
        matches!(self.model, Model::Ready { .. }) && !self.is_running()
    }

    /// Starts to fill the text; what is wrong with it is said in [`App::error`].
    pub fn generate(&mut self) {
        if !self.can_generate() {
            return;
        }
        self.error = None;
        match self.started() {
            Ok(run) => {
                self.shown_seed = Some(run.seed);
                self.run = Some(run);
                self.show();
            }
            Err(error) => self.error = Some(error),
        }
    }

    fn started(&mut self) -> Result<Run, String> {
        let Model::Ready { opened, .. } = &self.model else { return Err("No model is open.".into()) };
        let said = |error: pgm_infer::InferError| sentence(&error.to_string());
        let seed = self.settings.seed()?;
        let parts = template::parse(&self.text, self.settings.blank).map_err(said)?;
        let request = opened.engine.model().request(&parts, None, seed).map_err(said)?;
        let mut task = self.settings.task(parts, seed)?;
        task.settings.schedule = default_schedule(opened.engine.model().config());
        let n_steps = task.settings.steps;
        self.next_id += 1;
        let (id, post) = (self.next_id, self.post.clone());
        let listener = move |event| match post.send(Message::TaskEvent { id, event: Box::new(event) }) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        };
        let ticket = opened.engine.submit(task, Box::new(listener)).map_err(said)?;
        Ok(Run {
            id,
            ticket,
            canvas: Canvas::new(&request.given, request.length),
            changed: true,
            template: self.text.clone(),
            settings: self.settings.clone(),
            started: Instant::now(),
            took: None,
            seed,
            phase: Phase::SampleRow,
            step: 0,
            n_steps,
            n_tokens: 0,
        })
    }

    /// Stops what runs; it ends with its next message.
    pub fn cancel(&mut self) {
        if let Some(run) = &self.run {
            run.ticket.cancel();
        }
    }

    // Ends what runs now, whatever is still to come of it: another model cannot read its tokens.
    fn let_go(&mut self) {
        self.show();
        if let Some(run) = self.run.as_mut().filter(|run| run.phase == Phase::SampleRow) {
            run.ticket.cancel();
            run.took = Some(run.started.elapsed());
            run.phase = Phase::Cancelled;
            run.id = 0;
        }
    }

    /// Shows a result of the history, with its text, seed and settings to go on from.
    pub fn restore(&mut self, index: usize) {
        let Some(entry) = self.history.get(index).cloned() else { return };
        self.cancel();
        self.run = None;
        self.shown = history::segments(&entry.pieces);
        self.shown_seed = Some(entry.seed);
        self.text = entry.template;
        let device = std::mem::take(&mut self.settings.device);
        // The device is a matter of today.
        self.settings = Settings { seed: entry.seed.to_string(), device, ..entry.settings };
        self.error = None;
    }

    /// The text that is shown, without what is still open.
    pub fn shown_text(&self) -> String {
        let text = |segment: &Segment| match segment {
            Segment::Given { text } | Segment::Decoded { text } | Segment::New { text } => text.clone(),
            Segment::Open { .. } => String::new(),
        };
        self.shown.iter().map(text).collect()
    }

    /// Tokens of what is shown that are still open.
    pub fn n_open(&self) -> usize {
        let open = |segment: &Segment| if let Segment::Open { n } = segment { *n } else { 0 };
        self.shown.iter().map(open).sum()
    }

    /// Takes in what the threads sent; once a frame.
    pub fn take_in(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            match message {
                Message::Progress { id, share } if id == self.opening => {
                    if let Model::Opening { share: shown, .. } = &mut self.model {
                        *shown = share;
                    }
                }
                Message::Opened { id, result } if id == self.opening => self.opened(result),
                Message::Opened { result: Ok(late), .. } => worker::close(late),
                Message::TaskEvent { id, event } => self.heard(id, *event),
                Message::Chosen(chosen) => {
                    self.choosing = false;
                    match chosen {
                        Ok(Some(folder)) => self.open(Source::Folder(folder)),
                        Ok(None) => {}
                        Err(error) => self.error = Some(error),
                    }
                }
                Message::Devices(devices) => self.devices = devices,
                Message::Progress { .. } | Message::Opened { .. } => {}
            }
        }
        self.show();
    }

    fn opened(&mut self, result: Result<Box<Opened>, String>) {
        let Model::Opening { source, .. } = &self.model else { return };
        let source = source.clone();
        match result {
            Ok(opened) => {
                self.folder = match &source {
                    Source::Bundled => None,
                    Source::Folder(folder) => Some(folder.clone()),
                };
                self.replace(Model::Ready { source, opened });
                if let Some((_, before)) = self.before.take() {
                    worker::close(before);
                }
            }
            Err(error) => {
                // What was open before stays open; a folder that is gone is no reason to have nothing.
                let before = self.before.take();
                match (before, &source) {
                    (Some((source, opened)), _) => self.replace(Model::Ready { source, opened }),
                    (None, Source::Folder(_)) => self.open(Source::Bundled),
                    (None, Source::Bundled) => self.replace(Model::Absent),
                }
                self.error = Some(error);
            }
        }
    }

    fn replace(&mut self, model: Model) {
        if let Model::Ready { opened, .. } = std::mem::replace(&mut self.model, model) {
            worker::close(opened);
        }
    }

    fn heard(&mut self, id: u64, event: TaskEvent) {
        let Some(run) = self.run.as_mut().filter(|run| run.id == id) else { return };
        match event {
            TaskEvent::Step { step, n_steps, change, .. } => {
                (run.step, run.n_steps) = (step, n_steps);
                // What is forgotten again was written all the same.
                run.n_tokens += change.decoded.len();
                run.canvas.apply(&change);
                run.changed = true;
            }
            TaskEvent::Done(answer) => {
                run.took = Some(answer.duration);
                run.step = answer.steps;
                if answer.finish == Finish::Cancelled {
                    run.phase = Phase::Cancelled;
                    return;
                }
                run.phase = Phase::Complete;
                // The end is not news.
                run.canvas.apply(&RowChange::default());
                run.changed = true;
                let model = match &self.model {
                    Model::Ready { source, .. } | Model::Opening { source, .. } => source.name(),
                    Model::Absent => String::new(),
                };
                let entry = Entry {
                    template: run.template.clone(),
                    text: answer.text,
                    pieces: Vec::new(),
                    seed: run.seed,
                    settings: run.settings.clone(),
                    model,
                    steps: answer.steps,
                    seconds: answer.duration.as_secs_f64(),
                };
                self.show();
                self.history.push(Entry { pieces: history::pieces(&self.shown), ..entry });
            }
            TaskEvent::Failed { error, .. } => {
                run.took = Some(run.started.elapsed());
                run.phase = Phase::Failed;
                self.error = Some(sentence(&error.to_string()));
            }
        }
    }

    fn show(&mut self) {
        let Some(run) = self.run.as_mut() else { return };
        let Model::Ready { opened, .. } = &self.model else { return };
        if std::mem::take(&mut run.changed) {
            self.shown = run.canvas.segments(opened.engine.model());
        }
    }
}

#[cfg(test)]
mod tests;
