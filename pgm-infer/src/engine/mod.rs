//! A model that serves requests from its own thread.
//!
//! Requests that overlap share network evaluations, whatever their lengths, steps and settings. They join and leave between
//! steps, and each one's tokens are the same as alone. They get the rows of a step in turn, so that a request for many
//! samples does not hold up a small one. A caller submits a [`Task`] and receives [`TaskEvent`]s: by a callback, an iterator
//! or (feature `tokio`) a stream. Dropping the receiving end cancels the task before its next step.
//!
//! An engine may have several replicas of its model, on several devices. Each sample goes to the least loaded of those that
//! work; its tokens are the same on all of them.
//!
//! Panics of a tokenizer, a listener, a custom order or the device become errors of the samples they concern; the engine
//! goes on.

mod images;
mod options;
mod queue;
mod reader;
mod replicas;
mod sample;
mod seats;
mod status;
mod stream;
mod task;
mod thread;
mod worker;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use pgm_model::Network;

pub use crate::text::FilledBlank;
pub use images::{ImageEngine, ImageTask};
pub use options::{EngineOptions, StepMetrics, StepObserver};
#[cfg(feature = "server")]
pub(crate) use replicas::Lease;
pub use status::{Replica, ReplicaState};
#[cfg(feature = "tokio")]
pub use stream::EventStream;
pub use stream::Events;
pub use task::{
    EventListener, Finish, OrderFactory, RequestId, Task, TaskEvent, TaskFailure, TaskHandle, TaskInput, TaskOutput,
};

use crate::InferError;
use crate::denoise::{SamplingPath, wrong_order};
use crate::sample::{SampleRequest, SampleSettings};
use crate::text::layout::RowLayout;
use crate::text::reader::RowReader;
use crate::text::template::{self, Part};
use crate::text::{ModelBytes, TextModel, TextRow};
use reader::TaskReader;
use replicas::{Replicas, Submission, check_n, copies, wait};
use worker::WorkerModel;

/// A model of text on its own thread, or copies of it on several; [`ImageEngine`] has one of pictures. Dropping it ends the
/// threads after the current step and frees all memory; tasks that are not done end as [`Finish::Cancelled`].
#[derive(Debug)]
pub struct Engine {
    replicas: Replicas<TextModel>,
}

impl Engine {
    /// Opens a model folder.
    ///
    /// # Errors
    /// As [`TextModel::load`] and [`TextModel::with_weight_dtype`].
    pub fn open(folder: &Path, device: &Device, options: &EngineOptions) -> Result<Self, InferError> {
        Self::new(TextModel::load(folder, device)?, options)
    }

    /// An engine for a model from bytes; `watch` as in [`TextModel::from_bytes`].
    ///
    /// # Errors
    /// As [`TextModel::from_bytes`] and [`Engine::new`].
    pub fn from_bytes(
        files: &ModelBytes<'_>,
        device: &Device,
        options: &EngineOptions,
        watch: &dyn Fn(f64),
    ) -> Result<Self, InferError> {
        Self::new(TextModel::from_bytes(files, device, watch)?, options)
    }

    /// An engine for a model.
    ///
    /// # Errors
    /// [`InferError::Setting`] for an empty batch, [`InferError::Model`] when the weights cannot have that dtype.
    pub fn new(model: TextModel, options: &EngineOptions) -> Result<Self, InferError> {
        let model = model.with_weight_dtype(options.weights)?;
        Self::of_replicas(vec![(model, String::new())], options)
    }

