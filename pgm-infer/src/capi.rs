//! The C interface: `include/pgm.h`, made by cbindgen from this file.
//!
//! A library with it: `cargo rustc -p pgm-infer --release --lib --features capi --crate-type cdylib`. Texts are UTF-8 and end in
//! NUL. A call that fails says so by what it returns; `pgm_last_error` has the sentence, for the thread that called. Nothing
//! panics across the border and nothing is printed.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::device::DeviceName;
use crate::engine::{EngineOptions, Task, TaskEvent, TaskHandle, TaskInput, TaskOutput};
use crate::sample::order::OrderKind;
use crate::text::template::Part;
use crate::{Engine, InferError, ModelBytes, SampleSettings};

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
    // Whether this thread is an engine's that runs a callback.
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

fn fail(message: &str) {
    let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
    LAST_ERROR.with(|last| *last.borrow_mut() = message);
}

// The value of `work`, or none with the error noted.
fn guard<T>(work: impl FnOnce() -> Result<T, String>) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Some(value),
        Ok(Err(message)) => {
            fail(&message);
            None
        }
        Err(_) => {
            fail("an error inside the library; please report it");
            None
        }
    }
}

// SAFETY: `text` is null or points to a text that ends in NUL, as each function asks for.
unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, String> {
    if text.is_null() {
        return Err(format!("{what} is null"));
    }
    // SAFETY: as above.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| format!("{what} is not UTF-8"))
}

fn said(error: InferError) -> String {
    error.to_string()
}

/// A model on a thread of its own.
#[derive(Debug)]
pub struct PgmEngine(Engine);

/// A task that was handed over.
#[derive(Debug)]
pub struct PgmTask {
    ticket: TaskHandle,
    answers: Receiver<(usize, Result<TaskOutput, InferError>)>,
    // By sample, once the task has ended.
    texts: Vec<Option<CString>>,
    finishes: Vec<PgmFinish>,
    error: Option<String>,
    has_ended: bool,
}

/// Why a sample ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PgmFinish {
    /// Every token is decoded.
    Complete = 0,
    /// A stop string or an EOS ended it.
    Stop = 1,
    /// It was cancelled; the text is what there was.
    Cancelled = 2,
    /// Its time was over; the text is what there was.
    Timeout = 3,
    /// It went wrong; there is no text.
    Failed = 4,
}

/// What is asked for. Start from `pgm_request_default`.
#[repr(C)]
#[derive(Debug)]
pub struct PgmRequest {
    /// Text with blanks: `{12}` is 12 tokens, `{*}` as many as there is room for, `___` is 8. Null: see `prompt`.
    pub template_: *const c_char,
    /// Text to continue, where there is no template. Null: the model writes freely.
    pub prompt: *const c_char,
    /// Tokens in all, BOS included; 0 is the template's length, else the model's.
    pub length: usize,
    /// Sampling steps; 0 is the model's default.
    pub steps: usize,
    /// Which positions a step decodes, by name. Null is "uniform".
    pub order: *const c_char,
    /// Divides the logits; negative is the model's default.
    pub temperature: f64,
    /// Keeps the most probable tokens that hold this probability together; 0 is the model's default.
    pub top_p: f64,
    /// Keeps the k most probable tokens; 0 is the model's default.
    pub top_k: usize,
    /// Texts at which each blank ends; the first that comes ends it.
    pub stops: *const *const c_char,
    /// How many.
    pub n_stops: usize,
    /// Seed of the first sample; sample i uses seed + i.
    pub seed: u64,
    /// Samples; 0 is 1.
    pub n: usize,
    /// Milliseconds that it may take; 0 is for ever.
    pub timeout_ms: u64,
}

/// A step of a sample.
#[repr(C)]
#[derive(Debug)]
pub struct PgmStep {
    /// Which of the task's samples.
    pub index: usize,
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub n_steps: usize,
    /// Tokens that the step decoded.
    pub n_decoded: usize,
    /// Their positions.
    pub positions: *const usize,
    /// The tokens.
    pub tokens: *const u32,
}

/// Hears each step on the engine's thread; what it is handed is valid during the call. Non-zero cancels the task. It must not
/// throw or jump out, and neither wait for a task, free one nor close an engine; `pgm_cancel` is fine.
pub type PgmCallback = Option<unsafe extern "C" fn(step: *const PgmStep, user: *mut c_void) -> i32>;

/// Hears what share of a model is read, from 0 to 1.
pub type PgmProgress = Option<unsafe extern "C" fn(share: f64, user: *mut c_void)>;

/// Why the last call of this thread failed; valid until its next call. Never null.
#[unsafe(no_mangle)]
pub extern "C" fn pgm_last_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ptr())
}

