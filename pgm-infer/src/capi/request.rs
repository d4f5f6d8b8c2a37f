//! What to generate: the struct that a C program fills in.

use std::ffi::c_char;
use std::time::Duration;

use pgm_model::ModelConfig;

use super::error::{guard, message_of, text};
use crate::engine::{Task, TaskInput};
use crate::sample::Refresh;
use crate::sample::order::OrderFlags;
use crate::settings::Overrides;
use crate::text::TextRow;
use crate::text::template::{self, Part};
use crate::{Engine, OrderKind, SampleSettings, TextModel};

/// Tokens of a `___` blank.
const DEFAULT_BLANK: usize = 8;

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
    /// The name of an order: which positions a step decodes. Null is the model's.
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
    /// How many open positions the orders "confidence", "margin", "entropy" and "entropy-bounded" consider; 0 is all.
    pub candidates: usize,
    /// Nats of entropy that a step of "entropy-bounded" decodes at once; negative is 0.5.
    pub entropy_bound: f64,
    /// Probability at which "remask" masks a decoded token again before a step; negative is 0.05.
    pub remask_rate: f64,
    /// In one of how many network evaluations a partition model encodes the decoded tokens anew; -1 is in the first only, 0 is
    /// the model's default.
    pub refresh: i64,
}

// The size of `PgmRequest` in the first version that has `size`, and in the second, which has settings of orders. Structs of
// these sizes and of the current one are understood.
const FIRST_REQUEST_SIZE: usize = std::mem::offset_of!(PgmRequest, timeout_ms) + size_of::<u64>();
const SECOND_REQUEST_SIZE: usize = std::mem::offset_of!(PgmRequest, remask_rate) + size_of::<f64>();

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
        candidates: 0,
        entropy_bound: -1.0,
        remask_rate: -1.0,
        refresh: 0,
    }
}

