//! From a checked body to the engine's tasks: the part that the routes share.

use std::str::FromStr;

use pgm_model::ModelConfig;
use serde::Serialize;
use utoipa::ToSchema;

use super::body::{Common, MAX_SEED};
use super::error::{ApiError, field_of_flag};
use super::state::Limits;
use crate::engine::Finish;
use crate::sample::Refresh;
use crate::sample::order::{OrderFlags, OrderKind};
use crate::settings::Overrides;
use crate::text::TextRow;
use crate::{SampleSettings, TextModel};

/// Why a text ends where it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// It has all its tokens.
    #[default]
    Length,
    /// A stop string or an EOS ends it.
    Stop,
}

impl FinishReason {
    /// The reason of a finished sample.
    pub fn of(finish: &Finish) -> Self {
        if *finish == Finish::Complete { Self::Length } else { Self::Stop }
    }
}

/// The settings of a request: the model's, overridden by the body's.
///
/// # Errors
/// Names the field that cannot be met.
pub fn settings(body: &Common, model: &TextModel, limits: &Limits) -> Result<SampleSettings, ApiError> {
    let defaults = SampleSettings::for_model(model);
    let steps = steps(body.steps, &defaults, limits)?;
    let flags = OrderFlags {
        order: named("order", body.order.as_deref())?,
        candidates: body.candidates,
        entropy_bound: body.entropy_bound,
        remask_rate: body.remask_rate,
        ..OrderFlags::default()
    };
    let order = order_of(&flags, defaults.order)?;
    let overrides = Overrides {
        steps: Some(steps),
        order: Some(order),
        temperature: body.temperature,
        top_k: body.top_k,
        top_p: body.top_p,
        refresh: refresh(body, model)?,
        ..Overrides::default()
    };
    Ok(overrides.apply(defaults))
}

// How often a partition model encodes clean tokens anew.
fn refresh(body: &Common, model: &TextModel) -> Result<Option<Refresh>, ApiError> {
    let Some(text) = body.refresh()? else { return Ok(None) };
    if !matches!(model.config(), ModelConfig::Partition(_)) {
        let message = "refresh must be left out: only a partition model keeps what it has encoded of decoded tokens";
        return Err(ApiError::field("refresh", message));
    }
    parsed_refresh(&text).map(Some)
}

/// The value of `refresh`.
///
/// # Errors
/// When it is none.
pub fn parsed_refresh(text: &str) -> Result<Refresh, ApiError> {
    text.parse().map_err(|message: String| ApiError::field("refresh", message))
}

/// The steps of a request.
///
/// # Errors
/// When they are more than the server takes.
pub fn steps(wanted: Option<usize>, defaults: &SampleSettings, limits: &Limits) -> Result<usize, ApiError> {
    let steps = wanted.unwrap_or(defaults.steps.min(limits.max_steps));
    if steps == 0 || steps > limits.max_steps {
        return Err(ApiError::field("steps", format!("steps must lie between 1 and {}", limits.max_steps)));
    }
    Ok(steps)
}

/// The value of a field that is one of some names.
///
/// # Errors
/// Names the field and says which names there are.
pub fn named<T: FromStr<Err = String>>(field: &'static str, name: Option<&str>) -> Result<Option<T>, ApiError> {
    name.map(str::parse).transpose().map_err(|message| ApiError::field(field, message))
}

/// The order of a request.
///
/// # Errors
/// Names the field that belongs to another order.
pub fn order_of(flags: &OrderFlags, default: OrderKind) -> Result<OrderKind, ApiError> {
    // The message names the command's flags, first the one that it is about.
    flags.kind_or(default).map_err(|message| {
        let flag = message.split(' ').next().unwrap_or_default();
        let field = field_of_flag(flag);
        let message = message.replace(flag, &field).replace("--", "");
        ApiError::field(field, message)
    })
}

/// The seed of a request's first sample, drawn where it names none. Each of its `n_samples` has the next one, and a client
/// can send each again.
///
/// # Errors
/// For a seed whose last sample would have one that is too large.
pub fn seed(given: Option<u64>, n_samples: usize) -> Result<u64, ApiError> {
    let most = MAX_SEED.saturating_sub(n_samples.saturating_sub(1) as u64);
    match given {
        Some(seed) if seed > most => {
            let message = format!("seed must be at most {most} for {n_samples} samples: each has the next seed");
            Err(ApiError::field("seed", message))
        }
        Some(seed) => Ok(seed),
        None => Ok(rand::random::<u64>() % (most + 1)),
    }
}

/// The most tokens of a row.
pub fn max_length(model: &TextModel, limits: &Limits) -> usize {
    limits.max_length.unwrap_or(model.config().backbone().length)
}

/// The samples of a request over all its prompts.
///
/// # Errors
/// When there are none or too many.
pub fn n_samples(n: usize, n_prompts: usize, limits: &Limits) -> Result<usize, ApiError> {
    let most = limits.max_samples.min(limits.max_batch + limits.queue);
    let samples = n.saturating_mul(n_prompts);
    if n == 0 || samples > most {
        let message = format!("n is {n}; a request may ask for 1 to {most} samples over all its prompts");
        return Err(ApiError::field("n", message));
    }
    Ok(samples)
}

/// Checks the number of candidates to score.
///
/// # Errors
/// When they are more than a request may have.
pub fn n_candidates(n: usize, limits: &Limits) -> Result<usize, ApiError> {
    let most = limits.max_samples.min(limits.max_batch + limits.queue);
    if n > most {
        let message = format!("there are {n} candidates; a request may have at most {most}");
        return Err(ApiError::field("candidates", message));
    }
    Ok(n)
}

/// Checks that the given tokens of a row, `before` its first blank and `after` it, are tokens of a text.
///
/// # Errors
/// When one is the mask; the error is about the field that it is from.
pub fn check_given(
    row: &TextRow,
    model: &TextModel,
    before: &'static str,
    after: &'static str,
) -> Result<(), ApiError> {
    let mask = model.config().backbone().mask_index;
    let Some((position, _)) = row.request.given.iter().find(|(_, token)| *token as usize == mask) else {
        return Ok(());
    };
    let is_before = row.layout.blanks.first().is_none_or(|blank| *position < blank.positions.start);
    let field = if is_before { before } else { after };
    Err(mask_error(field, mask))
}

/// The error of a field with the mask in it.
pub fn mask_error(field: &'static str, mask: usize) -> ApiError {
    let message = format!(
        "{field} has the mask, token {mask}; the mask is no token of a text: it marks what is to be written. Leave the \
         place out, or use a template with a blank"
    );
    ApiError::field(field, message)
}

/// Checks the length of a row.
///
/// # Errors
/// When it is above `most`; the error is about `field`.
pub fn check_length(length: usize, most: usize, field: &'static str) -> Result<(), ApiError> {
    if length > most {
        let message = format!("the text would have {length} tokens with BOS; the server takes at most {most}");
        return Err(ApiError::field(field, message));
    }
    Ok(())
}
