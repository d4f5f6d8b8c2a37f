//! The C interface as the library `libpgm`, with the features of the workspace's build. docs/embedding.md has the
//! command for a smaller library.
pub use pgm_infer::capi::*;
