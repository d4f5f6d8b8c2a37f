//! What takes time, each on a thread of its own: opening models, asking for a folder, looking for devices.
//!
//! Threads send a [`Message`] and then wake the window; nobody waits for them.

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

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The one inside the program.
    Bundled,
    /// A model folder.
    Folder(PathBuf),
}

impl Source {
    /// What it is called.
    pub fn name(&self) -> String {
        match self {
            Self::Bundled => "Built-in model".to_string(),
            Self::Folder(folder) => match folder.file_name() {
                // What training writes is always called that; the folder around it tells runs apart.
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

/// A model that is ready.
#[derive(Debug)]
pub struct Opened {
    /// The model on its thread.
    pub engine: Engine,
    /// The device it is on.
    pub device: String,
}

/// News from a thread.
#[derive(Debug)]
pub enum Message {
    /// How much of a model is read.
    Progress {
        /// Which opening.
        id: u64,
        /// From 0 to 1.
        share: f64,
    },
    /// A model is ready, or one sentence says why not.
    Opened {
        /// Which opening.
        id: u64,
        /// The model.
        result: Result<Box<Opened>, String>,
    },
    /// Something happened to a generation.
    TaskEvent {
        /// Which generation.
        id: u64,
        /// What.
        event: Box<TaskEvent>,
    },
    /// A folder was chosen; nothing if the dialog was closed, a sentence if there is none.
    Chosen(Result<Option<PathBuf>, String>),
    /// Names of the devices that are present.
    Devices(Vec<String>),
}

/// Sends messages and wakes the window.
#[derive(Clone)]
pub struct Post {
    sender: Sender<Message>,
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Post {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Post").finish_non_exhaustive()
    }
}

impl Post {
    /// To this receiver, waking the window by `wake`.
    pub fn new(sender: Sender<Message>, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Self { sender, wake }
    }

    /// Sends; false when nobody listens any more.
    pub fn send(&self, message: Message) -> bool {
        let sent = self.sender.send(message).is_ok();
        (self.wake)();
        sent
    }
}

/// Opens a model.
pub fn open(source: Source, device: String, id: u64, post: Post) {
    std::thread::spawn(move || {
        let read = || {
            opened(&source, &device, &|share| {
                post.send(Message::Progress { id, share });
            })
        };
        let result = catch_unwind(AssertUnwindSafe(read))
            .unwrap_or_else(|_| Err(format!("{} could not be opened: the device {device} failed.", source.name())));
        post.send(Message::Opened { id, result: result.map(Box::new) });
    });
}

fn opened(source: &Source, device: &str, watch: &dyn Fn(f64)) -> Result<Opened, String> {
    let name: DeviceName = device.parse().map_err(|error: String| sentence(&error))?;
    let (device, name) = name.open().map_err(|error| sentence(&error))?;
    let options = EngineOptions::default();
    let engine = match source {
        Source::Bundled => Engine::from_bytes(&BUNDLED, &device, &options, watch),
        Source::Folder(folder) => {
            TextModel::load_with_progress(folder, &device, watch).and_then(|model| Engine::new(model, &options))
        }
    };
    Ok(Opened { engine: engine.map_err(|error| sentence(&error.to_string()))?, device: name })
}

/// Lets go of a model, which takes as long as the step it is in.
pub fn close(opened: Box<Opened>) {
    std::thread::spawn(move || drop(opened));
}

/// Asks for a model folder.
pub fn choose(start: Option<PathBuf>, post: Post) {
    let mut dialog = rfd::AsyncFileDialog::new().set_title("Open a model folder");
    if let Some(start) = start {
        dialog = dialog.set_directory(start);
    }
    // Some systems want the dialog made here and waited for elsewhere.
    let answer = dialog.pick_folder();
    std::thread::spawn(move || {
        let asked = Instant::now();
        let chosen = pollster::block_on(answer).map(|folder| folder.path().to_path_buf());
        // Nobody closes a dialog that fast: there was none.
        let absent = chosen.is_none() && asked.elapsed() < Duration::from_millis(200);
        let none = "This system offers no folder dialog; drop a model folder onto the window instead.";
        post.send(Message::Chosen(if absent { Err(none.to_string()) } else { Ok(chosen) }));
    });
}

/// Looks for devices: drivers may take seconds to answer.
pub fn devices(post: Post) {
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
        post.send(Message::Devices(names));
    });
}
