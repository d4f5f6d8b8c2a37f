//! The routes with a typed body or answer, one file for each protocol.

pub mod chat;
mod completion_tasks;
pub mod completions;
mod image_answer;
mod image_samples;
mod image_upload;
pub mod images;
pub mod infill;
mod infill_fit;
pub mod models;
pub mod openapi;
mod read;
mod responses;
pub mod score;
pub mod tokenize;
mod usage;
