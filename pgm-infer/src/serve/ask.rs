//! The tasks that a client's body becomes.

use super::body::{BodyError, Common, CompletionBody, InfillBody, MAX_SEED, Prompt};
use super::{ApiError, Limits};
use crate::engine::{Task, TaskInput};
use crate::sample::order::{OrderFlags, OrderKind};
use crate::settings::Overrides;
use crate::text::template::{self, Part};
use crate::{Engine, SampleSettings, TextModel};

/// Tasks to hand over, one for each prompt, and how their answers are to be shown.
#[derive(Debug)]
pub struct ResolvedRequest {
    /// Each with as many samples.
    pub tasks: Vec<Task>,
    /// Samples of a task.
    pub n: usize,
    /// What stands before the first blank of each task, for `echo`.
    pub prompts: Vec<String>,
    /// Given tokens, BOS left out.
    pub n_prompt: usize,
    /// Whether a prompt is repeated in its answers.
    pub echo: bool,
    /// Whether log-probabilities are asked for.
    pub logprobs: bool,
    /// Whether a stream ends with a count of tokens.
    pub usage: bool,
}

impl From<BodyError> for ApiError {
    fn from(BodyError { field, message }: BodyError) -> Self {
        Self { param: field, ..Self::invalid(message) }
    }
}

impl Common {
    fn settings(&self, model: &TextModel, limits: &Limits) -> Result<SampleSettings, ApiError> {
        let defaults = SampleSettings::for_model(model);
        let steps = self.steps.unwrap_or_else(|| defaults.steps.min(limits.max_steps));
        if steps == 0 || steps > limits.max_steps {
            let message = format!("steps must lie between 1 and {}", limits.max_steps);
            return Err(ApiError::field("steps", message));
        }
        let order = self.order.as_deref().map(str::parse::<OrderKind>).transpose();
        let order = order.map_err(|message| ApiError::field("order", message))?;
        let flags = OrderFlags {
            order,
            candidates: self.candidates,
            entropy_bound: self.entropy_bound,
            remask_rate: self.remask_rate,
        };
        let order = flags.kind().map_err(|message| ApiError::field("order", message.replace("--", "")))?;
        let overrides = Overrides {
            steps: Some(steps),
            order: Some(order),
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            ..Overrides::default()
        };
        Ok(overrides.apply(defaults))
    }

    fn seed_or_any(&self) -> u64 {
        self.seed().unwrap_or_else(|| rand::random::<u64>() & MAX_SEED)
    }
}

impl CompletionBody {
    /// The tasks.
    ///
    /// # Errors
    /// Says which field cannot be met.
    pub fn ask(&self, engine: &Engine, limits: &Limits) -> Result<ResolvedRequest, ApiError> {
        let model = engine.model();
        let (n, echo, max_tokens) = (self.n.unwrap_or(1), self.echo.unwrap_or(false), self.max_tokens.unwrap_or(16));
        let mut settings = self.common.settings(model, limits)?;
        settings.alternatives = self.logprobs.unwrap_or(0);
        let tokens = |prompt| match prompt {
            Prompt::Text(text) => model.encode(&text),
            Prompt::Tokens(tokens) => Ok(tokens),
        };
        let prompts = self.prompts()?.into_iter().map(tokens).collect::<Result<Vec<_>, _>>()?;
        let suffix = model.encode(self.suffix.as_deref().unwrap_or(""))?;
        check_samples(n, prompts.len(), limits)?;
        let (seed, stop) = (self.common.seed_or_any(), self.common.stops()?);
        let most = limits.max_length.unwrap_or(model.config().backbone().length);
        let (mut tasks, mut texts, mut n_prompt) = (Vec::new(), Vec::new(), 0);
        for (index, prompt) in prompts.iter().enumerate() {
            let start = 1 + prompt.len();
            let end = start.saturating_add(max_tokens);
            let length = end.saturating_add(suffix.len());
            check_length(length, most, "max_tokens")?;
            let mut given = vec![(0, model.config().backbone().bos_index as u32)];
            given.extend((1..).zip(prompt.iter().copied()));
            given.extend((end..).zip(suffix.iter().copied()));
            let mut task = Task::new(TaskInput::Tokens { given, length });
            (task.settings, task.n) = (settings, n);
            task.seed = seed.wrapping_add((index * n) as u64);
            (task.stop, task.ends_at_eos, task.timeout) = (stop.clone(), suffix.is_empty(), Some(limits.timeout));
            tasks.push(task);
            n_prompt += prompt.len() + suffix.len();
            if prompt.iter().any(|&token| token as usize >= model.config().backbone().vocab_size) {
                let n = model.config().backbone().vocab_size;
                return Err(ApiError::field("prompt", format!("a token is beyond the model's {n} tokens")));
            }
            texts.push(model.decode(prompt)?);
        }
        let (logprobs, usage) = (self.logprobs.is_some(), self.wants_usage());
        Ok(ResolvedRequest { tasks, n, prompts: texts, n_prompt, echo, logprobs, usage })
    }
}

fn check_samples(n: usize, n_prompts: usize, limits: &Limits) -> Result<(), ApiError> {
    let most = limits.max_samples.min(limits.max_batch + limits.queue);
    if n == 0 || n.saturating_mul(n_prompts) > most {
        let message = format!("a request may ask for 1 to {most} samples over all its prompts");
        return Err(ApiError::field("n", message));
    }
    Ok(())
}

fn check_length(length: usize, most: usize, field: &'static str) -> Result<(), ApiError> {
    if length > most {
        let message = format!("the text would have {length} tokens with BOS; the server takes at most {most}");
        return Err(ApiError::field(field, message));
    }
    Ok(())
}

impl InfillBody {
    /// The task.
    ///
    /// # Errors
    /// Says which field cannot be met.
    pub fn ask(&self, engine: &Engine, limits: &Limits) -> Result<ResolvedRequest, ApiError> {
        let model = engine.model();
        let parts = match &self.template {
            Some(template) => template::parse(template, self.blank.unwrap_or(8))?,
            None => {
                let n_predict = self.n_predict.and_then(|n| usize::try_from(n).ok());
                let text = |text: &str| (!text.is_empty()).then(|| Part::Text(text.to_string()));
                let or_none = |text: &Option<String>| text.clone().unwrap_or_default();
                let before = or_none(&self.input_prefix) + &or_none(&self.prompt);
                let blank = Some(n_predict.map_or(Part::Free, Part::Blank));
                [text(&before), blank, text(&or_none(&self.input_suffix))].into_iter().flatten().collect()
            }
        };
        let settings = self.common.settings(model, limits)?;
        let most = limits.max_length.unwrap_or(model.config().backbone().length);
        // Blanks of a known size are counted before a row of theirs is made.
        let n_open = parts.iter().map(|part| if let Part::Blank(n) = part { *n } else { 0 });
        check_length(n_open.fold(1, usize::saturating_add), most, "template")?;
        if let Some(length) = self.length {
            check_length(length, most, "length")?;
        }
        let request = model.request_within(most, &parts, self.length, 0)?;
        check_length(request.length, most, "template")?;
        let n_prompt = request.given.len() - 1;
        let mut task = Task::new(TaskInput::Tokens { given: request.given, length: request.length });
        (task.settings, task.seed, task.stop) = (settings, self.common.seed_or_any(), self.common.stops()?);
        task.timeout = Some(limits.timeout);
        let prompts = vec![String::new()];
        Ok(ResolvedRequest { tasks: vec![task], n: 1, prompts, n_prompt, echo: false, logprobs: false, usage: false })
    }
}
