//! The state of the application: the text, the settings, the open model, the running generation. It draws nothing.
//!
//! Slow work runs on other threads (`worker.rs`, the engine). Their messages are received once per frame, so a model that is
//! faster than the screen causes no extra drawing.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use pgm_infer::engine::{Finish, TaskEvent};
use pgm_infer::sample::RowChange;
use pgm_infer::settings::default_schedule;
use pgm_infer::text::canvas::{Canvas, Segment};
use pgm_infer::text::template;
use serde::{Deserialize, Serialize};

use crate::generation::{Generation, GenerationPhase};
use crate::history::{self, History, HistoryEntry};
use crate::settings::{AppSettings, sentence};
use crate::worker::{self, Message, MessageSender, ModelSource, OpenModel};

/// The editor's text at the first start.
const FIRST_TEXT: &str = "Once upon a time there was {12}. Every day she {8}, and in the end {*}";

/// The state that is saved between runs of the program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SavedState {
    /// The text with its blanks.
    pub text: String,
    /// The settings.
    pub settings: AppSettings,
    /// The earlier results.
    pub history: History,
    /// The model folder that was open; absent for the built-in model.
    pub folder: Option<PathBuf>,
}

impl Default for SavedState {
    fn default() -> Self {
        Self { text: FIRST_TEXT.into(), settings: AppSettings::default(), history: History::default(), folder: None }
    }
}

/// The state of the model.
#[derive(Debug)]
pub enum ModelState {
    /// No model is open.
    Absent,
    /// A model is being opened.
    Opening {
        /// Where it is read from.
        source: ModelSource,
        /// The share that is read, from 0 to 1.
        share: f64,
    },
    /// A model is open.
    Ready {
        /// Where it was read from.
        source: ModelSource,
        /// The model on its engine.
        opened: Box<OpenModel>,
    },
}

/// The state of the application.
#[derive(Debug)]
pub struct App {
    /// The text with its blanks.
    pub text: String,
    /// The settings.
    pub settings: AppSettings,
    /// The earlier results.
    pub history: History,
    /// The model.
    pub model: ModelState,
    /// Names of the available devices.
    pub devices: Vec<String>,
    /// The running or the last generation; absent after a result of the history was restored.
    pub generation: Option<Generation>,
    /// The result's text.
    pub shown: Vec<Segment>,
    /// The seed of the result.
    pub shown_seed: Option<u64>,
    /// The last error, as one sentence.
    pub error: Option<String>,
    /// Whether the folder dialog is open.
    pub choosing: bool,
    folder: Option<PathBuf>,
    sender: MessageSender,
    messages: Receiver<Message>,
    next_id: u64,
    opening_id: u64,
    // The model that stays open if the new one cannot be opened.
    previous: Option<(ModelSource, Box<OpenModel>)>,
}

impl App {
    /// The saved state, without a model yet. `wake` is called from any thread after it has sent a message.
    pub fn new(saved: SavedState, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        let (sender, messages) = channel();
        Self {
            text: saved.text,
            settings: saved.settings,
            history: saved.history,
            model: ModelState::Absent,
            devices: vec!["auto".to_string()],
            generation: None,
            shown: Vec::new(),
            shown_seed: None,
            error: None,
            choosing: false,
            folder: saved.folder,
            sender: MessageSender::new(sender, wake),
            messages,
            next_id: 0,
            opening_id: 0,
            previous: None,
        }
    }

    /// Opens a model (the given folder, else the last one, else the built-in model) and lists the devices.
    pub fn start(&mut self, folder: Option<PathBuf>) {
        let folder = folder.or_else(|| self.folder.clone());
        worker::list_devices(self.sender.clone());
        self.open(folder.map_or(ModelSource::Bundled, ModelSource::Folder));
    }

    /// The state to save.
    pub fn saved_state(&self) -> SavedState {
        SavedState {
            text: self.text.clone(),
            settings: self.settings.clone(),
            history: self.history.clone(),
            folder: self.folder.clone(),
        }
    }

    /// Opens a model instead of the current one.
    pub fn open(&mut self, source: ModelSource) {
        self.abandon_generation();
        self.error = None;
        self.next_id += 1;
        self.opening_id = self.next_id;
        worker::open(source.clone(), self.settings.device.clone(), self.opening_id, self.sender.clone());
        if let ModelState::Ready { source, opened } =
            std::mem::replace(&mut self.model, ModelState::Opening { source, share: 0.0 })
        {
            self.previous = Some((source, opened));
        }
    }