/// Opens a model folder on a device ("auto", "flex", "vulkan:0", ..). Null on failure.
///
/// # Safety
/// The texts end in NUL; `user` is what `progress` expects.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_open(
    folder: *const c_char,
    device: *const c_char,
    max_batch: usize,
    progress: PgmProgress,
    user: *mut c_void,
) -> *mut PgmEngine {
    let engine = guard(|| {
        // SAFETY: the caller's word.
        let (folder, device) = unsafe { (text(folder, "folder")?, text(device, "device")?) };
        let (device, _) = device.parse::<DeviceName>()?.open()?;
        // SAFETY: the caller's word.
        let watch = |share| progress.into_iter().for_each(|progress| unsafe { progress(share, user) });
        let model = crate::TextModel::load_with_progress(Path::new(folder), &device, &watch).map_err(said)?;
        Engine::new(model, &EngineOptions { max_batch, ..EngineOptions::default() }).map_err(said)
    });
    engine.map_or(std::ptr::null_mut(), |engine| Box::into_raw(Box::new(PgmEngine(engine))))
}

/// As `pgm_open`, from the contents of `config.json`, `model.safetensors` and `tokenizer.json`, which are not needed any
/// more when it returns.
///
/// # Safety
/// Each pointer is followed by as many bytes as its length says; `device` ends in NUL; `user` is what `progress` expects.
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
        // SAFETY: the caller's word.
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
        // SAFETY: the caller's word.
        let watch = |share| progress.into_iter().for_each(|progress| unsafe { progress(share, user) });
        Engine::from_bytes(&files, &device, &options, &watch).map_err(said)
    });
    engine.map_or(std::ptr::null_mut(), |engine| Box::into_raw(Box::new(PgmEngine(engine))))
}

/// Ends an engine and returns its memory; tasks that are not done are cancelled. Null is ignored.
///
/// # Safety
/// `engine` came from `pgm_open` or `pgm_open_bytes` and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_close(engine: *mut PgmEngine) {
    if !engine.is_null() {
        // SAFETY: the caller's word.
        let engine = unsafe { Box::from_raw(engine) };
        let _ = guard(|| {
            drop(engine);
            Ok(())
        });
    }
}

/// A request for one sample with the model's defaults.
#[unsafe(no_mangle)]
pub extern "C" fn pgm_request_default() -> PgmRequest {
    PgmRequest {
        template_: std::ptr::null(),
        prompt: std::ptr::null(),
        length: 0,
        steps: 0,
        order: std::ptr::null(),
        temperature: -1.0,
        top_p: 0.0,
        top_k: 0,
        stops: std::ptr::null(),
        n_stops: 0,
        seed: 0,
        n: 1,
        timeout_ms: 0,
    }
}

struct User(*mut c_void);

// SAFETY: `pgm_start` asks for a `user` that may be used on the engine's thread.
unsafe impl Send for User {}

/// Hands a request over and returns at once; `callback` (or null) hears its steps. Null on failure.
///
/// # Safety
/// `engine` is open, the request's texts are null or end in NUL, `stops` are as many as it says, and `user` may be used on
/// another thread until the task has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_start(
    engine: *const PgmEngine,
    request: *const PgmRequest,
    callback: PgmCallback,
    user: *mut c_void,
) -> *mut PgmTask {
    let task = guard(|| {
        // SAFETY: the caller's word.
        let (engine, request) = unsafe { (engine.as_ref(), request.as_ref()) };
        let (Some(PgmEngine(engine)), Some(request)) = (engine, request) else {
            return Err("engine or request is null".to_string());
        };
        // SAFETY: the caller's word.
        let wanted = unsafe { task_of(engine, request)? };
        let n = wanted.n;
        let (sender, answers) = channel();
        let user = User(user);
        let listener = move |event: TaskEvent| {
            let user = &user;
            match event {
                TaskEvent::Step { index, step, n_steps, change } => {
                    let Some(callback) = callback else { return ControlFlow::Continue(()) };
                    let (positions, tokens): (Vec<usize>, Vec<u32>) = change.decoded.into_iter().unzip();
                    let (n_decoded, positions, tokens) = (positions.len(), positions.as_ptr(), tokens.as_ptr());
                    let step = PgmStep { index, step, n_steps, n_decoded, positions, tokens };
                    IN_CALLBACK.set(true);
                    // SAFETY: what the step points to lives until the call returns.
                    let stop = unsafe { callback(&step, user.0) };
                    IN_CALLBACK.set(false);
                    if stop == 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                }
                TaskEvent::Done(answer) => {
                    let _ = sender.send((answer.index, Ok(*answer)));
                    ControlFlow::Continue(())
                }
                TaskEvent::Failed { index, error, .. } => {
                    let _ = sender.send((index, Err(error)));
                    ControlFlow::Continue(())
                }
            }
        };
        let ticket = engine.submit(wanted, Box::new(listener)).map_err(said)?;
        let (texts, finishes) = (vec![None; n], vec![PgmFinish::Failed; n]);
        Ok(PgmTask { ticket, answers, texts, finishes, error: None, has_ended: false })
    });
    task.map_or(std::ptr::null_mut(), |task| Box::into_raw(Box::new(task)))
}

