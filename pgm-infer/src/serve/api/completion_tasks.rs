//! From the body of a completion to tasks and prompts.

use crate::TextModel;
use crate::engine::{Task, TaskInput};
use crate::score;
use crate::serve::body::{CompletionBody, Prompt, RequestBody};
use crate::serve::error::ApiError;
use crate::serve::kept::text_offsets;
use crate::serve::logprobs::{PromptEstimator, TokenEntry, entries_of_prompt};
use crate::serve::resolve::{self, check_length};
use crate::serve::scoring::ScoreWatch;
use crate::serve::state::Limits;
use crate::text::request::RowPart;
use crate::text::template::Part;

/// The default of `max_tokens`.
const DEFAULT_MAX_TOKENS: usize = 16;

/// What a completion asks for.
pub struct CompletionRequest {
    /// One task for each prompt, all with the same number of samples; none if no token is to be written.
    pub tasks: Vec<Task>,
    /// The prompts, in the same order.
    pub prompts: Vec<GivenPrompt>,
    /// Given tokens over all prompts, BOS left out.
    pub n_prompt_tokens: usize,
    /// The tokens of the prompts are to be scored, with this many alternatives.
    pub scores_prompts: Option<usize>,
}

/// A prompt.
#[derive(Default)]
pub struct GivenPrompt {
    /// Its text, as it is repeated.
    pub text: String,
    /// The row of the prompt alone, BOS first.
    row: Vec<u32>,
    /// Whether that BOS is the prompt's own.
    has_bos: bool,
    /// Its tokens, if they were scored.
    pub entries: Vec<TokenEntry>,
}

/// Checks a body and makes its tasks.
///
/// # Errors
/// Names the field that cannot be met.
pub fn resolve_completion(
    body: &CompletionBody,
    model: &TextModel,
    limits: &Limits,
) -> Result<CompletionRequest, ApiError> {
    body.check()?;
    let mut settings = resolve::settings(&body.common, model, limits)?;
    settings.alternatives = body.logprobs.unwrap_or(0);
    let suffix = body.suffix.clone().unwrap_or_default();
    let n_blank = body.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
    let max_length = resolve::max_length(model, limits);
    // The blank is counted before memory is allocated for it.
    check_length(n_blank.saturating_add(1), max_length, "max_tokens")?;
    let (n, stop) = (body.n.unwrap_or(1), body.common.stops()?);
    let seed = resolve::seed(body.common.seed(), n.saturating_mul(body.n_prompts()))?;
    let echoes = body.echo == Some(true);
    let scores_prompts = body.logprobs.filter(|_| echoes);
    let backbone = model.config().backbone();
    let (bos, mask) = (backbone.bos_index as u32, backbone.mask_index as u32);
    let (mut tasks, mut prompts, mut n_prompt_tokens) = (Vec::new(), Vec::new(), 0);
    for (index, prompt) in body.prompts()?.into_iter().enumerate() {
        let (part, tokens, text) = match prompt {
            // Scored tokens are the given ones: none is drawn again at the border of the blank.
            Prompt::Text(text) if scores_prompts.is_some() => {
                let tokens = model.encode(&text)?;
                (RowPart::Tokens(tokens.clone()), tokens, Some(text))
            }
            Prompt::Text(text) => (RowPart::Template(Part::Text(text.clone())), Vec::new(), Some(text)),
            Prompt::Tokens(tokens) => {
                // The row begins with one BOS, whoever gives it.
                check_tokens(&tokens, model)?;
                let own = tokens.strip_prefix(&[bos]).unwrap_or(&tokens).to_vec();
                (RowPart::Tokens(own), tokens, None)
            }
        };
        let mut given = GivenPrompt::default();
        if echoes {
            given.text = match text {
                Some(text) if model.keeps_text() => text,
                Some(text) => model.decode(&model.encode(&text)?)?,
                None => model.decode(&tokens)?,
            };
        }
        if scores_prompts.is_some() {
            given.has_bos = tokens.first() == Some(&bos);
            if tokens.contains(&mask) {
                return Err(resolve::mask_error("prompt", mask as usize));
            }
            given.row = if given.has_bos { tokens } else { [&[bos], tokens.as_slice()].concat() };
            check_length(given.row.len().saturating_add(n_blank), max_length, "max_tokens")?;
        }
        if n_blank == 0 {
            // Only a prompt that is repeated comes without a blank.
            n_prompt_tokens += match &part {
                RowPart::Template(Part::Text(text)) => model.encode(text)?.len(),
                RowPart::Tokens(tokens) => tokens.len(),
                RowPart::Template(_) => 0,
            };
            prompts.push(given);
            continue;
        }
        let parts = [part, RowPart::Template(Part::Blank(n_blank)), RowPart::Template(Part::Text(suffix.clone()))];
        let row = model.row_of_parts(&parts, 0)?;
        resolve::check_given(&row, model, "prompt", "suffix")?;
        check_length(row.request.length, max_length, "max_tokens")?;
        n_prompt_tokens += row.n_given();
        let mut task = Task::new(TaskInput::Row(row));
        (task.settings, task.n, task.seed) = (settings, n, seed.wrapping_add((index * n) as u64));
        // Text before a suffix does not end at an EOS: the suffix follows.
        (task.stop, task.ends_at_eos) = (stop.clone(), suffix.is_empty());
        tasks.push(task);
        prompts.push(given);
    }
    Ok(CompletionRequest { tasks, prompts, n_prompt_tokens, scores_prompts })
}

impl CompletionRequest {
    /// Scores the tokens of the prompts from left to right.
    ///
    /// # Errors
    /// When the device fails, or when `watch` says so.
    pub fn score_prompts(&mut self, model: &TextModel, watch: &ScoreWatch) -> Result<(), ApiError> {
        let Some(n_best) = self.scores_prompts else { return Ok(()) };
        for prompt in &mut self.prompts {
            let first = usize::from(!prompt.has_bos);
            let mut scores = Vec::new();
            for batch in score::left_to_right(model.handle(), &prompt.row, n_best) {
                watch.check()?;
                scores.extend(batch?);
            }
            let (offsets, _) = text_offsets(|tokens| model.decode(tokens), &prompt.row[first..], 0);
            // As in OpenAI's answers, the first token has no log-probability, also if it follows a BOS.
            let scores = scores.get(first..).unwrap_or_default();
            prompt.entries = entries_of_prompt(&prompt.row[first..], &offsets, scores);
        }
        Ok(())
    }
}

// Checks that the model has the tokens of a prompt.
fn check_tokens(tokens: &[u32], model: &TextModel) -> Result<(), ApiError> {
    let n_tokens = model.config().backbone().vocab_size;
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= n_tokens) {
        return Err(ApiError::field(
            "prompt",
            format!("prompt has the token {token}; the model has {n_tokens} tokens"),
        ));
    }
    Ok(())
}

/// What the scores of a model's prompts are.
pub fn prompt_estimator(model: &TextModel) -> PromptEstimator {
    match model.network() {
        pgm_model::Network::Autoregressive(_) => PromptEstimator::Exact,
        _ => PromptEstimator::LeftToRight,
    }
}