    /// Opens the current model again, on the device of the settings.
    pub fn reopen(&mut self) {
        match &self.model {
            ModelState::Opening { source, .. } | ModelState::Ready { source, .. } => self.open(source.clone()),
            ModelState::Absent => self.open(self.folder.clone().map_or(ModelSource::Bundled, ModelSource::Folder)),
        }
    }

    /// Opens a dialog for a model folder.
    pub fn choose_folder(&mut self) {
        if !std::mem::replace(&mut self.choosing, true) {
            let start = self.folder.as_ref().and_then(|folder| folder.parent()).map(PathBuf::from);
            worker::choose_folder(start, self.sender.clone());
        }
    }

    /// Whether a generation runs.
    pub fn is_running(&self) -> bool {
        self.generation.as_ref().is_some_and(|generation| generation.phase == GenerationPhase::Running)
    }

    /// Whether a generation can start.
    pub fn can_generate(&self) -> bool {
        matches!(self.model, ModelState::Ready { .. }) && !self.is_running()
    }

    /// Starts to fill the blanks of the text. An error goes to [`App::error`].
    pub fn generate(&mut self) {
        if !self.can_generate() {
            return;
        }
        self.error = None;
        match self.start_generation() {
            Ok(generation) => {
                self.shown_seed = Some(generation.seed);
                self.generation = Some(generation);
                self.update_shown();
            }
            Err(error) => self.error = Some(error),
        }
    }

