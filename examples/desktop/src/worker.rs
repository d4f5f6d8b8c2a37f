//! Slow work, each on its own thread: opening models, the folder dialog, the search for devices.
//!
//! A thread sends a [`Message`] and then wakes the window. The window never waits for a thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use pgm_infer::device::DeviceName;
use pgm_infer::engine::{Engine, EngineOptions, TaskEvent};
use pgm_infer::{ModelBytes, TextModel};

use crate::settings::sentence;

const BUNDLED: ModelBytes<'static> = ModelBytes {
    config: include_bytes!("../model/config.json"),
    weights: include_bytes!("../model/model.safetensors"),
    tokenizer: include_bytes!("../model/tokenizer.json"),
    generation: None,
};

/// Where a model is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// The model that is part of the program.
    Bundled,
    /// A model folder.
    Folder(PathBuf),
}

impl ModelSource {
    /// Its name in the window.
    pub fn name(&self) -> String {
        match self {
            Self::Bundled => "Built-in model".to_string(),
            Self::Folder(folder) => match folder.file_name() {
                // Training names every model folder `model`, so the parent's name is shown too.
                Some(name) if name == "model" => {
                    let parent = folder.parent().and_then(Path::file_name);
                    parent.map_or("model".into(), |parent| format!("{}/model", parent.to_string_lossy()))
                }
                Some(name) => name.to_string_lossy().into_owned(),
                None => folder.display().to_string(),
            },
        }
    }
}

/// An open model.
#[derive(Debug)]
pub struct OpenModel {
    /// The engine that runs the model.
    pub engine: Engine,
    /// The name of its device.
    pub device: String,
}

/// A message of a thread to the window.
#[derive(Debug)]
pub enum Message {
    /// A part of a model is read.
    Progress {
        /// Identifies the call of [`open`].
        id: u64,
        /// The share that is read, from 0 to 1.
        share: f64,
    },
    /// A model is open, or an error in one sentence.
    Opened {
        /// Identifies the call of [`open`].
        id: u64,
        /// The model or the error.
        result: Result<Box<OpenModel>, String>,
    },
    /// An event of a generation.
    TaskEvent {
        /// Identifies the generation.
        id: u64,
        /// The event.
        event: Box<TaskEvent>,
    },
    /// The folder dialog was closed, with a folder or without. An error if the system has no dialog.
    Chosen(Result<Option<PathBuf>, String>),
    /// The names of the available devices.
    Devices(Vec<String>),
}

/// Sends messages and wakes the window.
#[derive(Clone)]
pub struct MessageSender {
    sender: Sender<Message>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for MessageSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MessageSender").finish_non_exhaustive()
    }
}

impl MessageSender {
    /// Sends to `sender` and then calls `wake`.
    pub fn new(sender: Sender<Message>, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { sender, wake }
    }

    /// Sends a message; false when the receiver is gone.
    pub fn send(&self, message: Message) -> bool {
        let sent = self.sender.send(message).is_ok();
        (self.wake)();
        sent
    }
}

/// Opens a model and sends [`Message::Opened`].
pub fn open(source: ModelSource, device: String, id: u64, messages: MessageSender) {
    std::thread::spawn(move || {
        let read = || {
            open_model(&source, &device, &|share| {
                messages.send(Message::Progress { id, share });
            })
        };
        let result = catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(format!("{} could not be opened: the device {device} failed.", source.name())));
        messages.send(Message::Opened { id, result: result.map(Box::new) });
    });
}

fn open_model(source: &ModelSource, device: &str, progress: &dyn Fn(f64)) -> Result<OpenModel, String> {
    let name: DeviceName = device.parse().map_err(|error: String| sentence(&error))?;
    let (device, name) = name.open().map_err(|error| sentence(&error))?;
    let options = EngineOptions::default();
    let engine = match source {
        ModelSource::Bundled => Engine::from_bytes(&BUNDLED, &device, &options, progress),
        ModelSource::Folder(folder) => {
            TextModel::load_with_progress(folder, &device, progress).and_then(|model| Engine::new(model, &options))
        }
    };
    Ok(OpenModel { engine: engine.map_err(|error| sentence(&error.to_string()))?, device: name })
}

/// Drops a model. The drop waits for the engine's current step, so it has its own thread.
pub fn close(opened: Box<OpenModel>) {
    std::thread::spawn(move || drop(opened));
}

/// Opens a dialog for a model folder and sends [`Message::Chosen`].
pub fn choose_folder(start: Option<PathBuf>, messages: MessageSender) {
    let mut dialog = rfd::AsyncFileDialog::new().set_title("Open a model folder");
    if let Some(start) = start {
        dialog = dialog.set_directory(start);
    }
    // macOS requires that the dialog is opened on the main thread.
    let chosen = dialog.pick_folder();
    std::thread::spawn(move || {
        let opened_at = Instant::now();
        let chosen = pollster::block_on(chosen).map(|folder| folder.path().to_path_buf());
        // A dialog that ends this fast was never shown.
        let absent = chosen.is_none() && opened_at.elapsed() < Duration::from_millis(200);
        let none = "This system offers no folder dialog; drop a model folder onto the window instead.";
        messages.send(Message::Chosen(if absent { Err(none.to_string()) } else { Ok(chosen) }));
    });
}

/// Finds the available devices and sends [`Message::Devices`]. Drivers may take seconds.
pub fn list_devices(messages: MessageSender) {
    std::thread::spawn(move || {
        let mut names = vec!["auto".to_string()];
        let compiled = [
            ("cuda", cfg!(feature = "cuda")),
            ("metal", cfg!(feature = "metal")),
            ("vulkan", cfg!(feature = "vulkan")),
            ("wgpu", cfg!(feature = "wgpu")),
            ("flex", cfg!(feature = "flex")),
        ];
        for (backend, _) in compiled.into_iter().filter(|(_, compiled)| *compiled) {
            let is_present = |name: &str| name.parse().is_ok_and(|name: DeviceName| name.open().is_ok());
            let n = (0..8).take_while(|index| is_present(&format!("{backend}:{index}"))).count();
            match n {
                0 => {}
                1 => names.push(backend.to_string()),
                n => names.extend((0..n).map(|index| format!("{backend}:{index}"))),
            }
        }
        messages.send(Message::Devices(names));
    });
}
