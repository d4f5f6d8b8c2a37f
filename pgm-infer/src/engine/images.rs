//! A model of pictures on its own thread, or copies of it on several.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use burn::tensor::Device;

use super::options::EngineOptions;
use super::reader::TaskReader;
#[cfg(feature = "server")]
use super::replicas::Lease;
use super::replicas::{Replicas, Submission, check_n, copies, wait};
use super::status::{Replica, ReplicaState};
#[cfg(feature = "tokio")]
use super::stream::EventStream;
use super::stream::Events;
use super::task::{EventListener, OrderFactory, RequestId, TaskEvent, TaskFailure, TaskHandle, TaskOutput};
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
    replicas: Replicas<ImageModel>,
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
        let model = model.with_weight_dtype(options.weights)?;
        Self::of_replicas(vec![(model, String::new())], options)
    }

    /// Copies of a model and its codec on these devices, as [`Engine::on_devices`](super::Engine::on_devices).
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`InferError::Device`] when a device cannot hold the model.
    pub fn on_devices(
        model: ImageModel,
        devices: &[(Device, String)],
        options: &EngineOptions,
    ) -> Result<Self, InferError> {
        let model = model.with_weight_dtype(options.weights)?;
        Self::of_replicas(copies(devices, |device| model.on_device(device))?, options)
    }

    /// Copies that are there already, as [`Engine::of_replicas`](super::Engine::of_replicas).
    ///
    /// # Errors
    /// [`InferError::Setting`] for an empty batch or no copy.
    pub fn of_replicas(models: Vec<(ImageModel, String)>, options: &EngineOptions) -> Result<Self, InferError> {
        Ok(Self { replicas: Replicas::start(models, WorkerModel::Images, options)? })
    }

    /// The model, for its classes, its codec and its defaults; using it does not wait for the engine's thread.
    pub fn model(&self) -> &ImageModel {
        self.replicas.model()
    }

    /// The model of the least loaded replica, for work beside the threads.
    #[cfg(feature = "server")]
    pub(crate) fn lease(&self) -> Lease<ImageModel> {
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
    pub fn submit(&self, task: ImageTask, listener: EventListener) -> Result<TaskHandle, InferError> {
        task.settings.validate()?;
        check_n(task.rows.len())?;
        let denoiser = self.model().denoiser(SamplingPath::Clean);
        let backbone = self.model().config().backbone();
        for row in &task.rows {
            // Codes stand first in the vocabulary; BOS is given where a row begins with it.
            let start = self.model().grid().start;
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
        self.replicas.submit(submission, listener)
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