    fn start_generation(&mut self) -> Result<Generation, String> {
        let ModelState::Ready { opened, .. } = &self.model else { return Err("No model is open.".into()) };
        let message = |error: pgm_infer::InferError| sentence(&error.to_string());
        let seed = self.settings.seed()?;
        let parts = template::parse(&self.text, self.settings.blank).map_err(message)?;
        let row = opened.engine.model().row(&parts, None, seed).map_err(message)?;
        let mut task = self.settings.task(parts, seed)?;
        task.settings.schedule = default_schedule(opened.engine.model().config());
        let n_steps = task.settings.steps;
        self.next_id += 1;
        let (id, sender) = (self.next_id, self.sender.clone());
        let listener = move |event| match sender.send(Message::TaskEvent { id, event: Box::new(event) }) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        };
        let handle = opened.engine.submit(task, Box::new(listener)).map_err(message)?;
        Ok(Generation {
            id,
            handle,
            canvas: Canvas::of_row(&row),
            changed: true,
            template: self.text.clone(),
            settings: self.settings.clone(),
            started: Instant::now(),
            duration: None,
            seed,
            phase: GenerationPhase::Running,
            step: 0,
            n_steps,
            n_tokens: 0,
        })
    }

    /// Cancels the running generation. It ends with its next event.
    pub fn cancel(&mut self) {
        if let Some(generation) = &self.generation {
            generation.handle.cancel();
        }
    }

    // Cancels the running generation and ignores its later events: another model cannot decode its tokens.
    fn abandon_generation(&mut self) {
        self.update_shown();
        let running = |generation: &&mut Generation| generation.phase == GenerationPhase::Running;
        if let Some(generation) = self.generation.as_mut().filter(running) {
            generation.handle.cancel();
            generation.duration = Some(generation.started.elapsed());
            generation.phase = GenerationPhase::Cancelled;
            generation.id = 0;
        }
    }

    /// Shows a result of the history and restores its text, seed and settings.
    pub fn restore(&mut self, index: usize) {
        let Some(entry) = self.history.get(index).cloned() else { return };
        self.cancel();
        self.generation = None;
        self.shown = history::segments(&entry.pieces);
        self.shown_seed = Some(entry.seed);
        self.text = entry.template;
        let device = std::mem::take(&mut self.settings.device);
        // The device stays as it is now.
        self.settings = AppSettings { seed: entry.seed.to_string(), device, ..entry.settings };
        self.error = None;
    }

    /// The result's text without its open tokens.
    pub fn shown_text(&self) -> String {
        let text = |segment: &Segment| match segment {
            Segment::Given { text } | Segment::Decoded { text } | Segment::New { text } => text.clone(),
            Segment::Open { .. } => String::new(),
        };
        self.shown.iter().map(text).collect()
    }

    /// Number of open tokens in the result.
    pub fn n_open(&self) -> usize {
        let open = |segment: &Segment| if let Segment::Open { n } = segment { *n } else { 0 };
        self.shown.iter().map(open).sum()
    }

    /// Handles the messages of other threads. Called once per frame.
    pub fn receive_messages(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            match message {
                Message::Progress { id, share } if id == self.opening_id => {
                    if let ModelState::Opening { share: shown, .. } = &mut self.model {
                        *shown = share;
                    }
                }
                Message::Opened { id, result } if id == self.opening_id => self.opened(result),
                Message::Opened { result: Ok(late), .. } => worker::close(late),
                Message::TaskEvent { id, event } => self.handle_event(id, *event),
                Message::Chosen(chosen) => {
                    self.choosing = false;
                    match chosen {
                        Ok(Some(folder)) => self.open(ModelSource::Folder(folder)),
                        Ok(None) => {}
                        Err(error) => self.error = Some(error),
                    }
                }
                Message::Devices(devices) => self.devices = devices,
                Message::Progress { .. } | Message::Opened { .. } => {}
            }
        }
        self.update_shown();
    }

    fn opened(&mut self, result: Result<Box<OpenModel>, String>) {
        let ModelState::Opening { source, .. } = &self.model else { return };
        let source = source.clone();
        match result {
            Ok(opened) => {
                self.folder = match &source {
                    ModelSource::Bundled => None,
                    ModelSource::Folder(folder) => Some(folder.clone()),
                };
                self.replace(ModelState::Ready { source, opened });
                if let Some((_, previous)) = self.previous.take() {
                    worker::close(previous);
                }
            }
            Err(error) => {
                // The previous model stays open; without one, the built-in model opens.
                let previous = self.previous.take();
                match (previous, &source) {
                    (Some((source, opened)), _) => self.replace(ModelState::Ready { source, opened }),
                    (None, ModelSource::Folder(_)) => self.open(ModelSource::Bundled),
                    (None, ModelSource::Bundled) => self.replace(ModelState::Absent),
                }
                self.error = Some(error);
            }
        }
    }

    fn replace(&mut self, model: ModelState) {
        if let ModelState::Ready { opened, .. } = std::mem::replace(&mut self.model, model) {
            worker::close(opened);
        }
    }

    fn handle_event(&mut self, id: u64, event: TaskEvent) {
        let Some(generation) = self.generation.as_mut().filter(|generation| generation.id == id) else { return };
        match event {
            TaskEvent::Step { step, n_steps, change, .. } => {
                (generation.step, generation.n_steps) = (step, n_steps);
                generation.n_tokens += change.decoded.len();
                generation.canvas.apply(&change);
                generation.changed = true;
            }
            TaskEvent::Done(output) => {
                generation.duration = Some(output.duration);
                generation.step = output.steps;
                if output.finish == Finish::Cancelled {
                    generation.phase = GenerationPhase::Cancelled;
                    return;
                }
                generation.phase = GenerationPhase::Complete;
                // An empty change: no token is new any more.
                generation.canvas.apply(&RowChange::default());
                generation.changed = true;
                let model = match &self.model {
                    ModelState::Ready { source, .. } | ModelState::Opening { source, .. } => source.name(),
                    ModelState::Absent => String::new(),
                };
                let entry = HistoryEntry {
                    template: generation.template.clone(),
                    text: output.text,
                    pieces: Vec::new(),
                    seed: generation.seed,
                    settings: generation.settings.clone(),
                    model,
                    steps: output.steps,
                    seconds: output.duration.as_secs_f64(),
                };
                self.update_shown();
                self.history.push(HistoryEntry { pieces: history::pieces(&self.shown), ..entry });
            }
            TaskEvent::Failed { error, .. } => {
                generation.duration = Some(generation.started.elapsed());
                generation.phase = GenerationPhase::Failed;
                self.error = Some(sentence(&error.to_string()));
            }
        }
    }

    fn update_shown(&mut self) {
        let Some(generation) = self.generation.as_mut() else { return };
        let ModelState::Ready { opened, .. } = &self.model else { return };
        if std::mem::take(&mut generation.changed) {
            self.shown = generation.canvas.segments(opened.engine.model());
        }
    }
}

#[cfg(test)]
mod tests;