fn check_request_size(size: usize) -> Result<(), String> {
    let known = size_of::<PgmRequest>();
    if size < FIRST_REQUEST_SIZE {
        return Err(format!(
            "a PgmRequest of {size} bytes is smaller than the first version's {FIRST_REQUEST_SIZE}; call pgm_request_init first"
        ));
    }
    if size < known && size != FIRST_REQUEST_SIZE && size != SECOND_REQUEST_SIZE {
        return Err(format!(
            "a PgmRequest of {size} bytes is of no version of pgm.h; they have {FIRST_REQUEST_SIZE}, {SECOND_REQUEST_SIZE} and \
             {known} bytes"
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

// The task, and its row before the first step.
//
// SAFETY: the request's texts are null or end in NUL, and `stops` has `n_stops` of them.
pub(super) unsafe fn task_of(engine: &Engine, request: &PgmRequest) -> Result<(Task, TextRow), String> {
    let given = |pointer: *const c_char, what| {
        // SAFETY: see above.
        (!pointer.is_null()).then(|| unsafe { text(pointer, what) }).transpose()
    };
    let parts = match (given(request.template_, "template_")?, given(request.prompt, "prompt")?) {
        (Some(template), _) => template::parse(template, DEFAULT_BLANK).map_err(message_of)?,
        (None, Some("")) => Vec::new(),
        (None, Some(prompt)) => vec![Part::Text(prompt.to_string())],
        (None, None) => vec![Part::Free],
    };
    let length = (request.length > 0).then_some(request.length);
    let row = engine.model().row(&parts, length, request.seed).map_err(message_of)?;
    let first = row.clone();
    let order = order(engine.model(), given(request.order, "order")?, request)?;
    let mut task = Task::new(TaskInput::Row(row));
    task.settings = settings(engine.model(), request, order)?;
    if request.n_stops > 0 && request.stops.is_null() {
        return Err("stops is null".into());
    }
    for index in 0..request.n_stops {
        // SAFETY: `stops` has `n_stops` texts.
        task.stop.push(unsafe { text(*request.stops.add(index), "a stop text")? }.to_string());
    }
    (task.seed, task.n) = (request.seed, request.n.max(1));
    task.timeout = (request.timeout_ms > 0).then(|| Duration::from_millis(request.timeout_ms));
    Ok((task, first))
}

// The order with its settings, the model's where none is named; none if the request has neither.
fn order(model: &TextModel, name: Option<&str>, request: &PgmRequest) -> Result<Option<OrderKind>, String> {
    let flags = OrderFlags {
        order: name.map(str::parse::<OrderKind>).transpose()?,
        candidates: (request.candidates > 0).then_some(request.candidates),
        entropy_bound: (request.entropy_bound >= 0.0).then_some(request.entropy_bound),
        remask_rate: (request.remask_rate >= 0.0).then_some(request.remask_rate),
        noise: None,
        roll: false,
    };
    // The message names the command's flags; here they are fields.
    let fields =
        [("--entropy-bound", "entropy_bound"), ("--remask-rate", "remask_rate"), ("--order", "order"), ("--", "")];
    let named = |message: String| fields.iter().fold(message, |message, (flag, field)| message.replace(flag, field));
    let is_default =
        name.is_none() && request.candidates == 0 && request.entropy_bound < 0.0 && request.remask_rate < 0.0;
    if is_default {
        return Ok(None);
    }
    flags.kind_or(SampleSettings::for_model(model).order).map(Some).map_err(named)
}

// How often the decoded tokens are encoded anew; none for the model's default.
fn refresh(model: &TextModel, request: &PgmRequest) -> Result<Option<Refresh>, String> {
    let refresh = match request.refresh {
        0 => return Ok(None),
        -1 => Refresh::Never,
        // Through the text of a number, whose range is checked in one place.
        n => n.to_string().parse().map_err(|message: String| format!("refresh {n}: {message}; -1 is inf here"))?,
    };
    if !matches!(model.config(), ModelConfig::Partition(_)) {
        let message = "refresh must be 0: only a partition model keeps what it has encoded of decoded tokens";
        return Err(message.into());
    }
    Ok(Some(refresh))
}

// The model's settings, overridden by the request.
fn settings(model: &TextModel, request: &PgmRequest, order: Option<OrderKind>) -> Result<SampleSettings, String> {
    let overrides = Overrides {
        steps: (request.steps > 0).then_some(request.steps),
        order,
        temperature: (request.temperature >= 0.0).then_some(request.temperature),
        top_k: (request.top_k > 0).then_some(request.top_k),
        top_p: (request.top_p > 0.0).then_some(request.top_p),
        refresh: refresh(model, request)?,
        ..Overrides::default()
    };
    Ok(overrides.apply(SampleSettings::for_model(model)))
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::path::Path;

    use burn::tensor::Device;

    use super::super::pgm_last_error;
    use super::*;
    use crate::sample::order::CandidateLimit;

    #[test]
    fn a_request_of_another_version_is_refused_and_one_of_ours_has_the_defaults() {
        let size = size_of::<PgmRequest>();
        let mut request = PgmRequest { seed: 7, n: 0, ..default_request() };
        // SAFETY: the request has at least as many bytes as are said, but for the refused sizes, of which none is written.
        unsafe {
            for (wrong, says) in [
                (0, "pgm_request_init"),
                (FIRST_REQUEST_SIZE - 1, "smaller"),
                (size - 1, "no version"),
                (size + 8, "newer"),
            ] {
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
            // The first version had no settings of orders.
            request.remask_rate = 0.5;
            request.size = FIRST_REQUEST_SIZE;
            let read = read_request(&request).unwrap();
            assert_eq!((read.candidates, read.entropy_bound, read.remask_rate), (0, -1.0, -1.0));
            // The second had no refresh.
            (request.size, request.refresh) = (SECOND_REQUEST_SIZE, 8);
            let read = read_request(&request).unwrap();
            assert_eq!((read.remask_rate, read.refresh), (0.5, 0));
            request.size = size;
            assert_eq!(read_request(&request).unwrap().refresh, 8);
        }
    }

    #[test]
    fn an_order_has_its_settings_and_no_others() {
        let request = || default_request();
        let byte_model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/byte-model");
        let folder = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors", "tokenizer.json"] {
            std::fs::copy(byte_model.join(file), folder.path().join(file)).unwrap();
        }
        // A model with an order of its own.
        std::fs::write(folder.path().join("generation_config.json"), r#"{"order": "confidence"}"#).unwrap();
        let model = TextModel::load(folder.path(), &Device::flex()).unwrap();
        let order = |name: Option<&str>, request: &PgmRequest| order(&model, name, request);
        assert_eq!(order(None, &request()), Ok(None));
        let looked = order(None, &PgmRequest { candidates: 16, ..request() }).unwrap().unwrap();
        assert_eq!(looked.with_candidates(CandidateLimit::All), "confidence".parse().unwrap());
        let remask = PgmRequest { remask_rate: 0.25, ..request() };
        assert_eq!(order(Some("remask"), &remask), Ok(Some(OrderKind::Remask { rate: 0.25 })));
        let bounded = PgmRequest { entropy_bound: 0.0, candidates: 3, ..request() };
        let bounded = order(Some("entropy-bounded"), &bounded).unwrap().unwrap();
        assert_eq!(bounded, OrderKind::EntropyBounded { bound: 0.0, limit: CandidateLimit::Some(3) });
        for (name, request, says) in [
            (None, &remask, "remask_rate belongs to order remask"),
            (
                Some("confidence"),
                &PgmRequest { entropy_bound: 1.0, ..request() },
                "entropy_bound belongs to order entropy-bounded",
            ),
            (Some("dilated"), &PgmRequest { candidates: 1, ..request() }, "candidates belongs to the orders"),
            (Some("backwards"), &request(), "backwards is not an order"),
        ] {
            let message = order(name, request).unwrap_err();
            assert!(message.contains(says) && !message.contains("--"), "{message}");
        }
    }
}
