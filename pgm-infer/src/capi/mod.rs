//! The C interface: `include/pgm.h`, made by cbindgen from these files.
//!
//! Build the library with `cargo rustc -p pgm-infer --release --lib --features capi --crate-type cdylib`. Texts are UTF-8 and
//! end in NUL. A call reports failure by its return value; `pgm_last_error` has the reason, for the thread that called. No
//! panic leaves a call, and nothing is printed.
//!
//! Every function takes an engine or a task by a shared reference, so several threads may use one at the same time. Only
//! `pgm_close` and `pgm_task_free` must be the last use.

mod error;
mod request;
mod step;

use std::cell::Cell;
use std::ffi::{CString, c_char, c_void};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

use error::{guard, last_error, message_of, text};
pub use request::{PgmRequest, pgm_request_init};
use request::{read_request, task_of};
pub use step::{PgmSegment, PgmSegmentKind, PgmStep};
use step::{StepTexts, c_text};

use crate::device::DeviceName;
use crate::engine::{EngineOptions, Finish, TaskEvent, TaskHandle, TaskOutput};
use crate::{Engine, InferError, ModelBytes, TextModel};

thread_local! {
    // Whether this thread is an engine's and runs a callback.
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// A model that runs on a thread of its own.
#[derive(Debug)]
pub struct PgmEngine(Engine);

/// A task of an engine. Threads share it: one may cancel it while another waits.
#[derive(Debug)]
pub struct PgmTask {
    handle: TaskHandle,
    n: usize,
    outputs: Mutex<Receiver<(usize, Result<TaskOutput, InferError>)>>,
    // Set by the first `pgm_wait` that has waited to the end.
    result: OnceLock<TaskResult>,
}

// The results after `pgm_wait`, by sample.
#[derive(Debug)]
struct TaskResult {
    texts: Vec<Option<CString>>,
    finishes: Vec<PgmFinish>,
    error: Option<String>,
}

// Every function but `pgm_task_free` may be called on any thread.
const _: () = {
    const fn is_shared<T: Send + Sync>() {}
    is_shared::<PgmTask>();
    is_shared::<PgmEngine>();
};

/// Why a sample ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PgmFinish {
    /// Every token is decoded.
    Complete = 0,
    /// A stop text or an EOS ended it.
    Stop = 1,
    /// It was cancelled; the text has the tokens decoded so far.
    Cancelled = 2,
    /// It took longer than its timeout; the text has the tokens decoded so far.
    Timeout = 3,
    /// It failed; there is no text.
    Failed = 4,
}

/// Called on the engine's thread after each step; `step` is valid during the call. A value other than 0 cancels the task. The
/// callback must return normally (no exception, no longjmp). It must not wait for a task, free one or close an engine; it may
/// call `pgm_cancel`.
pub type PgmCallback = Option<unsafe extern "C" fn(step: *const PgmStep, user: *mut c_void) -> i32>;

/// Called while a model is read, with the share that has been read, from 0 to 1.
pub type PgmProgress = Option<unsafe extern "C" fn(share: f64, user: *mut c_void)>;

/// Why the last failed call of this thread failed. Valid until the thread's next call; never null.
#[unsafe(no_mangle)]
pub extern "C" fn pgm_last_error() -> *const c_char {
    last_error()
}

/// Opens a model folder on a device ("auto", "flex", "vulkan:0", ..). `max_batch` samples are computed together. Null on failure.
///
/// # Safety
/// `folder` and `device` are null or end in NUL; `progress` may be called with `user`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_open(
    folder: *const c_char,
    device: *const c_char,
    max_batch: usize,
    progress: PgmProgress,
    user: *mut c_void,
) -> *mut PgmEngine {
    let engine = guard(|| {
        // SAFETY: the caller keeps what `# Safety` asks for.
        let (folder, device) = unsafe { (text(folder, "folder")?, text(device, "device")?) };
        let (device, _) = device.parse::<DeviceName>()?.open()?;
        // SAFETY: the caller keeps what `# Safety` asks for.
        let watch = |share| progress.into_iter().for_each(|progress| unsafe { progress(share, user) });
        let model = TextModel::load_with_progress(Path::new(folder), &device, &watch).map_err(message_of)?;
        Engine::new(model, &EngineOptions { max_batch, ..EngineOptions::default() }).map_err(message_of)
    });
    engine.map_or(std::ptr::null_mut(), |engine| Box::into_raw(Box::new(PgmEngine(engine))))
}

