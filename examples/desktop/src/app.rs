//! The state of the application: the text, the settings, the open model, the running generation. It draws nothing.
//!
//! `text_run.rs` fills texts, `picture_run.rs` draws and refills pictures.
//!
//! Slow work runs on other threads (`worker.rs`, `models.rs`, the engine, jobs). Their messages are received once per frame,
//! so a model that is faster than the screen causes no extra drawing.

mod picture_run;
mod text_run;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use pgm_infer::ImageModel;
use pgm_infer::engine::{Engine, ImageEngine};
use pgm_infer::text::canvas::Segment;
use serde::{Deserialize, Serialize};

use crate::generation::{Generation, GenerationPhase};
use crate::history::History;
use crate::models::{self, ModelSource, OpenError, OpenModel, OpenRequest};
use crate::pictures::Pictures;
use crate::pictures::history::PictureHistory;
use crate::pictures::settings::PictureSettings;
use crate::settings::AppSettings;
use crate::worker::{self, Choice, Message, MessageSender};

/// The editor's text at the first start.
const FIRST_TEXT: &str = "And it came to pass that {12}. And the king said, {10}, and the people {8}.";

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
    /// The codec of the last model that had one.
    pub codec: Option<PathBuf>,
    /// The settings of drawing pictures.
    pub picture_settings: PictureSettings,
    /// The earlier grids.
    pub picture_history: PictureHistory,
}

impl Default for SavedState {
    fn default() -> Self {
        Self {
            text: FIRST_TEXT.into(),
            settings: AppSettings::default(),
            history: History::default(),
            folder: None,
            codec: None,
            picture_settings: PictureSettings::default(),
            picture_history: PictureHistory::default(),
        }
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
        /// The model.
        opened: Box<OpenModel>,
    },
}

impl ModelState {
    /// The engine of an open model of text.
    pub fn engine(&self) -> Option<&Engine> {
        if let Self::Ready { opened, .. } = self { opened.engine() } else { None }
    }

    /// The engine of an open model of pictures.
    pub fn picture_engine(&self) -> Option<&Arc<ImageEngine>> {
        if let Self::Ready { opened, .. } = self { opened.picture_engine() } else { None }
    }

    /// An open model of pictures.
    pub fn pictures(&self) -> Option<&ImageModel> {
        self.picture_engine().map(|engine| engine.model())
    }

    /// The model's name; empty without one.
    pub fn name(&self) -> String {
        match self {
            Self::Ready { source, .. } | Self::Opening { source, .. } => source.name(),
            Self::Absent => String::new(),
        }
    }
}