// SAFETY: the request's texts are null or end in NUL, and `stops` are as many as it says.
unsafe fn task_of(engine: &Engine, request: &PgmRequest) -> Result<Task, String> {
    let given = |pointer: *const c_char, what| {
        // SAFETY: as above.
        (!pointer.is_null()).then(|| unsafe { text(pointer, what) }).transpose()
    };
    let what = match (given(request.template_, "template_")?, given(request.prompt, "prompt")?) {
        (Some(template), _) => TaskInput::Template(template.to_string(), 8),
        (None, Some(prompt)) => TaskInput::Prompt(prompt.to_string()),
        (None, None) => TaskInput::Parts(vec![Part::Free]),
    };
    let mut task = Task::new(what);
    task.settings = SampleSettings::for_model(engine.model());
    if request.steps > 0 {
        task.settings.steps = request.steps;
    }
    if let Some(order) = given(request.order, "order")? {
        task.settings.order = order.parse::<OrderKind>()?;
    }
    if request.temperature >= 0.0 {
        task.settings.draw.temperature = request.temperature;
    }
    if request.top_p > 0.0 {
        task.settings.draw.top_p = request.top_p;
    }
    if request.top_k > 0 {
        task.settings.draw.top_k = request.top_k;
    }
    if request.n_stops > 0 && request.stops.is_null() {
        return Err("stops is null".into());
    }
    for index in 0..request.n_stops {
        // SAFETY: `stops` is followed by as many pointers.
        task.stop.push(unsafe { text(*request.stops.add(index), "a stop text")? }.to_string());
    }
    (task.length, task.seed) = ((request.length > 0).then_some(request.length), request.seed);
    task.n = request.n.max(1);
    task.timeout = (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms));
    Ok(task)
}

/// Waits until a task has ended. 0, or -1 when a sample failed; the others have their texts all the same.
///
/// # Safety
/// `task` came from `pgm_start` and is not used by another thread meanwhile, but for `pgm_cancel`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_wait(task: *mut PgmTask) -> i32 {
    let waited = guard(|| {
        // SAFETY: the caller's word.
        let task = unsafe { task.as_mut() }.ok_or("task is null")?;
        if IN_CALLBACK.get() {
            return Err("a callback cannot wait for a task".to_string());
        }
        if !task.has_ended {
            task.error = Some("the engine was closed before the task was done".to_string());
            let mut n_left = task.texts.len();
            for (index, answer) in &task.answers {
                n_left -= 1;
                match answer {
                    Ok(answer) => {
                        task.finishes[index] = finish_of(&answer.finish);
                        task.texts[index] = CString::new(answer.text.replace('\0', "\u{fffd}")).ok();
                    }
                    Err(error) => task.error = Some(error.to_string()),
                }
            }
            if n_left == 0 && !task.finishes.contains(&PgmFinish::Failed) {
                task.error = None;
            }
            task.has_ended = true;
        }
        task.error.clone().map_or(Ok(()), Err)
    });
    if waited.is_some() { 0 } else { -1 }
}

fn finish_of(finish: &crate::engine::Finish) -> PgmFinish {
    use crate::engine::Finish;
    match finish {
        Finish::Complete => PgmFinish::Complete,
        Finish::Stop(_) | Finish::Eos => PgmFinish::Stop,
        Finish::Cancelled => PgmFinish::Cancelled,
        Finish::Timeout => PgmFinish::Timeout,
    }
}

/// The text of a sample after `pgm_wait`, valid until the task is freed; null if there is none.
///
/// # Safety
/// `task` came from `pgm_start`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_text(task: *const PgmTask, index: usize) -> *const c_char {
    // SAFETY: the caller's word.
    let text = unsafe { task.as_ref() }.and_then(|task| task.texts.get(index)?.as_ref());
    text.map_or(std::ptr::null(), |text| text.as_ptr())
}

/// Why a sample ended, after `pgm_wait`; `PGM_FINISH_FAILED` if there is no such sample.
///
/// # Safety
/// `task` came from `pgm_start`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_finish(task: *const PgmTask, index: usize) -> PgmFinish {
    // SAFETY: the caller's word.
    let finish = unsafe { task.as_ref() }.and_then(|task| task.finishes.get(index));
    finish.copied().unwrap_or(PgmFinish::Failed)
}

/// Ends a task before its next step; any thread may call it while the task is not freed.
///
/// # Safety
/// `task` came from `pgm_start`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_cancel(task: *const PgmTask) {
    // SAFETY: the caller's word; only the ticket, which threads share, is touched.
    if !task.is_null() {
        unsafe { &(*task).ticket }.cancel();
    }
}

/// Frees a task, which is cancelled if it has not ended. Null is ignored.
///
/// # Safety
/// `task` came from `pgm_start` and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_task_free(task: *mut PgmTask) {
    if !task.is_null() {
        // SAFETY: the caller's word.
        let task = unsafe { Box::from_raw(task) };
        task.ticket.cancel();
        // The callback's `user` must not be used after this; within the callback there is nothing to wait for.
        if !IN_CALLBACK.get() {
            task.answers.iter().for_each(drop);
        }
    }
}