/// As `pgm_open`, from the contents of `config.json`, `model.safetensors` and `tokenizer.json`. The buffers may be freed when
/// the call returns.
///
/// # Safety
/// Each buffer is null or has as many bytes as its length; `device` is null or ends in NUL; `progress` may be called with `user`.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn pgm_open_bytes(
    config: *const u8,
    config_length: usize,
    weights: *const u8,
    weights_length: usize,
    tokenizer: *const u8,
    tokenizer_length: usize,
    device: *const c_char,
    max_batch: usize,
    progress: PgmProgress,
    user: *mut c_void,
) -> *mut PgmEngine {
    let engine = guard(|| {
        if config.is_null() || weights.is_null() || tokenizer.is_null() {
            return Err("config, weights or tokenizer is null".to_string());
        }
        // SAFETY: the caller keeps what `# Safety` asks for.
        let (config, weights, tokenizer, device) = unsafe {
            (
                std::slice::from_raw_parts(config, config_length),
                std::slice::from_raw_parts(weights, weights_length),
                std::slice::from_raw_parts(tokenizer, tokenizer_length),
                text(device, "device")?,
            )
        };
        let (device, _) = device.parse::<DeviceName>()?.open()?;
        let files = ModelBytes { config, weights, tokenizer, generation: None };
        let options = EngineOptions { max_batch, ..EngineOptions::default() };
        // SAFETY: the caller keeps what `# Safety` asks for.
        let watch = |share| progress.into_iter().for_each(|progress| unsafe { progress(share, user) });
        Engine::from_bytes(&files, &device, &options, &watch).map_err(message_of)
    });
    engine.map_or(std::ptr::null_mut(), |engine| Box::into_raw(Box::new(PgmEngine(engine))))
}

/// Closes an engine and frees its memory; tasks that have not ended are cancelled. Null is ignored.
///
/// # Safety
/// `engine` came from `pgm_open` or `pgm_open_bytes`; no thread uses it during this call or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_close(engine: *mut PgmEngine) {
    if !engine.is_null() {
        // SAFETY: the caller keeps what `# Safety` asks for.
        let engine = unsafe { Box::from_raw(engine) };
        let _ = guard(|| {
            drop(engine);
            Ok(())
        });
    }
}

struct User(*mut c_void);

// SAFETY: `pgm_start` requires that `user` may be used on the engine's thread.
unsafe impl Send for User {}

/// Starts a task and returns at once; `callback` (or null) is called after each step. Null on failure.
///
/// # Safety
/// `engine` is null or open. `request` is null or was set up by `pgm_request_init`; its texts are null or end in NUL, and
/// `stops` has `n_stops` of them. They may be freed when the call returns. `user` may be used on the engine's thread until the
/// task has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_start(
    engine: *const PgmEngine,
    request: *const PgmRequest,
    callback: PgmCallback,
    user: *mut c_void,
) -> *mut PgmTask {
    let task = guard(|| {
        // SAFETY: the caller keeps what `# Safety` asks for.
        let engine = unsafe { engine.as_ref() };
        let PgmEngine(engine) = engine.ok_or("engine is null")?;
        // SAFETY: the caller keeps what `# Safety` asks for.
        let (task, row) = unsafe { task_of(engine, &read_request(request)?)? };
        let (n, model) = (task.n, engine.shared_model());
        let (sender, outputs) = channel();
        let user = User(user);
        let mut texts = StepTexts::new(&row, if callback.is_some() { n } else { 0 });
        let listener = move |event: TaskEvent| {
            // The closure is to own all of `User`, which may be sent, and not only the pointer in it.
            let user = &user;
            match event {
                TaskEvent::Step { index, step, n_steps, change } => {
                    let Some(callback) = callback else { return ControlFlow::Continue(()) };
                    let stop = texts.tell(index, (step, n_steps), &change, &model, |step| {
                        IN_CALLBACK.set(true);
                        // SAFETY: the arrays live until the call returns.
                        let stop = unsafe { callback(step, user.0) };
                        IN_CALLBACK.set(false);
                        stop
                    });
                    if stop == 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                }
                TaskEvent::Done(output) => {
                    let _ = sender.send((output.index, Ok(*output)));
                    ControlFlow::Continue(())
                }
                TaskEvent::Failed { index, error, .. } => {
                    let _ = sender.send((index, Err(error)));
                    ControlFlow::Continue(())
                }
            }
        };
        let handle = engine.submit(task, Box::new(listener)).map_err(message_of)?;
        Ok(PgmTask { handle, n, outputs: Mutex::new(outputs), result: OnceLock::new() })
    });
    task.map_or(std::ptr::null_mut(), |task| Box::into_raw(Box::new(task)))
}

