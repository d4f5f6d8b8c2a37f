//! GPT-2 as a judge: configuration, weights, network, and the folder with its tokenizer.

mod config;
mod judge;
mod network;
mod weights;

pub use config::Gpt2Config;
pub use judge::Gpt2Judge;
pub use network::Gpt2;
