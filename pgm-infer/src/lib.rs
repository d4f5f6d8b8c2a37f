//! Sampling from Partition Generative Models: any order, any number of steps, any given tokens.
//!
//! | module | what |
//! |---|---|
//! | [`sample`](mod@sample) | the sampling loop, on token ids alone: schedules, orders, the categorical draw |
//! | [`denoise`] | the networks as denoisers, which give the loop its logits |
//! | [`text`] | a model folder with its tokenizer, templates, how a row reads |
//! | [`picture`] | a model of image codes with its codec, pictures as files, edits of given pictures |
//! | [`settings`] | the defaults of a model, and what a caller overrides |
//! | [`score`] | likelihoods of given texts |
//! | `demo` | the bundled model |
//! | [`engine`] | a model on its own thread that batches overlapping requests |
//!
//! Without the features `files` and `threads` there is no engine and there are no pictures; texts are sampled step by step from
//! a model in memory, as in a browser.

pub mod bench;
#[cfg(feature = "capi")]
#[allow(unsafe_code)]
pub mod capi;
#[cfg(feature = "demo")]
pub mod demo;
pub mod denoise;
pub mod device;
#[cfg(all(feature = "files", feature = "threads"))]
pub mod engine;
mod error;
pub mod flops;
mod parallel;
#[cfg(feature = "files")]
pub mod picture;
pub mod sample;
pub mod score;
#[cfg(feature = "server")]
pub mod serve;
pub mod settings;
pub mod text;
mod unwind;

pub use denoise::{CausalDenoiser, Denoiser, FullDenoiser, MaskedDenoiser, PartitionDenoiser, SamplingPath};
#[cfg(all(feature = "files", feature = "threads"))]
pub use engine::Engine;
pub use error::InferError;
#[cfg(feature = "files")]
pub use picture::{ImageModel, Picture};
pub use sample::draw::DrawSettings;
pub use sample::logits::Logits;
pub use sample::order::{Order, OrderKind};
pub use sample::{SampleRequest, SampleSettings, SampledRow, Schedule, StepView, sample};
pub use text::{GenerationConfig, ModelBytes, TextModel};

/// Compiles the README's example.
#[cfg(all(doctest, feature = "flex"))]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// Compiles the examples of docs/embedding.md.
#[cfg(all(doctest, feature = "flex"))]
#[doc = include_str!("../../docs/embedding.md")]
pub struct Embedding;