/// The best device.
const AUTO: &str = "auto";

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
    /// What is drawn and edited.
    pub pictures: Pictures,
    /// Whether the picture view is shown: the model that is open, or was open last, draws pictures.
    pub shows_pictures: bool,
    /// The last error, as one sentence.
    pub error: Option<String>,
    /// What was done, as one sentence.
    pub notice: Option<String>,
    /// The model folder that could not be opened without its codec.
    pub wants_codec: Option<PathBuf>,
    /// Whether a dialog is open.
    pub choosing: bool,
    folder: Option<PathBuf>,
    codec: Option<PathBuf>,
    sender: MessageSender,
    messages: Receiver<Message>,
    next_id: u64,
    opening_id: u64,
    // The model that stays open if the new one cannot be opened.
    previous: Option<(ModelSource, Box<OpenModel>)>,
    // The device of the model that is open.
    open_device: Option<String>,
    // What stays saved while the built-in model stands in for the last one, which could not be opened.
    lost: Option<Box<SavedState>>,
    // Whether the model that opens, or was opened last, stands in for it.
    stands_in: bool,
    // The device that was chosen, while the best one is tried in its place.
    device_before: Option<String>,
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
            devices: vec![AUTO.to_string()],
            generation: None,
            shown: Vec::new(),
            shown_seed: None,
            pictures: Pictures {
                settings: saved.picture_settings,
                history: saved.picture_history,
                ..Pictures::default()
            },
            shows_pictures: false,
            error: None,
            notice: None,
            wants_codec: None,
            choosing: false,
            folder: saved.folder,
            codec: saved.codec,
            sender: MessageSender::new(sender, wake),
            messages,
            next_id: 0,
            opening_id: 0,
            previous: None,
            open_device: None,
            lost: None,
            stands_in: false,
            device_before: None,
        }
    }

    /// Opens a model (the given folder, else the last one, else the built-in model) and lists the devices.
    pub fn start(&mut self, folder: Option<PathBuf>, codec: Option<PathBuf>) {
        worker::list_devices(self.sender.clone());
        let source = match folder {
            Some(folder) => ModelSource::Folder { folder, codec },
            None => self.last_source(),
        };
        self.open(source);
    }

    fn last_source(&self) -> ModelSource {
        self.folder.clone().map_or(ModelSource::Bundled, ModelSource::folder)
    }

    /// The state to save.
    pub fn saved_state(&self) -> SavedState {
        let now = SavedState {
            text: self.text.clone(),
            settings: self.settings.clone(),
            history: self.history.clone(),
            folder: self.folder.clone(),
            codec: self.codec.clone(),
            picture_settings: self.pictures.settings.clone(),
            picture_history: self.pictures.history.clone(),
        };
        match self.lost.as_deref().cloned() {
            Some(lost) => {
                SavedState { text: now.text, history: now.history, picture_history: now.picture_history, ..lost }
            }
            None => now,
        }
    }

    /// Opens a model instead of the current one.
    pub fn open(&mut self, source: ModelSource) {
        self.abandon_generation();
        self.abandon_job();
        (self.error, self.notice, self.wants_codec) = (None, None, None);
        (self.stands_in, self.device_before) = (false, None);
        self.next_id += 1;
        self.opening_id = self.next_id;
        let device = self.settings.device.clone();
        let request = OpenRequest { source: source.clone(), device, last_codec: self.codec.clone() };
        let (id, progress, opened) = (self.opening_id, self.sender.clone(), self.sender.clone());
        models::open(
            request,
            move |share| {
                progress.send(Message::Progress { id, share });
            },
            move |result| {
                opened.send(Message::Opened { id, result });
            },
        );
        if let ModelState::Ready { source, opened } =
            std::mem::replace(&mut self.model, ModelState::Opening { source, share: 0.0 })
        {
            self.previous = Some((source, opened));
        }
    }

    /// Opens the current model again, on the device of the settings.
    pub fn reopen(&mut self) {
        match &self.model {
            ModelState::Opening { source, .. } | ModelState::Ready { source, .. } => {
                let (source, stands_in) = (source.clone(), self.stands_in);
                self.open(source);
                self.stands_in = stands_in;
            }
            ModelState::Absent => self.open(self.last_source()),
        }
    }

    /// Opens what was dropped or chosen: a codec, a picture, or a model folder, for which a file in it may stand.
    pub fn open_path(&mut self, path: PathBuf) {
        let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
        let is_picture = matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg" | "webp"));
        if models::is_codec(&path) {
            self.use_codec(path);
        } else if is_picture && path.is_file() {
            self.read_picture(path);
        } else {
            let folder = if path.is_file() { path.parent().map(PathBuf::from).unwrap_or(path) } else { path };
            self.open(ModelSource::folder(folder));
        }
    }

    /// Opens the model that lacks its codec, or else the current one, with this codec.
    pub fn use_codec(&mut self, codec: PathBuf) {
        let current = match &self.model {
            ModelState::Ready { source: ModelSource::Folder { folder, .. }, .. } if self.shows_pictures => Some(folder),
            _ => None,
        };
        match self.wants_codec.as_ref().or(current).cloned() {
            Some(folder) => self.open(ModelSource::Folder { folder, codec: Some(codec) }),
            None => self.error = Some("This is a codec; open the model of pictures that draws its codes first.".into()),
        }
    }

    /// Opens a dialog.
    pub fn choose(&mut self, choice: Choice) {
        if !std::mem::replace(&mut self.choosing, true) {
            let last = if choice == Choice::Codec { &self.codec } else { &self.folder };
            let start = last.as_ref().and_then(|folder| folder.parent()).map(PathBuf::from);
            worker::choose(choice, start.filter(|_| choice != Choice::Picture), self.sender.clone());
        }
    }

    /// Whether a generation or a job runs.
    pub fn is_running(&self) -> bool {
        let is_running = |generation: &Generation| generation.phase == GenerationPhase::Running;
        self.generation.as_ref().is_some_and(is_running) || self.pictures.is_running()
    }

    /// Whether a generation or a job can start.
    pub fn can_generate(&self) -> bool {
        matches!(self.model, ModelState::Ready { .. }) && !self.is_running()
    }

    /// Fills the blanks of the text, draws the grid, or refills the picture on the canvas. An error goes to [`App::error`].
    pub fn generate(&mut self) {
        if !self.can_generate() {
            return;
        }
        (self.error, self.notice) = (None, None);
        let started = if self.shows_pictures { self.start_pictures() } else { self.start_text() };
        self.error = started.err();
    }

    /// Cancels what runs. It ends with its next event.
    pub fn cancel(&mut self) {
        if let Some(generation) = &self.generation {
            generation.handle.cancel();
        }
        if let Some(run) = &self.pictures.run {
            run.cancel();
        }
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
                Message::Opened { result: Ok(late), .. } => models::close(late),
                Message::TaskEvent { id, event } => self.handle_event(id, *event),
                Message::JobEvent { id, event } => self.handle_job_event(id, event),
                Message::Chosen { choice, path } => {
                    self.choosing = false;
                    match (path, choice) {
                        (Ok(Some(folder)), Choice::Model) => self.open(ModelSource::folder(folder)),
                        (Ok(Some(codec)), Choice::Codec) => self.use_codec(codec),
                        (Ok(Some(picture)), Choice::Picture) => self.read_picture(picture),
                        (Ok(None), _) => {}
                        (Err(error), _) => self.error = Some(error),
                    }
                }
                Message::PictureRead { path, picture } => match picture {
                    Ok(picture) => self.edit_file(&path, picture),
                    Err(error) => self.error = Some(error),
                },
                Message::Saved(saved) => {
                    self.choosing = false;
                    match saved {
                        Ok(notice) => self.notice = notice,
                        Err(error) => self.error = Some(error),
                    }
                }
                Message::Devices(devices) => self.devices = devices,
                Message::Progress { .. } | Message::Opened { .. } => {}
            }
        }
        self.update_shown();
    }

    fn opened(&mut self, result: Result<Box<OpenModel>, OpenError>) {
        let ModelState::Opening { source, .. } = &self.model else { return };
        let source = source.clone();
        match result {
            Ok(opened) => {
                self.folder = match &source {
                    ModelSource::Bundled => None,
                    ModelSource::Folder { folder, .. } => Some(folder.clone()),
                };
                self.open_device = Some(self.settings.device.clone());
                // The settings of the model that is found again.
                if let Some(lost) = self.lost.take_if(|_| !self.stands_in)
                    && lost.folder == self.folder
                {
                    let device = self.settings.device.clone();
                    self.settings = AppSettings { device, ..lost.settings };
                    self.pictures.settings = lost.picture_settings;
                }
                self.codec = opened.codec.clone().or(self.codec.take());
                self.shows_pictures = opened.picture_engine().is_some();
                self.replace(ModelState::Ready { source, opened });
                self.fit_text_settings();
                self.fit_picture_settings();
                if let Some((_, previous)) = self.previous.take() {
                    models::close(previous);
                }
            }
            Err(OpenError { sentence, wants_codec }) => {
                // The previous model stays open on its device. Without one, the same is tried on the best device, and then
                // the built-in model opens.
                let previous = self.previous.take();
                match (previous, &source) {
                    (Some((source, opened)), _) => {
                        self.settings.device = self.open_device.clone().unwrap_or_else(|| AUTO.to_string());
                        self.stands_in = self.lost.is_some();
                        self.replace(ModelState::Ready { source, opened });
                    }
                    (None, _) if self.settings.device != AUTO => {
                        let device = std::mem::replace(&mut self.settings.device, AUTO.to_string());
                        self.open(source.clone());
                        self.device_before = Some(device);
                    }
                    (None, ModelSource::Folder { .. }) => {
                        let mut lost = self.saved_state();
                        if let Some(device) = self.device_before.take() {
                            lost.settings.device = device;
                        }
                        self.open(ModelSource::Bundled);
                        (self.lost, self.stands_in) = (Some(Box::new(lost)), true);
                    }
                    (None, ModelSource::Bundled) => self.replace(ModelState::Absent),
                }
                self.error = Some(sentence);
                self.wants_codec = match source {
                    ModelSource::Folder { folder, .. } if wants_codec => Some(folder),
                    _ => None,
                };
            }
        }
    }

    // What settings say of the model that they were made for.
    fn folder_name(&self) -> String {
        self.folder.as_ref().map_or_else(String::new, |folder| folder.display().to_string())
    }

    fn replace(&mut self, model: ModelState) {
        if let ModelState::Ready { opened, .. } = std::mem::replace(&mut self.model, model) {
            models::close(opened);
        }
    }
}

#[cfg(test)]
mod tests;
