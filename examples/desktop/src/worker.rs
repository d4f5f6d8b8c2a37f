//! Slow work, each on its own thread: dialogs, files, the search for devices. Models are opened in `models.rs`.
//!
//! A thread sends a [`Message`] and then wakes the window. The window never waits for a thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use pgm_infer::Picture;
use pgm_infer::device::DeviceName;
use pgm_infer::engine::TaskEvent;

use crate::models::{OpenError, OpenModel};
use crate::pictures::files::{free_path, png_path};
use crate::pictures::job::JobEvent;
use crate::settings::sentence;

/// Channels of a picture that is read; a model of grey pictures takes its brightness.
const CHANNELS: usize = 3;
/// A dialog that ends this fast was never shown.
const SHORTEST_DIALOG: Duration = Duration::from_millis(200);

/// What a dialog asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A model folder.
    Model,
    /// The folder of the model's codec.
    Codec,
    /// A picture to edit.
    Picture,
}

/// A message of a thread to the window.
#[derive(Debug)]
pub enum Message {
    /// A part of a model is read.
    Progress {
        /// Identifies the call of [`open`](crate::models::open).
        id: u64,
        /// The share that is read, from 0 to 1.
        share: f64,
    },
    /// A model is open, or an error.
    Opened {
        /// Identifies the call of [`open`](crate::models::open).
        id: u64,
        /// The model or the error.
        result: Result<Box<OpenModel>, OpenError>,
    },
    /// An event of a generation.
    TaskEvent {
        /// Identifies the generation.
        id: u64,
        /// The event.
        event: Box<TaskEvent>,
    },
    /// An event of a job of pictures.
    JobEvent {
        /// Identifies the job.
        id: u64,
        /// The event.
        event: JobEvent,
    },
    /// A dialog was closed, with a path or without. An error if the system has no dialog.
    Chosen {
        /// What it asked for.
        choice: Choice,
        /// The answer.
        path: Result<Option<PathBuf>, String>,
    },
    /// A picture was read from a file.
    PictureRead {
        /// The file.
        path: PathBuf,
        /// The picture or an error in one sentence.
        picture: Result<Picture, String>,
    },
    /// A picture was saved: what is said about it, or an error in one sentence. Nothing if the dialog was closed.
    Saved(Result<Option<String>, String>),
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

/// Opens a dialog and sends [`Message::Chosen`].
pub fn choose(choice: Choice, start: Option<PathBuf>, messages: MessageSender) {
    let (title, dropped) = match choice {
        Choice::Model => ("Open a model folder", "a model folder"),
        Choice::Codec => ("Open the model's codec folder", "the codec's folder"),
        Choice::Picture => ("Open a picture", "a picture"),
    };
    let mut dialog = rfd::AsyncFileDialog::new().set_title(title);
    if let Some(start) = start {
        dialog = dialog.set_directory(start);
    }
    let finish = move |opened_at: Instant, chosen: Option<PathBuf>| {
        let is_absent = chosen.is_none() && opened_at.elapsed() < SHORTEST_DIALOG;
        let none = format!("This system offers no file dialog; drop {dropped} onto the window instead.");
        messages.send(Message::Chosen { choice, path: if is_absent { Err(none) } else { Ok(chosen) } });
    };
    let opened_at = Instant::now();
    // macOS requires that a dialog is opened on the main thread.
    if choice == Choice::Picture {
        let chosen = dialog.add_filter("Pictures", &["png", "jpg", "jpeg", "webp"]).pick_file();
        std::thread::spawn(move || finish(opened_at, pollster::block_on(chosen).map(|file| file.path().into())));
    } else {
        let chosen = dialog.pick_folder();
        std::thread::spawn(move || finish(opened_at, pollster::block_on(chosen).map(|folder| folder.path().into())));
    }
}

/// Reads a picture and sends [`Message::PictureRead`].
pub fn read_picture(path: PathBuf, messages: MessageSender) {
    std::thread::spawn(move || {
        let picture = Picture::read(&path, CHANNELS).map_err(|error| sentence(&error.to_string()));
        messages.send(Message::PictureRead { path, picture });
    });
}

/// Asks where a picture is to be saved, writes it and sends [`Message::Saved`]. Where the system has no dialog, it becomes a
/// new file in `folder`.
pub fn save_picture(picture: Picture, name: String, folder: PathBuf, messages: MessageSender) {
    let dialog = rfd::AsyncFileDialog::new().set_title("Save as PNG").set_file_name(&name).add_filter("PNG", &["png"]);
    let (opened_at, chosen) = (Instant::now(), dialog.save_file());
    std::thread::spawn(move || {
        let chosen = pollster::block_on(chosen).map(|file| png_path(file.path().into()));
        let path = match chosen {
            None if opened_at.elapsed() >= SHORTEST_DIALOG => {
                messages.send(Message::Saved(Ok(None)));
                return;
            }
            None => free_path(&folder, &name),
            Some(path) => path,
        };
        messages.send(Message::Saved(write(&picture, &path).map(Some)));
    });
}

fn write(picture: &Picture, path: &Path) -> Result<String, String> {
    picture.write_png(path).map_err(|error| sentence(&error.to_string()))?;
    Ok(format!("Saved as {}.", std::path::absolute(path).as_deref().unwrap_or(path).display()))
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
