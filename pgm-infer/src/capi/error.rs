//! Errors, panics and strings at the C boundary.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::InferError;

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Why the last failed call of this thread failed.
pub(super) fn last_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ptr())
}

fn set_last_error(message: &str) {
    let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
    LAST_ERROR.with(|last| *last.borrow_mut() = message);
}

/// The value of `work`; on an error or a panic none, and the reason for `pgm_last_error`.
pub(super) fn guard<T>(work: impl FnOnce() -> Result<T, String>) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Some(value),
        Ok(Err(message)) => {
            set_last_error(&message);
            None
        }
        Err(_) => {
            set_last_error("the library panicked; please report it");
            None
        }
    }
}

// SAFETY: the caller passes null or a text that ends in NUL.
pub(super) unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str, String> {
    if text.is_null() {
        return Err(format!("{what} is null"));
    }
    // SAFETY: see above.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| format!("{what} is not UTF-8"))
}

pub(super) fn message_of(error: InferError) -> String {
    error.to_string()
}
