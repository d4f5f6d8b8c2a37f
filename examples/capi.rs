//! The C interface as `libpgm`, built with whatever else the workspace builds; docs/server.md has the command for a smaller one.
pub use pgm_infer::capi::*;
