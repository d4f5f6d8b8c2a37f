//! OpenAI's log-probabilities of the tokens of a text.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use utoipa::ToSchema;

use super::kept::KeptTokens;
use crate::TextModel;
use crate::engine::TaskOutput;
use crate::score::TokenScore;

/// The tokens of a completion, up to the end of its text; with `echo`, those of the prompt before them.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Logprobs {
    /// The name of each token, which no other token has: its text, or bytes:\xe2 for bytes that are no text.
    tokens: Vec<String>,
    /// Log-probability of each token when it was drawn, in nats. That of a prompt's first token is null.
    token_logprobs: Vec<Option<f64>>,
    /// The most probable tokens at each position, and the drawn one.
    #[schema(required = true)]
    top_logprobs: Option<Vec<Option<BTreeMap<String, f64>>>>,
    /// Where each token begins in the text, in characters. A token within a character begins where that does.
    text_offset: Vec<usize>,
    /// Where the log-probabilities of a prompt come from; null without `echo`.
    #[schema(required = true)]
    prompt_estimator: Option<PromptEstimator>,
}

/// What the log-probabilities of a prompt's tokens are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PromptEstimator {
    /// The likelihood of an autoregressive model.
    Exact,
    /// The likelihood of the order from left to right, one token a step, which is one of the orders that the model can
    /// write in.
    LeftToRight,
}

/// One token of a text with its log-probability.
pub struct TokenEntry {
    pub token: u32,
    /// None for the first token of a prompt.
    pub logprob: Option<f64>,
    /// The most probable tokens; empty if none were asked for.
    pub best: Vec<(u32, f64)>,
    /// Where it begins, in characters.
    pub offset: usize,
}

/// The kept tokens of a sample.
pub fn entries_of_sample(output: &TaskOutput, kept: &KeptTokens) -> Vec<TokenEntry> {
    let sampled = &output.sampled;
    let places: HashMap<usize, usize> = sampled.order.iter().enumerate().map(|(place, &at)| (at, place)).collect();
    let entry = |(position, &offset): (usize, &usize)| {
        let place = *places.get(&position)?;
        let best = sampled.alternatives.get(place).cloned().unwrap_or_default();
        Some(TokenEntry {
            token: sampled.tokens[position],
            logprob: Some(sampled.log_probabilities[place]),
            best,
            offset,
        })
    };
    kept.positions.clone().zip(&kept.offsets).filter_map(entry).collect()
}

/// The tokens of a prompt: `offsets` has one for each, and `scores` one for each but the first.
pub fn entries_of_prompt(tokens: &[u32], offsets: &[usize], scores: &[TokenScore]) -> Vec<TokenEntry> {
    let scores = std::iter::once(None).chain(scores.iter().map(Some));
    let entry = |((&token, &offset), score): ((&u32, &usize), Option<&TokenScore>)| TokenEntry {
        token,
        logprob: score.map(|score| score.log_probability),
        best: score.map(|score| score.best.clone()).unwrap_or_default(),
        offset,
    };
    tokens.iter().zip(offsets).zip(scores).map(entry).collect()
}

impl Logprobs {
    /// Of the tokens of a prompt (if it is repeated) and those behind it. `with_best` says whether the most probable tokens
    /// were asked for; `n_chars` is the length of the prompt's text.
    pub fn new(
        model: &TextModel,
        prompt: Option<(&[TokenEntry], usize, PromptEstimator)>,
        written: &[TokenEntry],
        with_best: bool,
    ) -> Self {
        let mut all = Self { top_logprobs: with_best.then(Vec::new), ..Self::default() };
        let mut start = 0;
        if let Some((entries, n_chars, estimator)) = prompt {
            entries.iter().for_each(|entry| all.push(model, entry, 0));
            (start, all.prompt_estimator) = (n_chars, Some(estimator));
        }
        written.iter().for_each(|entry| all.push(model, entry, start));
        all
    }

    fn push(&mut self, model: &TextModel, entry: &TokenEntry, start: usize) {
        let name = model.token_name(entry.token);
        if let Some(top) = &mut self.top_logprobs {
            let named = |&(token, value): &(u32, f64)| (model.token_name(token), value);
            top.push(entry.logprob.map(|logprob| {
                let mut best: BTreeMap<String, f64> = entry.best.iter().map(named).collect();
                best.insert(name.clone(), logprob);
                best
            }));
        }
        self.tokens.push(name);
        self.token_logprobs.push(entry.logprob);
        self.text_offset.push(start + entry.offset);
    }
}

/// The log-probabilities of a chat answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatLogprobs {
    content: Vec<ChatToken>,
}

/// A token of a chat answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatToken {
    #[serde(flatten)]
    #[schema(inline)]
    own: NamedToken,
    /// The most probable tokens at its position.
    top_logprobs: Vec<NamedToken>,
}

/// A token with its log-probability.
#[derive(Debug, Serialize, ToSchema)]
pub struct NamedToken {
    /// Its name, as in `/v1/completions`.
    token: String,
    /// Its log-probability, in nats.
    logprob: f64,
    /// The bytes of its text; null for a special token, and for tokenizers whose tokens are whole words.
    #[schema(required = true)]
    bytes: Option<Vec<u8>>,
}

impl ChatLogprobs {
    /// Of the tokens of an answer.
    pub fn new(model: &TextModel, written: &[TokenEntry]) -> Self {
        let named = |(token, logprob): (u32, f64)| NamedToken {
            token: model.token_name(token),
            logprob,
            bytes: model.bytes_of_token(token).map(<[u8]>::to_vec),
        };
        let token = |entry: &TokenEntry| ChatToken {
            own: named((entry.token, entry.logprob.unwrap_or(0.0))),
            top_logprobs: entry.best.iter().copied().map(named).collect(),
        };
        Self { content: written.iter().map(token).collect() }
    }
}
