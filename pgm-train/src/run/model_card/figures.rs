//! Held-out figures with their intervals.

use std::f64::consts::LN_2;

use pgm_data::{ImageKind, Manifest, Mode};
use pgm_model::ModelConfig;
use serde_json::Value;

use super::words::counted;

/// A line of a table of figures, with its 95 % interval.
pub(super) fn figure_line(name: &str, value: f64, interval: Option<[f64; 2]>) -> String {
    let interval = interval.map(|[low, high]| format!("{low:.4} to {high:.4}")).unwrap_or_default();
    format!("| {name} | {value:.4} | {interval} |\n")
}

/// The head of such a table.
pub(super) const FIGURES_HEAD: &str = "| figure | value | 95 % interval |\n|---|---:|---|\n";

/// A number of a validation and its interval.
pub(super) fn figure(validation: &Value, key: &str) -> Option<(f64, Option<[f64; 2]>)> {
    let interval = &validation[format!("{key}_interval")];
    let interval = interval[0].as_f64().zip(interval[1].as_f64());
    Some((validation[key].as_f64()?, interval.map(|(low, high)| [low, high])))
}

/// The section of a model of tokens; absent without a validation.
pub(super) fn held_out(config: &ModelConfig, data: Option<&Manifest>, training: &Value) -> Option<String> {
    let validation = &training["validation"];
    let (nats, interval) = figure(validation, "val_nelbo")?;
    let is_exact = matches!(config, ModelConfig::Autoregressive(_));
    let bound = if is_exact { "negative log-likelihood" } else { "upper bound of the negative log-likelihood (NELBO)" };
    let mut text = format!("## Held-out figures\n\n{FIGURES_HEAD}");
    let token = if data.is_some_and(|data| data.image.is_some()) { "cell" } else { "token" };
    text += &figure_line(&format!("{bound}, nats per {token}"), nats, interval);
    let bits = data.and_then(|data| bits_per_byte_of_a_nat(data, is_exact));
    // A cell of pixels as tokens is a dimension.
    let is_pixels = data.and_then(|data| data.image.as_ref()).is_some_and(|info| info.kind == ImageKind::Tokens);
    let others = [("byte", bits), ("dimension", is_pixels.then_some(1.0 / LN_2))];
    if let Some((unit, bits)) = others.into_iter().find_map(|(unit, bits)| Some((unit, bits?))) {
        let interval = interval.map(|ends| ends.map(|nats| nats * bits));
        text += &figure_line(&format!("the same, bits per {unit}"), nats * bits, interval);
    }
    text += &figure_line(&format!("perplexity per {token}"), nats.exp(), interval.map(|ends| ends.map(f64::exp)));
    text.push('\n');
    let settings = match &training["settings"]["distill"] {
        Value::Null => &training["settings"],
        distill => distill,
    };
    let rows = data.map(|data| data.validation.rows).unwrap_or_default();
    let asked = settings["validate_rows"].as_u64().unwrap_or_default();
    let measured = if asked == 0 { rows } else { asked.min(rows) };
    let which = match measured == rows {
        true => format!("All {} held out", counted(rows, "row")),
        false => format!("The first {measured} of {} held out", counted(rows, "row")),
    };
    let times = settings["validate_times"].as_u64().unwrap_or(1);
    let estimator = settings["validate_estimator"].as_str().unwrap_or("any-order");
    let draws = match is_exact {
        true => String::new(),
        false => format!(", {} of hidden tokens of each (`{estimator}`)", counted(times, "draw")),
    };
    let (step, of) = (&validation["step"], &training["step"]);
    let when = if step == of { String::new() } else { format!(", measured at step {step}") };
    text += &format!("{which}{draws}{when}. The interval is over the rows.");
    if bits.is_some() {
        text += " Bytes and tokens are those of the whole held-out text.";
    }
    text.push('\n');
    Some(text)
}

/// Bits per byte of held-out text for each nat per token: as many tokens as the rows have, BOS and EOS too, over the bytes of
/// the text that is in them. `skips_first`: the first token of a row is not predicted (autoregressive models). Absent for
/// pictures and for no text.
pub fn bits_per_byte_of_a_nat(data: &Manifest, skips_first: bool) -> Option<f64> {
    let split = &data.validation;
    let kept = split.tokens.saturating_sub(split.dropped_tokens) as f64;
    let (rows, length) = (split.rows as f64, data.length as f64);
    let in_rows = match data.mode {
        Mode::Pack => rows * length,
        // BOS and EOS stand around each document.
        Mode::Pad => kept + 2.0 * rows,
    };
    let counted = if skips_first { in_rows - rows } else { in_rows };
    let bytes = split.text_bytes as f64 * kept / split.tokens as f64;
    let per_nat = counted / bytes / LN_2;
    (data.image.is_none() && per_nat.is_finite() && per_nat > 0.0).then_some(per_nat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nat_for_each_token_is_bits_for_each_byte_of_the_text_in_the_rows() {
        let manifest = |mode: &str, validation: Value| -> Manifest {
            let special = serde_json::json!({ "bos": 1, "eos": 1, "pad": null, "mask": 2 });
            let none = serde_json::json!({ "documents": 0, "text_bytes": 0, "tokens": 0, "dropped_tokens": 0, "rows": 0, "shards": [] });
            serde_json::from_value(serde_json::json!({
                "version": 1, "length": 8, "mode": mode, "row_eos": false, "vocab_size": 9, "special": special,
                "train": none, "validation": validation,
            }))
            .unwrap()
        };
        let split = |tokens: u64, dropped: u64, rows: u64| serde_json::json!({ "documents": 3, "text_bytes": 300, "tokens": tokens, "dropped_tokens": dropped, "rows": rows, "shards": [] });
        // 75 of 100 tokens are in 12 rows of 8: 96 counted tokens for 225 bytes.
        let packed = manifest("pack", split(100, 25, 12));
        assert!((bits_per_byte_of_a_nat(&packed, false).unwrap() * LN_2 - 96.0 / 225.0).abs() < 1e-12);
        assert!((bits_per_byte_of_a_nat(&packed, true).unwrap() * LN_2 - 84.0 / 225.0).abs() < 1e-12);
        let padded = manifest("pad", split(100, 25, 12));
        assert!((bits_per_byte_of_a_nat(&padded, false).unwrap() * LN_2 - 99.0 / 225.0).abs() < 1e-12);
        assert_eq!(bits_per_byte_of_a_nat(&manifest("pack", split(0, 0, 0)), false), None);
    }
}
