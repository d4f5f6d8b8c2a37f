//! What clients send, and the tasks it becomes.

use serde::Deserialize;
use serde_json::Value;

use super::{ApiError, Limits};
use crate::engine::{Task, Text};
use crate::order::{OrderFlags, OrderKind};
use crate::template::{self, Part};
use crate::{Engine, Settings, TextModel, bench};

/// The largest seed: what JavaScript can hold, too.
const MAX_SEED: u64 = (1 << 53) - 1;
/// Stop strings of a request.
const MAX_STOPS: usize = 16;
/// Alternatives to a token.
const MAX_LOGPROBS: usize = 5;

/// The body of `/v1/completions`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompletionBody {
    pub model: Option<String>,
    prompt: Option<Value>,
    suffix: Option<String>,
    max_tokens: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<usize>,
    n: Option<usize>,
    best_of: Option<usize>,
    pub stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    logprobs: Option<usize>,
    echo: Option<bool>,
    stop: Option<Value>,
    seed: Option<u64>,
    // Who asks says nothing here.
    #[serde(rename = "user")]
    _user: Option<String>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    logit_bias: Option<serde_json::Map<String, Value>>,
    steps: Option<usize>,
    order: Option<String>,
    candidates: Option<usize>,
    entropy_bound: Option<f64>,
    remask_rate: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamOptions {
    include_usage: Option<bool>,
    #[serde(rename = "include_obfuscation")]
    _include_obfuscation: Option<bool>,
}

/// The body of `/infill`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InfillBody {
    pub model: Option<String>,
    input_prefix: Option<String>,
    input_suffix: Option<String>,
    n_predict: Option<i64>,
    template: Option<String>,
    blank: Option<usize>,
    length: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<usize>,
    seed: Option<u64>,
    stop: Option<Value>,
    pub stream: Option<bool>,
    steps: Option<usize>,
    order: Option<String>,
    candidates: Option<usize>,
    entropy_bound: Option<f64>,
    remask_rate: Option<f64>,
}

/// Tasks to hand over, one for each prompt, and how their answers are to be shown.
#[derive(Debug)]
pub struct Ask {
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

/// Steps of a request that does not say.
pub fn default_steps(model: &TextModel) -> usize {
    model.generation().steps.unwrap_or(128)
}

struct Sampling<'a> {
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<usize>,
    steps: Option<usize>,
    order: Option<&'a str>,
    candidates: Option<usize>,
    entropy_bound: Option<f64>,
    remask_rate: Option<f64>,
}

impl Sampling<'_> {
    fn settings(&self, model: &TextModel, limits: &Limits) -> Result<Settings, ApiError> {
        let mut draw = model.generation().draw();
        draw.temperature = self.temperature.unwrap_or(draw.temperature);
        draw.top_p = self.top_p.unwrap_or(draw.top_p);
        draw.top_k = self.top_k.unwrap_or(draw.top_k);
        if !(0.0..=2.0).contains(&draw.temperature) {
            return Err(ApiError::field("temperature", "temperature must lie between 0 and 2"));
        }
        if !(draw.top_p > 0.0 && draw.top_p <= 1.0) {
            return Err(ApiError::field("top_p", "top_p must be above 0 and at most 1"));
        }
        let steps = self.steps.unwrap_or_else(|| default_steps(model).min(limits.max_steps));
        if steps == 0 || steps > limits.max_steps {
            let message = format!("steps must lie between 1 and {}", limits.max_steps);
            return Err(ApiError::field("steps", message));
        }
        let order = self.order.map(str::parse::<OrderKind>).transpose();
        let order = order.map_err(|message| ApiError::field("order", message))?;
        let flags = OrderFlags {
            order,
            candidates: self.candidates,
            entropy_bound: self.entropy_bound,
            remask_rate: self.remask_rate,
        };
        let order = flags.kind().map_err(|message| ApiError::field("order", message.replace("--", "")))?;
        Ok(Settings { steps, schedule: bench::default_schedule(model.config()), order, draw, alternatives: 0 })
    }
}

fn seed(seed: Option<u64>) -> Result<u64, ApiError> {
    match seed {
        None => Ok(rand::random::<u64>() & MAX_SEED),
        Some(seed) if seed <= MAX_SEED => Ok(seed),
        Some(_) => Err(ApiError::field("seed", format!("seed must lie between 0 and {MAX_SEED}"))),
    }
}

fn stops(stop: Option<&Value>) -> Result<Vec<String>, ApiError> {
    let wrong = || ApiError::field("stop", format!("stop must be a text or up to {MAX_STOPS} texts, none empty"));
    let stops = match stop {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(texts)) => {
            let texts = texts.iter().map(|text| text.as_str().map(String::from));
            texts.collect::<Option<Vec<_>>>().ok_or_else(wrong)?
        }
        Some(_) => return Err(wrong()),
    };
    if stops.len() > MAX_STOPS || stops.iter().any(String::is_empty) { Err(wrong()) } else { Ok(stops) }
}

// The tokens of each prompt.
fn prompts(prompt: Option<&Value>, model: &TextModel) -> Result<Vec<Vec<u32>>, ApiError> {
    let wrong = || ApiError::field("prompt", "prompt must be a text, tokens, or a list of either, not empty");
    let tokens = |value: &Value| -> Result<Vec<u32>, ApiError> {
        match value {
            Value::String(text) => Ok(model.encode(text)?),
            Value::Array(ids) => {
                let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok()).ok_or_else(wrong);
                ids.iter().map(id).collect()
            }
            _ => Err(wrong()),
        }
    };
    match prompt {
        None | Some(Value::Null) => Ok(vec![Vec::new()]),
        Some(text @ Value::String(_)) => Ok(vec![tokens(text)?]),
        Some(Value::Array(parts)) if parts.is_empty() => Err(wrong()),
        Some(ids @ Value::Array(parts)) if parts[0].is_number() => Ok(vec![tokens(ids)?]),
        Some(Value::Array(parts)) => parts.iter().map(tokens).collect(),
        Some(_) => Err(wrong()),
    }
}

