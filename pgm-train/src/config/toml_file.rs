//! Reading a configuration file: TOML, settings on top, unknown keys refused, one sentence for each mistake.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::TrainError;

/// A configuration that is read from a file.
///
/// Shared keys are flattened into a file's top level, where serde's `deny_unknown_fields` does not reach; so the known
/// keys are those of a serialised example ([`known_keys`](Self::known_keys)), and every configuration serialises all its
/// keys but for sections that may be absent.
pub(crate) trait ConfigFile: DeserializeOwned + Serialize {
    /// A file with the keys that have no default, and only them.
    const EXAMPLE: &str;

    /// Every key that a file may have, with some value.
    fn known_keys() -> Table {
        Table::try_from(Self::example()).expect("a configuration always serialises")
    }

    /// An error message for a key at a place where earlier versions had it.
    fn moved_key(table: &Table) -> Option<String>;

    /// Gives keys of earlier versions their present names; a sentence when a file has both.
    fn rename_keys(table: &mut Table) -> Result<(), String>;

    /// An error message for a known key that has no effect together with the others.
    fn unused_key(&self, table: &Table) -> Option<String>;

    /// Takes the keys out of a serialised configuration that have no effect together with the others.
    fn remove_unused(&self, _table: &mut Table) {}

    /// A file that gives this configuration, with every key that has an effect. Absent for a number that TOML cannot hold.
    fn to_file(&self) -> Option<String> {
        let mut table = Table::try_from(self).ok()?;
        self.remove_unused(&mut table);
        Some(text_of(&table))
    }

    /// Whether the values fit together; a sentence about the first that does not.
    fn validate(&self) -> Result<(), String>;

    /// The configuration of [`EXAMPLE`](Self::EXAMPLE).
    fn example() -> Self {
        toml::from_str(Self::EXAMPLE).expect("the example is a valid file")
    }
}

pub(crate) fn load<T: ConfigFile>(path: &Path, settings: &[String], base: &Table) -> Result<T, TrainError> {
    let text = std::fs::read_to_string(path).map_err(|error| TrainError::file("read", path, error))?;
    parse(&text, &path.display().to_string(), settings, base)
}

/// Reads a text and puts `settings` on top; what neither has is taken from `base`.
pub(crate) fn parse<T: ConfigFile>(
    text: &str,
    origin: &str,
    settings: &[String],
    base: &Table,
) -> Result<T, TrainError> {
    let invalid = |origin: &str, problem: String| TrainError::Config { origin: origin.to_string(), problem };
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| invalid(origin, one_line(&error)))?;
    fill_in(&mut table, base);
    // The file is checked before any setting, so that a mistake in it is not blamed on a setting.
    let mut config: T = from_table(&table).map_err(|error| invalid(origin, error))?;
    for setting in settings {
        let flag = format!("--set {setting}");
        let (key, value) =
            setting.split_once('=').ok_or_else(|| invalid(&flag, "must have the form key=value".to_string()))?;
        let value = parse_value(value.trim());
        insert(&mut table, key.trim(), value).map_err(|problem| invalid(&flag, problem))?;
        config = from_table(&table).map_err(|error| invalid(&flag, error))?;
    }
    // Values are checked together, after all settings: two of them may fit only with each other.
    let problem = config.unused_key(&table).map_or_else(|| config.validate(), Err);
    problem.map_err(|problem| invalid(origin, problem))?;
    Ok(config)
}

// Adds what `table` lacks.
fn fill_in(table: &mut Table, base: &Table) {
    for (key, value) in base {
        match (table.get_mut(key), value) {
            (None, value) => drop(table.insert(key.clone(), value.clone())),
            (Some(Value::Table(inner)), Value::Table(base)) => fill_in(inner, base),
            _ => {}
        }
    }
}

fn from_table<T: ConfigFile>(table: &Table) -> Result<T, String> {
    let mut table = table.clone();
    T::rename_keys(&mut table)?;
    let table = &table;
    if let Some(sentence) = T::moved_key(table) {
        return Err(sentence);
    }
    refuse_unknown(table, &T::known_keys(), None)?;
    Value::Table(table.clone()).try_into().map_err(|error: toml::de::Error| one_line(&error))
}

fn refuse_unknown(table: &Table, known: &Table, section: Option<&str>) -> Result<(), String> {
    for (key, value) in table {
        match known.get(key) {
            None => {
                let names: Vec<&str> = known.keys().map(String::as_str).collect();
                let names = names.join(", ");
                return Err(match section {
                    Some(section) => format!("unknown key {section}.{key}; the keys of [{section}] are {names}"),
                    None => format!("unknown key {key}; the keys are {names}"),
                });
            }
            Some(known) => {
                if let (Some(inner), Some(known)) = (value.as_table(), known.as_table()) {
                    refuse_unknown(inner, known, Some(key))?;
                }
            }
        }
    }
    Ok(())
}

// Keys first, then the sections.
fn text_of(table: &Table) -> String {
    let line = |(key, value): (&String, &Value)| format!("{key} = {}\n", value_text(value));
    let mut text: String = table.iter().filter(|(_, value)| !value.is_table()).map(line).collect();
    for (name, section) in table.iter().filter_map(|(name, value)| Some((name, value.as_table()?))) {
        text.push_str(&format!("\n[{name}]\n"));
        text.extend(section.iter().map(line));
    }
    text
}

/// A value as a person writes it: 1e-8, where TOML's own form is 0.00000001.
pub(super) fn value_text(value: &Value) -> String {
    match value {
        Value::Float(number) if *number != 0.0 && number.abs() < 1e-3 => format!("{number:e}"),
        value => value.to_string(),
    }
}

// The parser's message draws the line over several lines; an error is one sentence.
fn one_line(error: &toml::de::Error) -> String {
    error.message().replace('\n', " ")
}

// A value as TOML reads it, or else a string: `objective=masked` needs no quotes.
fn parse_value(text: &str) -> Value {
    let parsed: Result<Table, _> = format!("value = {text}").parse();
    let value = parsed.ok().and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| Value::String(text.to_string()))
}

fn insert(table: &mut Table, key: &str, value: Value) -> Result<(), String> {
    match key.split_once('.') {
        None => {
            // An integer is a number, too, where the file has one with a point: `optim.lr=1`.
            let value = match (table.get(key), value) {
                (Some(Value::Float(_)), Value::Integer(number)) => Value::Float(number as f64),
                (_, value) => value,
            };
            table.insert(key.to_string(), value);
            Ok(())
        }
        Some((section, rest)) => {
            let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            let inner = entry.as_table_mut().ok_or_else(|| format!("{section} is a value, not a section"))?;
            insert(inner, rest, value)
        }
    }
}
