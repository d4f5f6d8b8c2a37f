//! The routes with a typed body or answer, one file for each protocol.

pub mod completions;
pub mod infill;
pub mod models;
pub mod openapi;
mod read;
mod responses;
