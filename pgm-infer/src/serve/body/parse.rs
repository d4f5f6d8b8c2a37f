//! From bytes to a typed body.

use std::borrow::Cow;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The largest whole number that every JSON reader holds exactly.
const MAX_WHOLE: f64 = (1_u64 << 53) as f64;
/// A body with more fields is not searched for the field that an error is about, where that takes quadratic time.
const MAX_SEARCHED: usize = 64;
/// Characters of a wrong value that an error shows.
const SHOWN: usize = 40;

/// Why a body is refused: the field, if it is about one, and the reason in one sentence.
#[derive(Debug, PartialEq, Eq)]
pub struct BodyError {
    pub field: Option<Cow<'static, str>>,
    pub message: String,
}

impl BodyError {
    /// An error about one field.
    pub fn field(field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), message: message.into() }
    }

    fn whole(message: impl Into<String>) -> Self {
        Self { field: None, message: message.into() }
    }
}

/// The body of one route.
pub trait RequestBody: DeserializeOwned {
    /// Checks the values that no model accepts.
    ///
    /// # Errors
    /// Names the first field that cannot be met.
    fn check(&self) -> Result<(), BodyError>;
}

/// Reads JSON as programs of many languages write it: a byte order mark is skipped, whole numbers may be written as floats,
/// and half of a surrogate pair, which JavaScript writes when a text is cut within a character, becomes U+FFFD.
/// [`RequestBody::check`] has yet to be called.
///
/// # Errors
/// When the bytes are not a JSON object of this type. An error about the type of a field names it.
pub fn parse<B: RequestBody>(bytes: &[u8]) -> Result<B, BodyError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        BodyError::whole(format!("the body must be JSON in UTF-8; byte {} is not UTF-8", error.valid_up_to()))
    })?;
    let value: Value = serde_json::from_str(&without_lone_surrogates(text))
        .map_err(|error| BodyError::whole(format!("the body is not JSON: {error}")))?;
    let Value::Object(mut fields) = value else {
        return Err(BodyError::whole("the body must be a JSON object"));
    };
    fields.values_mut().for_each(whole_floats);
    let body = Value::Object(fields);
    B::deserialize(&body).map_err(|error| match &body {
        Value::Object(fields) => named::<B>(fields, &error.to_string()),
        _ => BodyError::whole(error.to_string()),
    })
}

// The escapes of surrogates without their other half are replaced; in JSON a backslash stands in texts only.
fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    let code = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        if digits.bytes().all(|digit| digit.is_ascii_hexdigit()) { u16::from_str_radix(digits, 16).ok() } else { None }
    };
    let (mut repaired, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('\\')) {
        at += found;
        at += match code(at) {
            Some(0xd800..=0xdbff) if matches!(code(at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                repaired.push_str(&text[copied..at]);
                repaired.push_str("\\ufffd");
                copied = at + 6;
                6
            }
            // A backslash behind a backslash begins no escape. What follows another one is ASCII in valid JSON.
            _ => 2,
        };
        while !text.is_char_boundary(at.min(text.len())) {
            at += 1;
        }
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    repaired.push_str(&text[copied..]);
    Cow::Owned(repaired)
}

// 16.0 is 16: some languages have one type of number, and write all of them with a point.
fn whole_floats(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(whole_floats),
        Value::Object(fields) => fields.values_mut().for_each(whole_floats),
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() <= MAX_WHOLE);
            if let Some(whole) = whole {
                *value = Value::from(whole as i64);
            }
        }
        _ => {}
    }
}

// serde does not say which field of a flattened type is wrong. It is the one that is wrong by itself, in the same way.
fn named<B: RequestBody>(fields: &Map<String, Value>, message: &str) -> BodyError {
    let error_of =
        |fields: Map<String, Value>| B::deserialize(&Value::Object(fields)).err().map(|error| error.to_string());
    if let Some((name, _)) = message.strip_prefix("missing field `").and_then(|rest| rest.split_once('`')) {
        return BodyError::field(name.to_string(), format!("{name} is missing"));
    }
    let alone = |(name, value): &(&String, &Value)| {
        error_of(Map::from_iter([((*name).clone(), (*value).clone())])).as_deref() == Some(message)
    };
    let removed = |(name, _): &(&String, &Value)| {
        let mut others = fields.clone();
        others.remove(name.as_str());
        error_of(others).as_deref() != Some(message)
    };
    let found = fields.iter().find(alone);
    let found = found.or_else(|| fields.iter().find(removed).filter(|_| fields.len() <= MAX_SEARCHED));
    match found {
        Some((name, value)) => BodyError::field(name.clone(), sentence(name, value, message)),
        None => BodyError::whole(format!("the body cannot be read: {message}")),
    }
}

