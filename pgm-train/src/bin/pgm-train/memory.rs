//! The allocator of the command.
#![allow(unsafe_code)] // options of a C library

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

// Burn's Flex backend allocates a new tensor for every result. This allocator keeps freed memory, which saves the page
// faults of new memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's `purge_delay`: milliseconds until freed memory goes back to the system, -1 for never.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps freed memory for the next step. By default it goes back to the system after a second, so that a step that takes longer
/// gets its gradients in pages that the system must clear first: a quarter of the time of a large model's step. The variable
/// `MIMALLOC_PURGE_DELAY` overrides this.
pub fn keep_what_is_freed() {
    // SAFETY: the option exists, and no other thread reads it yet.
    unsafe { mi_option_set_default(PURGE_DELAY, -1) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_the_delay_and_the_environment_overrides_it() {
        // SAFETY: the option exists.
        let read = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        keep_what_is_freed();
        if let Ok(given) = std::env::var("MIMALLOC_PURGE_DELAY") {
            assert_eq!(read().to_string(), given);
            return;
        }
        assert_eq!(read(), -1);
        // The same test in a process with the variable.
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let again = again.env("MIMALLOC_PURGE_DELAY", "777").arg("the_option_is_the_delay").output().unwrap();
        let says = String::from_utf8_lossy(&again.stdout).into_owned();
        assert!(again.status.success() && says.contains("1 passed"), "{says}");
    }
}
