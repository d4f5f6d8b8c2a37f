//! The only place that catches panics of code outside this crate: tokenizers, listeners, custom orders, devices.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `work` and turns a panic into its message.
pub(crate) fn catch<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(&*panic))
}

/// Drops a value whose destructor may panic.
pub(crate) fn drop_caught<T>(value: T) {
    let _ = catch(|| drop(value));
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(catch(|| 3), Ok(3));
        assert_eq!(catch(|| panic!("number {}", 4)), Err::<(), _>("number 4".to_string()));
        assert_eq!(catch(|| std::panic::panic_any(4)), Err::<(), _>("it panicked".to_string()));
    }
}
