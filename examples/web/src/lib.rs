//! Filling blanks in a browser: the functions that `page/worker.js` calls.
//!
//! | file | what |
//! |---|---|
//! | `model.rs` | a model from the bytes of its folder, and what the page shows of it |
//! | `device.rs` | the processor, or the graphics card by WebGPU: each has a program of its own |
//! | `request.rs` | what the page asks for |
//! | `infill.rs` | fills a text, one step at a time |
//! | `failure.rs` | errors as JavaScript's exceptions |
//!
//! Requests and events have the form of the server's `POST /infill`, so that one page can show both.

mod device;
mod failure;
mod infill;
mod model;
mod request;

pub use model::WebModel;