// Settings of the protocol that have no meaning here may be given as long as they change nothing.
fn refuse(name: &'static str, changes: bool) -> Result<(), ApiError> {
    let message = format!("{name} is not supported: its tokens would not follow the model's distribution");
    if changes { Err(ApiError::field(name, message)) } else { Ok(()) }
}

impl CompletionBody {
    /// The tasks.
    ///
    /// # Errors
    /// Says which field cannot be met.
    pub fn ask(&self, engine: &Engine, limits: &Limits) -> Result<Ask, ApiError> {
        let model = engine.model();
        refuse("presence_penalty", self.presence_penalty.is_some_and(|penalty| penalty != 0.0))?;
        refuse("frequency_penalty", self.frequency_penalty.is_some_and(|penalty| penalty != 0.0))?;
        refuse("logit_bias", self.logit_bias.as_ref().is_some_and(|bias| !bias.is_empty()))?;
        let n = self.n.unwrap_or(1);
        if self.best_of.is_some_and(|best_of| best_of != n) {
            return Err(ApiError::field("best_of", "best_of is not supported: ask for n samples and choose"));
        }
        if self.stream_options.is_some() && self.stream != Some(true) {
            return Err(ApiError::field("stream_options", "stream_options goes with stream"));
        }
        if self.logprobs.is_some_and(|logprobs| logprobs > MAX_LOGPROBS) {
            return Err(ApiError::field("logprobs", format!("logprobs must lie between 0 and {MAX_LOGPROBS}")));
        }
        let echo = self.echo.unwrap_or(false);
        if echo && self.logprobs.is_some() {
            let message = "echo with logprobs is not supported: given tokens are not drawn and have no log-probability";
            return Err(ApiError::field("echo", message));
        }
        let max_tokens = self.max_tokens.unwrap_or(16);
        if max_tokens == 0 {
            return Err(ApiError::field("max_tokens", "max_tokens must be at least 1"));
        }
        let sampling = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            steps: self.steps,
            order: self.order.as_deref(),
            candidates: self.candidates,
            entropy_bound: self.entropy_bound,
            remask_rate: self.remask_rate,
        };
        let mut settings = sampling.settings(model, limits)?;
        settings.alternatives = self.logprobs.unwrap_or(0);
        let prompts = prompts(self.prompt.as_ref(), model)?;
        let suffix = model.encode(self.suffix.as_deref().unwrap_or(""))?;
        check_samples(n, prompts.len(), limits)?;
        let seed = seed(self.seed)?;
        let stop = stops(self.stop.as_ref())?;
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
            let mut task = Task::new(Text::Tokens { given, length });
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
        let usage = self.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false);
        Ok(Ask { tasks, n, prompts: texts, n_prompt, echo, logprobs: self.logprobs.is_some(), usage })
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
    pub fn ask(&self, engine: &Engine, limits: &Limits) -> Result<Ask, ApiError> {
        let model = engine.model();
        let in_two = self.input_prefix.is_some() || self.input_suffix.is_some();
        let parts = match &self.template {
            Some(_) if in_two || self.n_predict.is_some() => {
                return Err(ApiError::field("template", "give a template, or input_prefix and input_suffix, not both"));
            }
            Some(template) => template::parse(template, self.blank.unwrap_or(8))?,
            None if !in_two => {
                return Err(ApiError::field("template", "give a template, or input_prefix and input_suffix"));
            }
            None => {
                let blank = match self.n_predict {
                    None | Some(-1) => Part::Free,
                    Some(n) if n > 0 => Part::Blank(usize::try_from(n).unwrap_or(usize::MAX)),
                    Some(_) => {
                        let message = "n_predict must be at least 1, or -1 for as many tokens as there is room for";
                        return Err(ApiError::field("n_predict", message));
                    }
                };
                let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty()).map(Part::Text);
                [text(&self.input_prefix), Some(blank), text(&self.input_suffix)].into_iter().flatten().collect()
            }
        };
        let sampling = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            steps: self.steps,
            order: self.order.as_deref(),
            candidates: self.candidates,
            entropy_bound: self.entropy_bound,
            remask_rate: self.remask_rate,
        };
        let settings = sampling.settings(model, limits)?;
        let most = limits.max_length.unwrap_or(model.config().backbone().length);
        // Blanks of a known size are counted before a row of theirs is made.
        let n_open = parts.iter().map(|part| if let Part::Blank(n) = part { *n } else { 0 });
        check_length(n_open.fold(1, usize::saturating_add), most, "template")?;
        if let Some(length) = self.length {
            check_length(length, most, "length")?;
        }
        let length = self.length.or_else(|| parts.contains(&Part::Free).then_some(most));
        let request = model.request(&parts, length, 0)?;
        check_length(request.length, most, "template")?;
        let n_prompt = request.given.len() - 1;
        let mut task = Task::new(Text::Tokens { given: request.given, length: request.length });
        (task.settings, task.seed, task.stop) = (settings, seed(self.seed)?, stops(self.stop.as_ref())?);
        task.timeout = Some(limits.timeout);
        let prompts = vec![String::new()];
        Ok(Ask { tasks: vec![task], n: 1, prompts, n_prompt, echo: false, logprobs: false, usage: false })
    }
}
