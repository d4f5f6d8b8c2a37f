//! Messages as a text, by a chat template in Jinja as Hugging Face's tokenizers have it.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use serde::Serialize;
use serde_json::Map;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use super::body::ChatMessage;

/// What a template is rendered with.
pub struct ChatInput<'a> {
    pub messages: &'a [ChatMessage],
    pub add_generation_prompt: bool,
    /// The texts of special tokens, by names such as `bos_token`.
    pub special: &'a [(String, String)],
    /// Further variables.
    pub variables: &'a Map<String, serde_json::Value>,
}

/// Renders a conversation.
///
/// # Errors
/// Why the template refuses it, or what is wrong with the template.
pub fn render(source: &str, input: &ChatInput<'_>) -> Result<String, String> {
    let mut env = Environment::new();
    // As Hugging Face sets Jinja up.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    env.set_syntax(syntax.map_err(|error| error.to_string())?);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("{REFUSED}{message}")))
    });
    env.add_function("strftime_now", |format: String| {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        strftime(&format, seconds)
    });
    env.add_filter("tojson", tojson);
    let source = without_generation_tags(source);
    env.add_template("chat", &source).map_err(|error| format!("the model's chat template is broken: {error}"))?;
    let mut variables = Map::new();
    for (name, text) in input.special {
        variables.insert(name.clone(), text.as_str().into());
    }
    for name in ["tools", "documents"] {
        variables.insert(name.to_string(), serde_json::Value::Null);
    }
    variables.extend(input.variables.clone());
    let messages = input.messages.iter().map(|ChatMessage(fields)| serde_json::Value::Object(fields.clone())).collect();
    variables.insert("messages".to_string(), messages);
    variables.insert("add_generation_prompt".to_string(), input.add_generation_prompt.into());
    let template = env.get_template("chat").map_err(|error| error.to_string())?;
    template.render(Value::from(Serde(&variables))).map_err(|error| {
        let detail = error.detail().unwrap_or_default();
        match detail.strip_prefix(REFUSED) {
            Some(message) => format!("the model's chat template refuses the messages: {message}"),
            None => format!("the model's chat template fails on the messages: {error}"),
        }
    })
}

// Marks an error as the template's own.
const REFUSED: &str = "refused: ";

// Python's `json.dumps`: minijinja's own filter escapes letters for HTML.
fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let indent: Option<usize> = options.get("indent")?;
    // What these ask for is what comes out: letters stay, and keys are sorted.
    let _ = (options.get::<Option<bool>>("ensure_ascii")?, options.get::<Option<bool>>("sort_keys")?);
    let _ = options.get::<Option<Value>>("separators")?;
    options.assert_all_used()?;
    let mut json = Vec::new();
    match indent {
        Some(n) => {
            let spaces = " ".repeat(n);
            let formatter = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut json, formatter)).map_err(failed)?;
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut json, Spaced)).map_err(failed)?,
    }
    Ok(String::from_utf8_lossy(&json).into_owned())
}

// A space behind commas and colons.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

// The tags `{% generation %}` and `{% endgeneration %}` mark answers for training. They become comments, which cut white
// space in the same way.
fn without_generation_tags(source: &str) -> String {
    let (mut text, mut rest) = (String::new(), source);
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let end = start + length + 2;
        let inner = &rest[start + 2..end - 2];
        let name = inner.trim_matches(['-', '+']).trim();
        text.push_str(&rest[..start]);
        if name == "generation" || name == "endgeneration" {
            let sign = |has: bool| if has { "-" } else { "" };
            text += &format!("{{#{} {}#}}", sign(inner.starts_with('-')), sign(inner.ends_with('-')));
        } else {
            text.push_str(&rest[start..end]);
        }
        rest = &rest[end..];
    }
    text + rest
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

// A time in seconds since 1970, in UTC, as Python's strftime writes it. Unknown directives stay.
fn strftime(format: &str, seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let (month_name, day_name) = (MONTHS[month as usize - 1], DAYS[(days % 7) as usize]);
    let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('Y') => text += &year.to_string(),
            Some('y') => text += &format!("{:02}", year % 100),
            Some('m') => text += &format!("{month:02}"),
            Some('B') => text += month_name,
            Some('b' | 'h') => text += &month_name[..3],
            Some('d') => text += &format!("{day:02}"),
            Some('e') => text += &format!("{day:2}"),
            Some('A') => text += day_name,
            Some('a') => text += &day_name[..3],
            Some('H') => text += &format!("{hour:02}"),
            Some('I') => text += &format!("{twelve:02}"),
            Some('M') => text += &format!("{minute:02}"),
            Some('S') => text += &format!("{second:02}"),
            Some('p') => text += if hour < 12 { "AM" } else { "PM" },
            Some('j') => text += &format!("{:03}", days - days_before(year) + 1),
            Some('F') => text += &format!("{year}-{month:02}-{day:02}"),
            Some('T') => text += &format!("{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => text += "UTC",
            Some('z') => text += "+0000",
            Some('%') => text.push('%'),
            Some(other) => text.extend(['%', other]),
            None => text.push('%'),
        }
    }
    text
}

