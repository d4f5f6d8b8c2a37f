//! The fields of llama.cpp's `/completion` and `/infill` that have no effect here, as its server's README lists them.
//!
//! Editors send them to any server. A field about the server's own work is ignored. One that changes how tokens are drawn
//! is ignored, too, and the answer names it. One whose answer would have another form is refused unless it is neutral.

use serde_json::Value;

/// What a field asks for.
#[derive(Clone, Copy)]
pub enum Meaning {
    /// The server's own work: slots, caches, time limits, progress.
    Server,
    /// Another distribution of the tokens, unless its value is `neutral`.
    Sampler { neutral: fn(&Value) -> bool },
    /// Another answer, unless its value is `neutral`; `accepted` is such a value in JSON.
    Result { neutral: fn(&Value) -> bool, accepted: &'static str, why: &'static str },
}

fn zero(value: &Value) -> bool {
    value.is_null() || value.as_f64() == Some(0.0)
}

fn one(value: &Value) -> bool {
    value.is_null() || value.as_f64() == Some(1.0)
}

fn at_most_zero(value: &Value) -> bool {
    value.is_null() || value.as_f64().is_some_and(|value| value <= 0.0)
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

const ZERO_SAMPLER: Meaning = Meaning::Sampler { neutral: zero };
const ONE_SAMPLER: Meaning = Meaning::Sampler { neutral: one };

/// The fields, sorted by name.
pub const FIELDS: &[(&str, Meaning)] = &[
    ("cache_prompt", Meaning::Server),
    // Parameters of samplers that another field turns on.
    ("dry_allowed_length", Meaning::Server),
    ("dry_base", Meaning::Server),
    ("dry_multiplier", ZERO_SAMPLER),
    ("dry_penalty_last_n", Meaning::Server),
    ("dry_sequence_breakers", Meaning::Server),
    ("dynatemp_exponent", Meaning::Server),
    ("dynatemp_range", ZERO_SAMPLER),
    ("frequency_penalty", ZERO_SAMPLER),
    (
        "grammar",
        Meaning::Result { neutral: empty, accepted: "\"\"", why: "a grammar cannot restrict the text; leave it out" },
    ),
    ("id_slot", Meaning::Server),
    ("ignore_eos", Meaning::Sampler { neutral: empty }),
    ("input_extra", Meaning::Server),
    (
        "json_schema",
        Meaning::Result { neutral: empty, accepted: "{}", why: "a schema cannot restrict the text; leave it out" },
    ),
    ("logit_bias", Meaning::Sampler { neutral: empty }),
    ("lora", Meaning::Sampler { neutral: empty }),
    ("min_keep", Meaning::Server),
    ("min_p", ZERO_SAMPLER),
    ("mirostat", ZERO_SAMPLER),
    ("mirostat_eta", Meaning::Server),
    ("mirostat_tau", Meaning::Server),
    ("n_cache_reuse", Meaning::Server),
    (
        "n_cmpl",
        Meaning::Result {
            neutral: one,
            accepted: "1",
            why: "an answer has one text; send the request again for another",
        },
    ),
    ("n_discard", Meaning::Server),
    ("n_indent", Meaning::Server),
    ("n_keep", Meaning::Server),
    ("n_probs", Meaning::Result { neutral: at_most_zero, accepted: "0", why: "use logprobs of /v1/completions" }),
    ("penalize_nl", Meaning::Server),
    ("post_sampling_probs", Meaning::Server),
    ("presence_penalty", ZERO_SAMPLER),
    ("repeat_last_n", Meaning::Server),
    ("repeat_penalty", ONE_SAMPLER),
    ("return_progress", Meaning::Server),
    ("return_tokens", Meaning::Server),
    ("samplers", Meaning::Server),
    ("sse_ping_interval", Meaning::Server),
    ("t_max_predict_ms", Meaning::Server),
    ("t_max_prompt_ms", Meaning::Server),
    ("tfs_z", ONE_SAMPLER),
    ("timings_per_token", Meaning::Server),
    ("top_n_sigma", Meaning::Sampler { neutral: at_most_zero }),
    ("typ_p", ONE_SAMPLER),
    ("typical_p", ONE_SAMPLER),
    ("xtc_probability", ZERO_SAMPLER),
    ("xtc_threshold", Meaning::Server),
];

/// What `/openapi.json` says of a field.
pub fn description(meaning: Meaning) -> &'static str {
    match meaning {
        Meaning::Server => "llama.cpp's own; ignored.",
        Meaning::Sampler { .. } => "llama.cpp's own; it has no effect, and `ignored` of the answer names it.",
        Meaning::Result { .. } => "llama.cpp's own; accepted with the value that changes nothing.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_sorted_and_stand_once() {
        assert!(FIELDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
