//! What to generate: the struct that a C program fills in.

use std::ffi::c_char;
use std::time::Duration;

use super::error::{guard, text};
use crate::engine::{Task, TaskInput};
use crate::settings::Overrides;
use crate::text::template::Part;
use crate::{Engine, OrderKind, SampleSettings, TextModel};

/// What to generate. `pgm_request_init` fills in the defaults.
#[repr(C)]
#[derive(Debug)]
pub struct PgmRequest {
    /// The size of this struct where the caller was compiled; `pgm_request_init` sets it. Later versions add fields at the
    /// end.
    pub size: usize,
    /// Text with blanks: `{12}` is 12 tokens, `{*}` as many as fit, `___` is 8. Null: see `prompt`.
    pub template_: *const c_char,
    /// Text to continue if there is no template. Null: the model writes freely.
    pub prompt: *const c_char,
    /// Tokens of the text, BOS included; 0 is the template's length, else the model's.
    pub length: usize,
    /// Sampling steps; 0 is the model's default.
    pub steps: usize,
    /// The name of an order: which positions a step decodes. Null is "uniform".
    pub order: *const c_char,
    /// Divides the logits; negative is the model's default.
    pub temperature: f64,
    /// Keep the fewest most probable tokens whose probabilities add up to this; 0 is the model's default.
    pub top_p: f64,
    /// Keep the k most probable tokens; 0 is the model's default.
    pub top_k: usize,
    /// Texts that end a blank; the first one found ends it.
    pub stops: *const *const c_char,
    /// Number of stop texts.
    pub n_stops: usize,
    /// Seed of the first sample; sample i uses seed + i.
    pub seed: u64,
    /// Number of samples; 0 is 1.
    pub n: usize,
    /// The most milliseconds that the task may take; 0 is no limit.
    pub timeout_ms: u64,
}

// The size of `PgmRequest` in the first version that has `size`. A struct of this size or more is understood.
const FIRST_REQUEST_SIZE: usize = std::mem::offset_of!(PgmRequest, timeout_ms) + size_of::<u64>();

// One sample with the model's defaults.
fn default_request() -> PgmRequest {
    PgmRequest {
        size: size_of::<PgmRequest>(),
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

fn check_request_size(size: usize) -> Result<(), String> {
    let known = size_of::<PgmRequest>();
    if size < FIRST_REQUEST_SIZE {
        return Err(format!(
            "a PgmRequest of {size} bytes is smaller than the first version's {FIRST_REQUEST_SIZE}; call pgm_request_init first"
        ));
    }
    if size > known {
        return Err(format!(
            "a PgmRequest of {size} bytes is of a newer pgm.h than this library, which knows {known}; update the library"
        ));
    }
    Ok(())
}

/// Sets a request to one sample with the model's defaults. `size` is `sizeof(PgmRequest)`. 0, or -1 when this library does not
/// know a struct of that size.
///
/// # Safety
/// `request` is null or has `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgm_request_init(request: *mut PgmRequest, size: usize) -> i32 {
    let done = guard(|| {
        if request.is_null() {
            return Err("request is null".to_string());
        }
        check_request_size(size)?;
        let defaults = PgmRequest { size, ..default_request() };
        // SAFETY: the request has `size` bytes, and the defaults have at least as many.
        unsafe { std::ptr::copy_nonoverlapping((&raw const defaults).cast::<u8>(), request.cast::<u8>(), size) };
        Ok(())
    });
    if done.is_some() { 0 } else { -1 }
}

// The caller's request, with the defaults of the fields that its version of the struct lacks.
//
// SAFETY: `request` is null or has as many bytes as its first field says.
pub(super) unsafe fn read_request(request: *const PgmRequest) -> Result<PgmRequest, String> {
    if request.is_null() {
        return Err("request is null".to_string());
    }
    // SAFETY: `size` is the first field. No reference to the whole struct is made: it may be smaller than ours.
    let size = unsafe { request.cast::<usize>().read() };
    check_request_size(size)?;
    let mut known = default_request();
    // SAFETY: see above; ours has at least as many bytes.
    unsafe { std::ptr::copy_nonoverlapping(request.cast::<u8>(), (&raw mut known).cast::<u8>(), size) };
    Ok(known)
}

// SAFETY: the request's texts are null or end in NUL, and `stops` has `n_stops` of them.
pub(super) unsafe fn task_of(engine: &Engine, request: &PgmRequest) -> Result<Task, String> {
    let given = |pointer: *const c_char, what| {
        // SAFETY: see above.
        (!pointer.is_null()).then(|| unsafe { text(pointer, what) }).transpose()
    };
    let input = match (given(request.template_, "template_")?, given(request.prompt, "prompt")?) {
        (Some(template), _) => TaskInput::Template(template.to_string(), 8),
        (None, Some(prompt)) => TaskInput::Prompt(prompt.to_string()),
        (None, None) => TaskInput::Parts(vec![Part::Free]),
    };
    let order = given(request.order, "order")?.map(str::parse::<OrderKind>).transpose()?;
    let mut task = Task::new(input);
    task.settings = settings(engine.model(), request, order);
    if request.n_stops > 0 && request.stops.is_null() {
        return Err("stops is null".into());
    }
    for index in 0..request.n_stops {
        // SAFETY: `stops` has `n_stops` texts.
        task.stop.push(unsafe { text(*request.stops.add(index), "a stop text")? }.to_string());
    }
    (task.length, task.seed) = ((request.length > 0).then_some(request.length), request.seed);
    task.n = request.n.max(1);
    task.timeout = (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms));
    Ok(task)
}

// The model's settings, overridden by the request.
fn settings(model: &TextModel, request: &PgmRequest, order: Option<OrderKind>) -> SampleSettings {
    let overrides = Overrides {
        steps: (request.steps > 0).then_some(request.steps),
        order,
        temperature: (request.temperature >= 0.0).then_some(request.temperature),
        top_k: (request.top_k > 0).then_some(request.top_k),
        top_p: (request.top_p > 0.0).then_some(request.top_p),
        ..Overrides::default()
    };
    overrides.apply(SampleSettings::for_model(model))
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::super::pgm_last_error;
    use super::*;

    #[test]
    fn a_request_of_another_version_is_refused_and_one_of_ours_has_the_defaults() {
        let size = size_of::<PgmRequest>();
        let mut request = PgmRequest { seed: 7, n: 0, ..default_request() };
        // SAFETY: the request has at least as many bytes as are said, but for the refused sizes, of which none is written.
        unsafe {
            for (wrong, says) in [(0, "pgm_request_init"), (FIRST_REQUEST_SIZE - 1, "smaller"), (size + 8, "newer")] {
                assert_eq!(pgm_request_init(&mut request, wrong), -1);
                assert!(CStr::from_ptr(pgm_last_error()).to_str().unwrap().contains(says), "{wrong}");
                let stale = PgmRequest { size: wrong, ..default_request() };
                assert!(read_request(&stale).unwrap_err().contains(says), "{wrong}");
            }
            assert_eq!((request.seed, request.n), (7, 0));
            assert_eq!(pgm_request_init(&mut request, size), 0);
            request.seed = 9;
            let read = read_request(&request).unwrap();
            assert_eq!((read.size, read.seed, read.n, read.temperature), (size, 9, 1, -1.0));
        }
    }
}
