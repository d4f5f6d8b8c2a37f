//! A model of pictures on its own thread.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::Device;

use super::options::EngineOptions;
use super::reader::TaskReader;
#[cfg(feature = "tokio")]
use super::stream::EventStream;
use super::stream::Events;
use super::task::{EventListener, OrderFactory, RequestId, TaskEvent, TaskFailure, TaskHandle, TaskOutput};
use super::thread::{EngineThread, Submission, check_n, wait};
use super::worker::WorkerModel;
use crate::InferError;
use crate::denoise::SamplingPath;
use crate::picture::{ImageModel, PictureCodec};
use crate::sample::{SampleRequest, SampleSettings};

/// Pictures to draw.
#[derive(Clone)]
pub struct ImageTask {
    /// A row for each picture: [`ImageModel::request`] or [`ImageModel::request_around`], each with its class and its seed.
    pub rows: Vec<SampleRequest>,
    /// Steps, schedule, order, draw and guidance.
    pub settings: SampleSettings,
    /// A custom order instead of that of the settings.
    pub order: Option<OrderFactory>,
    /// The request that the task is part of [default: one of its own].
    pub request: Option<RequestId>,
    /// Time from now to the end of the task, waiting included.
    pub timeout: Option<Duration>,
}

impl ImageTask {
    /// The pictures of these rows with these settings.
    pub fn new(rows: Vec<SampleRequest>, settings: SampleSettings) -> Self {
        Self { rows, settings, order: None, request: None, timeout: None }
    }
}

impl std::fmt::Debug for ImageTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageTask").field("rows", &self.rows).field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// An [`Engine`](super::Engine) of a model of pictures. Its events carry tokens and no text: a
/// [`Filling`](crate::picture::Filling) shows a picture while it fills, and [`ImageModel::pictures`] decodes a finished one,
/// on a thread of the caller's.
#[derive(Debug)]
pub struct ImageEngine {
    thread: EngineThread,
    model: Arc<ImageModel>,
}

impl ImageEngine {
    /// Opens a model folder; the codec as in [`ImageModel::load`].
    ///
    /// # Errors
    /// As [`ImageModel::load`] and [`ImageEngine::new`].
    pub fn open(
        folder: &Path,
        codec: Option<Arc<dyn PictureCodec>>,
        device: &Device,
        options: &EngineOptions,
    ) -> Result<Self, InferError> {
        Self::new(ImageModel::load(folder, codec, device)?, options)
    }

    /// An engine for a model.
    ///
    /// # Errors
    /// [`InferError::Setting`] for an empty batch, [`InferError::Model`] when the weights cannot have that dtype.
    pub fn new(model: ImageModel, options: &EngineOptions) -> Result<Self, InferError> {
        let model = Arc::new(model.with_weight_dtype(options.weights)?);
        let thread = EngineThread::start(WorkerModel::Images(Arc::clone(&model)), options)?;
        Ok(Self { thread, model })
    }

    /// The model, for its classes, its codec and its defaults; using it does not wait for the engine's thread.
    pub fn model(&self) -> &ImageModel {
        &self.model
    }

    /// Whether the engine's thread runs. It ends only by a bug of this crate; tasks are refused then.
    pub fn is_alive(&self) -> bool {
        self.thread.is_alive()
    }

    /// Submits a task; `listener` receives its events on the engine's thread and must not block.
    ///
    /// # Errors
    /// Says what of the task cannot be done, before anything is computed.
    pub fn submit(&self, task: ImageTask, listener: EventListener) -> Result<TaskHandle, InferError> {
        task.settings.validate()?;
        check_n(task.rows.len())?;
        let denoiser = self.model.denoiser(SamplingPath::Clean);
        let backbone = self.model.config().backbone();
        for row in &task.rows {
            // Codes stand first in the vocabulary; BOS is given where a row begins with it.
            let start = self.model.grid().start;
            let wrong =
                row.given.iter().find(|(position, token)| *position >= start && *token as usize >= backbone.mask_index);
            if let Some((position, token)) = wrong {
                let n = backbone.mask_index;
                let message = format!("token {token} at position {position}: a cell has one of {n} tokens");
                return Err(InferError::Request(message));
            }
            denoiser.row(row, &task.settings)?;
        }
        let ImageTask { rows, settings, order, request, timeout } = task;
        let submission = Submission { rows, settings, order, reader: TaskReader::Picture, request, timeout };
        self.thread.submit(submission, listener)
    }

    /// Submits a task; its events come as an iterator, which ends with the last picture. Dropping it cancels the task.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn events(&self, task: ImageTask) -> Result<Events, InferError> {
        Events::new(|listener| self.submit(task, listener))
    }

    /// As [`events`](Self::events), as a stream for asynchronous code.
    ///
    /// # Errors
    /// As [`Self::submit`].
    #[cfg(feature = "tokio")]
    pub fn stream(&self, task: ImageTask) -> Result<EventStream, InferError> {
        EventStream::new(|listener| self.submit(task, listener))
    }

    /// Runs a task and waits for all its rows. `observe` sees each event and can stop the task.
    ///
    /// # Errors
    /// As [`Self::submit`], and why a row failed; the others are in the [`TaskFailure`].
    pub fn generate(
        &self,
        task: ImageTask,
        observe: &mut dyn FnMut(&TaskEvent) -> ControlFlow<()>,
    ) -> Result<Vec<TaskOutput>, TaskFailure> {
        let n = task.rows.len();
        wait(self.events(task)?, n, observe)
    }
}
