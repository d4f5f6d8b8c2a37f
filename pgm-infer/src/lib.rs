//! Sampling from Partition Generative Models: any order, any number of steps, any tokens given.
//!
//! A sampler is one loop, [`sample`]: how many positions a step decodes ([`Schedule`]), which ones ([`Order`]),
//! what stands there (the categorical draw of [`draw`]), from the logits of a [`Denoiser`]. It works on token ids
//! alone; [`TextModel`] puts a tokenizer around it.

pub mod bench;
pub mod canvas;
#[cfg(feature = "capi")]
#[allow(unsafe_code)]
pub mod capi;
pub mod causal;
pub mod denoiser;
pub mod device;
pub mod draw;
pub mod engine;
mod error;
pub mod flops;
pub mod logits;
pub mod order;
pub mod sampler;
pub mod schedule;
#[cfg(feature = "server")]
pub mod serve;
pub mod template;
pub mod text;

pub use causal::CausalDenoiser;
pub use denoiser::{Denoiser, FullDenoiser, MaskedDenoiser, PartitionDenoiser};
pub use draw::DrawSettings;
pub use engine::Engine;
pub use error::InferError;
pub use logits::Logits;
pub use order::{Order, OrderKind};
pub use sampler::{SampleRequest, SampleSettings, SampledRow, StepView, sample};
pub use schedule::Schedule;
pub use text::{GenerationConfig, ModelBytes, SamplingPath, TextModel};

/// Compiles the README's example.
#[cfg(all(doctest, feature = "flex"))]
#[doc = include_str!("../../README.md")]
pub struct Readme;