    /// Copies of a model on these devices, which share its tasks; each is given with its name for messages. The model is
    /// moved from its own device to the others, so its weights are read from disk once. The devices must be of one kind:
    /// then a seed gives the same tokens on each of them. On the CPU give each copy its own
    /// [`threads`](EngineOptions::threads).
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`InferError::Device`] when a device cannot hold the model.
    pub fn on_devices(
        model: TextModel,
        devices: &[(Device, String)],
        options: &EngineOptions,
    ) -> Result<Self, InferError> {
        let model = model.with_weight_dtype(options.weights)?;
        Self::of_replicas(copies(devices, |device| model.on_device(device))?, options)
    }

    /// Copies of one model that are there already, each with the name of its device. Their weights keep their dtype.
    ///
    /// # Errors
    /// [`InferError::Setting`] for an empty batch or no copy.
    pub fn of_replicas(models: Vec<(TextModel, String)>, options: &EngineOptions) -> Result<Self, InferError> {
        Ok(Self { replicas: Replicas::start(models, WorkerModel::Text, options)? })
    }

    /// The model, for its configuration, defaults and tokenizer; using it does not wait for the engine's thread.
    pub fn model(&self) -> &TextModel {
        self.replicas.model()
    }

    /// One sample of a text with the model's own settings ([`SampleSettings::for_model`]).
    pub fn task(&self, text: TaskInput) -> Task {
        Task { settings: SampleSettings::for_model(self.model()), ..Task::new(text) }
    }

    /// The model, for a listener that reads tokens as text.
    #[cfg(feature = "capi")]
    pub(crate) fn shared_model(&self) -> Arc<TextModel> {
        Arc::clone(self.replicas.model())
    }

    /// The model of the least loaded replica, for work beside the threads.
    #[cfg(feature = "server")]
    pub(crate) fn lease(&self) -> Lease<TextModel> {
        self.replicas.lease()
    }

    /// The replicas, in the order of their devices.
    pub fn replicas(&self) -> Vec<Replica> {
        self.replicas.list()
    }

    /// Whether a thread of the engine runs. It ends only by a bug of this crate; without any, tasks are refused.
    pub fn is_alive(&self) -> bool {
        self.replicas.list().iter().any(|replica| replica.state != ReplicaState::Ended)
    }

    /// Submits a task; `listener` receives its events on the threads of the replicas, one at a time, and must not block.
    ///
    /// # Errors
    /// Says what of the task cannot be done, before anything is computed.
    pub fn submit(&self, task: Task, listener: EventListener) -> Result<TaskHandle, InferError> {
        let model = self.replicas.model();
        task.settings.validate()?;
        check_n(task.n)?;
        if task.stop.iter().any(String::is_empty) {
            return Err(InferError::Request("a stop string must not be empty".into()));
        }
        let request = |seed: u64| match &task.text {
            TaskInput::Prompt(prompt) if prompt.is_empty() => model.row(&[], task.length, seed),
            TaskInput::Prompt(prompt) => model.row(&[Part::Text(prompt.clone())], task.length, seed),
            TaskInput::Template(text, blank) => model.row(&template::parse(text, *blank)?, task.length, seed),
            TaskInput::Parts(parts) => model.row(parts, task.length, seed),
            TaskInput::Row(row) => Ok(row.clone()),
            TaskInput::Tokens { given, length } => {
                let request = self.request_of_tokens(given, *length, seed)?;
                let layout = RowLayout::of_request(&request);
                Ok(TextRow { request, layout })
            }
        };
        let TextRow { request: first, layout } = request(task.seed)?;
        self.check_given(&first)?;
        // Whether the network can sample the request.
        model.denoiser(SamplingPath::Clean).row(&first, &task.settings)?;
        if task.order.is_some() && matches!(model.network(), Network::Autoregressive(_)) {
            return Err(wrong_order());
        }
        let numbers = 0..task.n as u64;
        let rows =
            numbers.map(|index| SampleRequest { seed: task.seed.wrapping_add(index), ..first.clone() }).collect();
        let reader = RowReader::new(layout, task.stop, task.ends_at_eos);
        let reader = TaskReader::Text(Arc::clone(model), reader);
        let Task { settings, order, request, timeout, .. } = task;
        self.replicas.submit(Submission { rows, settings, order, reader, request, timeout }, listener)
    }

    fn check_given(&self, request: &SampleRequest) -> Result<(), InferError> {
        let mask = self.model().config().backbone().mask_index;
        match request.given.iter().find(|(_, token)| *token as usize == mask) {
            Some((position, _)) => Err(InferError::Request(format!(
                "the given text has the mask, token {mask}, at position {position}; the mask is no token of a text: it marks \
                 what is to be written"
            ))),
            None => Ok(()),
        }
    }

    fn request_of_tokens(&self, given: &[(usize, u32)], length: usize, seed: u64) -> Result<SampleRequest, InferError> {
        let backbone = self.model().config().backbone();
        if let Some((position, token)) = given.iter().find(|(_, token)| *token as usize >= backbone.vocab_size) {
            let n = backbone.vocab_size;
            return Err(InferError::Request(format!("token {token} at position {position}: the model has {n} tokens")));
        }
        if length > pgm_model::config::MAX_LENGTH {
            let most = pgm_model::config::MAX_LENGTH;
            return Err(InferError::Request(format!("a row of {length} tokens; it has at most {most}")));
        }
        if given.len() >= length {
            return Err(InferError::Request(format!(
                "{} given tokens leave nothing of {length} to write",
                given.len()
            )));
        }
        Ok(SampleRequest { length, given: given.to_vec(), seed, ..SampleRequest::default() })
    }

    /// Submits a task; its events come as an iterator, which ends with the last sample. Dropping it cancels the task.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn events(&self, task: Task) -> Result<Events, InferError> {
        Events::new(|listener| self.submit(task, listener))
    }

    /// As [`events`](Self::events), as a stream for asynchronous code.
    ///
    /// # Errors
    /// As [`Self::submit`].
    #[cfg(feature = "tokio")]
    pub fn stream(&self, task: Task) -> Result<EventStream, InferError> {
        EventStream::new(|listener| self.submit(task, listener))
    }

    /// Runs a task and waits for all its samples. `observe` sees each event and can stop the task.
    ///
    /// # Errors
    /// As [`Self::submit`], and why a sample failed; the other samples are in the [`TaskFailure`]. The task ends when the
    /// device fails.
    pub fn generate(
        &self,
        task: Task,
        observe: &mut dyn FnMut(&TaskEvent) -> ControlFlow<()>,
    ) -> Result<Vec<TaskOutput>, TaskFailure> {
        let n = task.n;
        wait(self.events(task)?, n, observe)
    }
}