// Days from 1970 to the first of January.
fn days_before(year: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

// Year, month and day of a number of days since 1970.
fn date(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    let is_leap = days_before(year + 1) - days_before(year) == 366;
    let lengths = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut day = days - days_before(year);
    for (month, length) in (1..).zip(lengths) {
        if day < length {
            return (year, month, day + 1);
        }
        day -= length;
    }
    (year, 12, 31)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(source: &str, messages: serde_json::Value, variables: serde_json::Value) -> Result<String, String> {
        let fields = |value: &serde_json::Value| ChatMessage(value.as_object().unwrap().clone());
        let messages: Vec<ChatMessage> = messages.as_array().unwrap().iter().map(fields).collect();
        let special = [("bos_token".to_string(), "<s>".to_string()), ("eos_token".to_string(), "</s>".to_string())];
        let variables = variables.as_object().unwrap();
        render(source, &ChatInput { messages: &messages, add_generation_prompt: true, special: &special, variables })
    }

    #[test]
    fn templates_of_published_models_render_as_in_python() {
        let messages = json!([
            {"role": "system", "content": " Be <brief>. "}, {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "é \"q\""},
        ]);
        let chatml = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + \
                      '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        let expected = "<|im_start|>system\n Be <brief>. <|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n\
                        Yes?<|im_end|>\n<|im_start|>user\né \"q\"<|im_end|>\n<|im_start|>assistant\n";
        assert_eq!(rendered(chatml, messages.clone(), json!({})).unwrap(), expected);
        let llama = "{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content'].strip() %}\n    \
                     {%- set loop_messages = messages[1:] %}\n{%- else %}\n    {%- set loop_messages = messages %}\n{%- endif %}\n\
                     {{- bos_token }}\n{%- for message in loop_messages %}\n    {%- if (message['role'] == 'user') != \
                     (loop.index0 % 2 == 0) %}\n        {{- raise_exception('roles must alternate') }}\n    {%- endif %}\n    \
                     {%- if loop.first and system_message is defined %}\n        {{- '[INST] ' + system_message + '\n\n' + \
                     message['content'] + ' [/INST]' }}\n    {%- elif message['role'] == 'user' %}\n        {{- '[INST] ' + \
                     message['content'] + ' [/INST]' }}\n    {%- else %}\n        {%- generation %}{{- ' ' + message['content'] + \
                     eos_token }}{%- endgeneration %}\n    {%- endif %}\n{%- endfor %}\n";
        let expected = "<s>[INST] Be <brief>.\n\nHi [/INST] Yes?</s>[INST] é \"q\" [/INST]";
        assert_eq!(rendered(llama, messages, json!({})).unwrap(), expected);
        let twice = json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]);
        let refused = rendered(llama, twice.clone(), json!({})).unwrap_err();
        assert!(refused.ends_with("refuses the messages: roles must alternate"), "{refused}");
        assert!(rendered("{% if %}", twice.clone(), json!({})).unwrap_err().contains("is broken"));
        assert!(rendered("{{ 1 // 0 }}", twice.clone(), json!({})).unwrap_err().contains("fails on the messages"));
        let python = "{{ messages[0].content | tojson }} {{ [1, '<'] | tojson }} {{ extra | tojson(indent=2) }} {{ ' x'.lstrip().upper() }} {{ tools is none }}";
        let expected = "\"a\" [1, \"<\"] {\n  \"k\": [\n    1\n  ]\n} X True";
        let found = rendered(python, twice, json!({"extra": {"k": [1]}})).unwrap();
        assert_eq!(found.to_lowercase(), expected.to_lowercase());
    }

    #[test]
    fn a_time_is_written_as_in_python() {
        let format = "%d %b %Y|%Y-%m-%d %H:%M:%S|%A, %B %e|%I %p|%j|%F %T|%y%%|%q%";
        // 2024-02-29 13:04:05 UTC, a leap day.
        let expected = "29 Feb 2024|2024-02-29 13:04:05|Thursday, February 29|01 PM|060|2024-02-29 13:04:05|24%|%q%";
        assert_eq!(strftime(format, 1_709_211_845), expected);
        assert_eq!(strftime("%F %a", 0), "1970-01-01 Thu");
        assert_eq!(strftime("%F %j", 951_782_399), "2000-02-28 059");
        assert_eq!(strftime("%F %j", 978_307_199), "2000-12-31 366");
    }
}