/// Waits until a task has ended. 0, or -1 when a sample failed; the other samples have their texts all the same. Several threads
/// may wait, and another may cancel meanwhile.
///
/// # Safety
/// `task` is null or came from `pgm_start`, and is not freed during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_wait(task: *const PgmTask) -> i32 {
    let waited = guard(|| {
        // SAFETY: the caller keeps what `# Safety` asks for.
        let task = unsafe { task.as_ref() }.ok_or("task is null")?;
        if IN_CALLBACK.get() {
            return Err("a callback cannot wait for a task; return from it first".to_string());
        }
        task.result.get_or_init(|| task.wait()).error.clone().map_or(Ok(()), Err)
    });
    if waited.is_some() { 0 } else { -1 }
}

impl PgmTask {
    fn wait(&self) -> TaskResult {
        let mut result =
            TaskResult { texts: vec![None; self.n], finishes: vec![PgmFinish::Failed; self.n], error: None };
        let mut n_left = self.n;
        for (index, output) in self.outputs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            n_left -= 1;
            match output {
                Ok(output) => {
                    result.finishes[index] = finish_of(&output.finish);
                    result.texts[index] = Some(c_text(&output.text));
                }
                Err(error) => result.error = Some(error.to_string()),
            }
        }
        if n_left > 0 {
            result.error.get_or_insert_with(|| "the engine was closed before the task had ended".to_string());
        }
        result
    }
}

fn finish_of(finish: &Finish) -> PgmFinish {
    match finish {
        Finish::Complete => PgmFinish::Complete,
        Finish::Stop(_) | Finish::Eos => PgmFinish::Stop,
        Finish::Cancelled => PgmFinish::Cancelled,
        Finish::Timeout => PgmFinish::Timeout,
    }
}

/// The text of a sample after `pgm_wait`. Valid until the task is freed; null if there is none.
///
/// # Safety
/// `task` is null or came from `pgm_start`, and is not freed during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_text(task: *const PgmTask, index: usize) -> *const c_char {
    // SAFETY: the caller keeps what `# Safety` asks for.
    let result = unsafe { task.as_ref() }.and_then(|task| task.result.get());
    let text = result.and_then(|result| result.texts.get(index)?.as_ref());
    text.map_or(std::ptr::null(), |text| text.as_ptr())
}

/// Why a sample ended, after `pgm_wait`. `PGM_FINISH_FAILED` if there is no such sample.
///
/// # Safety
/// `task` is null or came from `pgm_start`, and is not freed during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_finish(task: *const PgmTask, index: usize) -> PgmFinish {
    // SAFETY: the caller keeps what `# Safety` asks for.
    let result = unsafe { task.as_ref() }.and_then(|task| task.result.get());
    result.and_then(|result| result.finishes.get(index).copied()).unwrap_or(PgmFinish::Failed)
}

/// Ends a task before its next step. Any thread may call it, also while another waits for the task. Null is ignored.
///
/// # Safety
/// `task` is null or came from `pgm_start`, and is not freed during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_cancel(task: *const PgmTask) {
    // SAFETY: the caller keeps what `# Safety` asks for.
    if let Some(task) = unsafe { task.as_ref() } {
        task.handle.cancel();
    }
}

/// Frees a task. If it has not ended it is cancelled, and the call returns after its last callback. Null is ignored.
///
/// # Safety
/// `task` came from `pgm_start`; no thread uses it during this call or later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_task_free(task: *mut PgmTask) {
    if !task.is_null() {
        // SAFETY: the caller keeps what `# Safety` asks for.
        let task = unsafe { Box::from_raw(task) };
        task.handle.cancel();
        // After this call `user` is not used any more. Within a callback there is nothing to wait for.
        if !IN_CALLBACK.get() && task.result.get().is_none() {
            task.outputs.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(drop);
        }
    }
}
