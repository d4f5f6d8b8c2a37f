//! The counts of tokens in the answers.

use serde::Serialize;
use utoipa::ToSchema;

/// Counts of tokens.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub struct Usage {
    prompt_tokens: usize,
    /// Tokens that the texts are made of: up to a stop string or an EOS.
    completion_tokens: usize,
    total_tokens: usize,
    /// Tokens that were drawn. Those behind the end of a text count here.
    drawn_tokens: usize,
}

impl Usage {
    /// The counts of a request.
    pub fn new(prompt_tokens: usize, completion_tokens: usize, drawn_tokens: usize) -> Self {
        Self { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens, drawn_tokens }
    }
}