// serde's message in the words of JSON.
fn sentence(name: &str, value: &Value, message: &str) -> String {
    let is_about_value = message.starts_with("invalid type: ") || message.starts_with("invalid value: ");
    let Some((_, expected)) = message.rsplit_once(", expected ").filter(|_| is_about_value) else {
        return format!("{name}: {message}");
    };
    let expected = match expected {
        "f32" | "f64" => "a number",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative",
        "a boolean" => "true or false",
        "a string" => "a text",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    // A list with one wrong item is shown by its beginning, too.
    let mut shown = value.to_string();
    if let Some((end, _)) = shown.char_indices().nth(SHOWN) {
        shown.truncate(end);
        shown.push('…');
    }
    let inside = if value.is_array() && expected != "a list" { "a list, each item " } else { "" };
    format!("{name} must be {inside}{expected}, not {shown}")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    struct Inner {
        seed: Option<i64>,
        heat: Option<f64>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    struct Outer {
        #[serde(flatten)]
        inner: Inner,
        text: Option<String>,
        n: Option<usize>,
        m: Option<usize>,
        echo: Option<bool>,
        words: Option<Vec<String>>,
        #[serde(flatten)]
        unknown: Map<String, Value>,
    }

    impl RequestBody for Outer {
        fn check(&self) -> Result<(), BodyError> {
            Ok(())
        }
    }

    #[derive(Debug, Deserialize)]
    struct Strict {
        #[serde(flatten)]
        _inner: Inner,
        #[serde(rename = "messages")]
        _messages: Vec<String>,
    }

    impl RequestBody for Strict {
        fn check(&self) -> Result<(), BodyError> {
            Ok(())
        }
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        for (body, field, says) in [
            (json!({"seed": 42.5, "n": 1}), "seed", "a whole number, not 42.5"),
            (json!({"n": 1, "heat": "hot"}), "heat", "a number, not \"hot\""),
            (json!({"n": -1}), "n", "not negative, not -1"),
            (json!({"n": "x", "m": "x"}), "n", "not \"x\""),
            (json!({"m": 1e300}), "m", "1e+300"),
            (json!({"text": 7, "a": {"b": 1}}), "text", "a text, not 7"),
            (json!({"echo": "true"}), "echo", "true or false"),
            (json!({"words": "w"}), "words", "a list"),
            (json!({"words": ["w", 3]}), "words", "a list, each item a text"),
            (json!({"text": ["x".repeat(1000)]}), "text", "…"),
        ] {
            let error = parse::<Outer>(body.to_string().as_bytes()).unwrap_err();
            // Of two fields that are wrong in the same way either may be named.
            assert!(error.field.as_deref().is_some_and(|found| found == field || body[found] == body[field]), "{body}");
            assert!(error.message.contains(says) && error.message.len() < 120, "{body}: {}", error.message);
        }
        for (body, field) in [
            (json!({"seed": 1}), "messages"),
            (json!({"messages": "x"}), "messages"),
            (json!({"messages": [], "heat": "hot"}), "heat"),
        ] {
            assert_eq!(parse::<Strict>(body.to_string().as_bytes()).unwrap_err().field.as_deref(), Some(field));
        }
    }

    #[test]
    fn json_is_read_as_programs_write_it() {
        let read = |text: &str| parse::<Outer>(text.as_bytes());
        let body = read(r#"{"seed": 42.0, "n": 8.0, "heat": 1, "x": [1.0, {"y": -0.0}, 1.5]}"#).unwrap();
        assert_eq!((body.inner.seed, body.n, body.inner.heat), (Some(42), Some(8), Some(1.0)));
        assert_eq!(body.unknown["x"], json!([1, {"y": 0}, 1.5]));
        assert_eq!(read("\u{feff}{\"n\": 1}").unwrap().n, Some(1));
        assert_eq!(read(r#"{"n": null, "words": null, "seed": null}"#).unwrap(), Outer::default());
        for (escaped, text) in [
            (r"abc\ud83d", "abc\u{fffd}"),
            (r"\ude00 abc", "\u{fffd} abc"),
            (r"\ud83d\ude00", "😀"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}😀"),
            (r"\ud83dé\\ud83d", "\u{fffd}é\\ud83d"),
            (r"\\\ud83d\n", "\\\u{fffd}\n"),
            (r"\uD83D\u0041", "\u{fffd}A"),
        ] {
            let body = read(&format!("{{\"text\": \"{escaped}\", \"{escaped}\": 1}}")).unwrap();
            assert_eq!(body.text.as_deref(), Some(text), "{escaped}");
            assert!(body.unknown.contains_key(text), "{escaped}");
        }
        for text in
            ["", "[1]", "7", "{", "{\"n\": 1", "{\"text\": \"\\ud83\"}", "{\"text\": \"\\é\"}", "\\", "\\é\\ud800"]
        {
            let error = read(text).unwrap_err();
            assert!(error.field.is_none() && error.message.starts_with("the body "), "{text}: {}", error.message);
        }
        assert!(parse::<Outer>(b"\xff\xfe{\x00").unwrap_err().message.contains("byte 0"));
    }

    #[test]
    fn many_fields_take_no_quadratic_time() {
        let fields: Map<String, Value> = (0..50_000).map(|n| (format!("f{n}"), json!("x"))).collect();
        let mut body = Value::Object(fields);
        body["seed"] = json!("x");
        assert_eq!(parse::<Outer>(body.to_string().as_bytes()).unwrap_err().field.as_deref(), Some("seed"));
        body["messages"] = json!(null);
        assert!(parse::<Strict>(body.to_string().as_bytes()).is_err());
    }
}
