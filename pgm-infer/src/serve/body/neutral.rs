//! Fields of other servers that have no meaning here: accepted with the value that changes nothing.

use serde_json::Value;

/// A value that changes nothing.
#[derive(Clone, Copy, Debug)]
pub enum Neutral {
    /// Any, because the field belongs to another one that is off.
    Any,
    /// This number.
    Number(f64),
    /// This truth value.
    Bool(bool),
    /// An empty list, object or text.
    Empty,
    /// One of these texts.
    Text(&'static [&'static str]),
    /// The form of plain text.
    PlainText,
}

const FIELDS: &[(&str, Neutral)] = &[
    ("allowed_token_ids", Neutral::Empty),
    ("bad_words", Neutral::Empty),
    ("best_of", Neutral::Number(1.0)),
    ("cache_prompt", Neutral::Any),
    ("dry_allowed_length", Neutral::Any),
    ("dry_base", Neutral::Any),
    ("dry_multiplier", Neutral::Number(0.0)),
    ("dry_penalty_last_n", Neutral::Any),
    ("dry_sequence_breakers", Neutral::Any),
    ("dynatemp_exponent", Neutral::Any),
    ("dynatemp_range", Neutral::Number(0.0)),
    ("early_stopping", Neutral::Bool(false)),
    ("frequency_penalty", Neutral::Number(0.0)),
    ("function_call", Neutral::Text(&["auto", "none"])),
    ("functions", Neutral::Empty),
    ("grammar", Neutral::Empty),
    ("ignore_eos", Neutral::Bool(false)),
    ("include_stop_str_in_output", Neutral::Bool(false)),
    ("json_schema", Neutral::Empty),
    ("length_penalty", Neutral::Number(1.0)),
    ("logit_bias", Neutral::Empty),
    ("logits_processors", Neutral::Empty),
    ("lora", Neutral::Empty),
    ("metadata", Neutral::Empty),
    ("min_keep", Neutral::Any),
    ("min_p", Neutral::Number(0.0)),
    ("min_tokens", Neutral::Number(0.0)),
    ("mirostat", Neutral::Number(0.0)),
    ("mirostat_eta", Neutral::Any),
    ("mirostat_tau", Neutral::Any),
    ("n_cmpl", Neutral::Number(1.0)),
    ("n_keep", Neutral::Number(0.0)),
    ("n_probs", Neutral::Number(0.0)),
    ("no_repeat_ngram_size", Neutral::Number(0.0)),
    ("parallel_tool_calls", Neutral::Any),
    ("post_sampling_probs", Neutral::Bool(false)),
    ("presence_penalty", Neutral::Number(0.0)),
    ("prompt_cache_key", Neutral::Any),
    ("repeat_last_n", Neutral::Any),
    ("repeat_penalty", Neutral::Number(1.0)),
    ("repetition_penalty", Neutral::Number(1.0)),
    ("response_format", Neutral::PlainText),
    ("return_tokens", Neutral::Bool(false)),
    ("safety_identifier", Neutral::Any),
    ("service_tier", Neutral::Text(&["auto", "default"])),
    ("skip_special_tokens", Neutral::Bool(true)),
    ("spaces_between_special_tokens", Neutral::Any),
    ("stop_token_ids", Neutral::Empty),
    ("store", Neutral::Bool(false)),
    ("tfs_z", Neutral::Number(1.0)),
    ("timings_per_token", Neutral::Bool(false)),
    ("tool_choice", Neutral::Text(&["auto", "none"])),
    ("tools", Neutral::Empty),
    ("top_a", Neutral::Number(0.0)),
    ("typ_p", Neutral::Number(1.0)),
    ("typical_p", Neutral::Number(1.0)),
    ("use_beam_search", Neutral::Bool(false)),
    ("user", Neutral::Any),
    ("xtc_probability", Neutral::Number(0.0)),
    ("xtc_threshold", Neutral::Any),
];

impl Neutral {
    /// The neutral value of a field that other servers know.
    pub fn of(name: &str) -> Option<Self> {
        FIELDS.iter().find(|(known, _)| *known == name).map(|(_, neutral)| *neutral)
    }

    /// Whether `value` changes nothing.
    pub fn accepts(self, value: &Value) -> bool {
        match self {
            _ if value.is_null() => true,
            Self::Any => true,
            Self::Number(number) => value.as_f64() == Some(number),
            Self::Bool(truth) => value.as_bool() == Some(truth),
            Self::Empty => match value {
                Value::Array(list) => list.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                Value::String(text) => text.is_empty(),
                _ => false,
            },
            Self::Text(texts) => value.as_str().is_some_and(|text| texts.contains(&text)),
            Self::PlainText => value["type"] == "text",
        }
    }
}

impl std::fmt::Display for Neutral {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any value"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::Empty => f.write_str("an empty list, object or text"),
            Self::Text(texts) => write!(f, "{}", texts.join(" or ")),
            Self::PlainText => f.write_str("{\"type\": \"text\"}"),
        }
    }
}
