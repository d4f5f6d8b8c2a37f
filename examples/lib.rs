//! The runnable examples; see `quickstart.rs`.
