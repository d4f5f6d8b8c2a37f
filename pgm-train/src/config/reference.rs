//! The reference of all configuration keys, generated from the doc comments of the configuration structs.
//!
//! [`markdown`] is `docs/configuration.md`, [`commented_toml`] is what `pgm-train config` prints. The sources of the
//! structs are part of this library as text; a test compares the keys found there with those that serde knows.

use std::fmt::Write;

use pgm_model::{Projection, Queries};
use serde::Serialize;
use toml::{Table, Value};

use super::card::CardSection;
use super::codec::CodecTrainConfig;
use super::distill::DistillConfig;
use super::objective::Objective;
use super::teacher::TeacherSection;
use super::toml_file::{ConfigFile, value_text};
use super::train::TrainConfig;

/// A kind of configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// The file of `pgm-train fit` for an objective.
    Train(Objective),
    /// The file of `pgm-train distill`.
    Distill,
    /// The file of `pgm-train codec`.
    Codec,
}

const SOURCES: [&str; 9] = [
    include_str!("train.rs"),
    include_str!("distill.rs"),
    include_str!("run.rs"),
    include_str!("model.rs"),
    include_str!("objective.rs"),
    include_str!("optim.rs"),
    include_str!("codec.rs"),
    include_str!("teacher.rs"),
    include_str!("card.rs"),
];

/// A key and its documentation.
struct Key {
    name: String,
    type_name: String,
    doc: String,
}

/// `docs/configuration.md`.
pub fn markdown() -> String {
    let train = Table::try_from(TrainConfig::example()).expect("a configuration always serialises");
    let distill = Table::try_from(DistillConfig::example()).expect("a configuration always serialises");
    let codec = Table::try_from(CodecTrainConfig::example()).expect("a configuration always serialises");
    let section = |table: &Table, name: &str| table[name].as_table().cloned().expect("a section");
    let required = |text: &str| -> Table { text.parse().expect("the example is TOML") };
    let (train_required, distill_required) = (required(TrainConfig::EXAMPLE), required(DistillConfig::EXAMPLE));
    let codec_required = required(CodecTrainConfig::EXAMPLE);
    let mut text = String::from(
        "# Configuration\n\n<!-- Made from the doc comments in pgm-train/src/config. To write it anew:\n\
         UPDATE_DOCS=1 cargo test -p pgm-train --lib reference -->\n\n\
         `pgm-train fit`, `pgm-train distill` and `pgm-train codec` read a TOML file (`--config FILE`); `--set key=value`\n\
         changes a key. An unknown key is an error. `pgm-train config --objective NAME` prints a file with every key and its\n\
         default.\n",
    );
    let no_sections = Table::new();
    let mut part = |title: &str, keys: Vec<Key>, defaults: &Table, required: &Table| {
        let _ = write!(text, "\n## {title}\n\n| key | type | default | meaning |\n|---|---|---|---|\n");
        for key in keys {
            let (type_name, choices) = (type_words(&key.type_name), choices(&key.type_name));
            let default = match required.contains_key(&key.name) {
                true => "required".to_string(),
                false => format!("`{}`", value_text(&defaults[&key.name])),
            };
            let choices: Vec<String> = choices.iter().map(|(name, doc)| format!("`{name}`: {doc}")).collect();
            let separator = if choices.is_empty() { "" } else { "<br>" };
            let meaning = format!("{}{separator}{}", key.doc, choices.join("<br>"));
            let _ = writeln!(text, "| `{}` | {type_name} | {default} | {meaning} |", key.name);
        }
    };
    part("Training and distillation", plain_keys("RunConfig"), &train, &train_required);
    part("Training only", plain_keys("TrainConfig"), &train, &train_required);
    part("Distillation only", plain_keys("DistillConfig"), &distill, &distill_required);
    let required_model = section(&train_required, "model");
    part("`[model]`, training only", fields("ModelSection"), &section(&train, "model"), &required_model);
    let optim = section(&train, "optim");
    let teacher = Table::try_from(TeacherSection::example()).expect("a configuration always serialises");
    let required_teacher = Table::from_iter([("model".to_string(), teacher["model"].clone())]);
    part(
        "`[teacher]`, objective `partition` only; may be absent",
        fields("TeacherSection"),
        &teacher,
        &required_teacher,
    );
    part("`[optim]`, training and distillation", fields("OptimSection"), &optim, &no_sections);
    let card = Table::try_from(CardSection::default()).expect("a configuration always serialises");
    part("`[card]`, all three; may be absent", fields("CardSection"), &card, &no_sections);
    part("Codec", plain_keys("CodecTrainConfig"), &codec, &codec_required);
    part("`[codec]`", fields("CodecSection"), &section(&codec, "codec"), &no_sections);
    let codec_optim = section(&codec, "optim");
    let others = codec_optim.iter().filter(|(key, value)| optim.get(*key) != Some(*value));
    let others: Vec<String> = others.map(|(key, value)| format!("`{key}` {}", value_text(value))).collect();
    let _ = write!(text, "\nA codec's `[optim]` has the keys above with other defaults: {}.\n", others.join(", "));
    text
}

/// A file with every key, its default or (where there is none) an example, and its meaning.
pub fn commented_toml(kind: FileKind) -> String {
    let (values, own, head) = match kind {
        FileKind::Train(objective) => {
            let config = TrainConfig { objective, ..TrainConfig::example() };
            let mut values = Table::try_from(config).expect("a configuration always serialises");
            if !objective.uses_weight_floor() {
                values.remove("weight_floor");
            }
            (values, "TrainConfig", "# pgm-train fit --config THIS_FILE --data DATA --out OUT\n")
        }
        FileKind::Distill => {
            let values = Table::try_from(DistillConfig::example()).expect("a configuration always serialises");
            let head = "# pgm-train distill --config THIS_FILE --teacher MODEL --data DATA --out OUT\n";
            (values, "DistillConfig", head)
        }
        FileKind::Codec => {
            let mut values = Table::try_from(CodecTrainConfig::example()).expect("a configuration always serialises");
            // They belong to the other quantizer.
            if let Some(codec) = values.get_mut("codec").and_then(Value::as_table_mut) {
                codec.retain(|key, _| key != "codes" && key != "code_width");
            }
            (values, "CodecTrainConfig", "# pgm-train codec --config THIS_FILE --data PIXELS --out OUT\n")
        }
    };
    let mut text = head.to_string();
    let shared = if kind == FileKind::Codec { Vec::new() } else { plain_keys("RunConfig") };
    for key in plain_keys(own).into_iter().chain(shared) {
        write_key(&mut text, &key, &values);
    }
    for (name, section) in [("codec", "CodecSection"), ("model", "ModelSection"), ("optim", "OptimSection")] {
        if let Some(values) = values.get(name).and_then(Value::as_table) {
            let _ = write!(text, "\n[{name}]");
            fields(section).iter().for_each(|key| write_key(&mut text, key, values));
        }
    }
    let card = "What the model card says beside what the run knows; without this section it is left out.";
    write_optional(&mut text, "card", card, &CardSection::example());
    if kind == FileKind::Train(Objective::Partition) {
        let teacher = "A masked model whose predictions the model learns beside the true tokens; without this section there is none.";
        write_optional(&mut text, "teacher", teacher, &TeacherSection::example());
    }
    text
}

// A section as comments: without them there is none.
fn write_optional(text: &mut String, name: &str, meaning: &str, values: &impl Serialize) {
    let values = Table::try_from(values).expect("a configuration always serialises");
    let (mut section, title) = (String::new(), format!("{}{}Section", name[..1].to_uppercase(), &name[1..]));
    fields(&title).iter().for_each(|key| write_key(&mut section, key, &values));
    text.push('\n');
    wrapped(text, meaning);
    let _ = writeln!(text, "# [{name}]");
    for line in section.lines().filter(|line| !line.is_empty()) {
        let _ = writeln!(text, "# {}", line.trim_start_matches("# "));
    }
}

fn write_key(text: &mut String, key: &Key, values: &Table) {
    let Some(value) = values.get(&key.name) else { return };
    text.push('\n');
    wrapped(text, &key.doc);
    for (name, doc) in choices(&key.type_name) {
        wrapped(text, &format!("  \"{name}\": {doc}"));
    }
    let _ = writeln!(text, "{} = {}", key.name, value_text(value));
}

// A comment in lines of at most 100 characters.
fn wrapped(text: &mut String, words: &str) {
    let indent = words.len() - words.trim_start().len();
    let mut line = format!("# {:indent$}", "");
    for word in words.split_whitespace() {
        if line.len() + word.len() > 100 {
            let _ = writeln!(text, "{}", line.trim_end());
            line = format!("# {:indent$}", "");
        }
        line.push_str(word);
        line.push(' ');
    }
    let _ = writeln!(text, "{}", line.trim_end());
}

// The keys of a struct that are values: no section, and nothing flattened into it.
fn plain_keys(name: &str) -> Vec<Key> {
    let is_plain = |key: &Key| key.type_name != "RunConfig" && !key.type_name.contains("Section");
    fields(name).into_iter().filter(is_plain).collect()
}

// Public fields of a struct with their doc comments.
fn fields(name: &str) -> Vec<Key> {
    documented(&format!("pub struct {name} {{"))
        .into_iter()
        .filter_map(|(line, doc)| {
            let (name, type_name) = line.strip_prefix("pub ")?.strip_suffix(',')?.split_once(": ")?;
            Some(Key { name: name.to_string(), type_name: type_name.to_string(), doc })
        })
        .collect()
}

// The lines of an item's body that have a doc comment, each with it.
fn documented(head: &str) -> Vec<(String, String)> {
    let source = SOURCES.iter().find(|source| source.contains(head)).expect("the item is in one of the sources");
    let body = source.split(head).nth(1).and_then(|rest| rest.split("\n}").next()).unwrap_or_default();
    let (mut found, mut doc) = (Vec::new(), Vec::new());
    for line in body.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.trim());
        } else if !line.starts_with('#') && !line.is_empty() {
            found.push((line.to_string(), doc.join(" ")));
            doc.clear();
        }
    }
    found
}

// The values of an enum and their meanings; none for other types.
fn choices(type_name: &str) -> Vec<(String, String)> {
    match type_name {
        "Queries" => vec![
            (word(Queries::Learn), "A learned vector, the same at every position.".to_string()),
            (word(Queries::LearnFreqs), "A learned vector plus sinusoidal positions.".to_string()),
            (
                word(Queries::LearnFreqsMean),
                "As `learn+freqs`, plus the mean of the other group's encoder output.".to_string(),
            ),
            (word(Queries::LearnFreqsLogSumExp), "As `learn+freqs`, plus the log-sum-exp of that output.".to_string()),
        ],
        "Projection" => vec![
            (word(Projection::Linear), "One linear layer.".to_string()),
            (word(Projection::Mlp4), "Linear to four times the width, SiLU, linear.".to_string()),
        ],
        "Objective" | "Precision" | "NelboEstimator" | "LrScheduleKind" | "Divergence" | "TargetGroups"
        | "TeacherWeights" | "QuantizerKind" | "ReconstructionLoss" => {
            let variants = documented(&format!("pub enum {type_name} {{"));
            variants.into_iter().map(|(line, doc)| (kebab(line.trim_end_matches(',')), doc)).collect()
        }
        _ => Vec::new(),
    }
}

// The word for an enum's value in a file.
fn word(value: impl Serialize) -> String {
    let value = Value::try_from(value).ok();
    value.and_then(|value| value.as_str().map(str::to_string)).unwrap_or_default()
}

// MaskedComplementary -> masked-complementary
fn kebab(variant: &str) -> String {
    let mut name = String::new();
    for (index, letter) in variant.char_indices() {
        if letter.is_uppercase() && index > 0 {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

fn type_words(type_name: &str) -> &'static str {
    match type_name {
        "usize" | "u64" => "integer",
        "f64" => "number",
        "bool" => "true or false",
        "Vec<usize>" => "list of integers",
        "Sets" => "string or integer",
        "PathBuf" => "path",
        "String" => "string",
        _ => "string, one of",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [(FileKind, &str); 7] = [
        (FileKind::Train(Objective::Partition), "partition"),
        (FileKind::Train(Objective::Masked), "masked"),
        (FileKind::Train(Objective::MaskedComplementary), "masked-complementary"),
        (FileKind::Train(Objective::Autoregressive), "autoregressive"),
        (FileKind::Train(Objective::Maskgit), "maskgit"),
        (FileKind::Distill, ""),
        (FileKind::Codec, ""),
    ];

    #[test]
    fn the_reference_has_every_key_and_no_other() {
        let names = |keys: Vec<Key>| -> Vec<String> {
            let mut names: Vec<String> = keys.into_iter().map(|key| key.name).collect();
            names.sort();
            names
        };
        let known = |table: &Table| -> Vec<String> { table.keys().cloned().collect() };
        let train = Table::try_from(TrainConfig::example()).unwrap();
        let distill = Table::try_from(DistillConfig::example()).unwrap();
        let all = |own: &str, sections: &[&str]| {
            let mut all = names(plain_keys(own).into_iter().chain(plain_keys("RunConfig")).collect());
            all.extend(sections.iter().map(|section| section.to_string()));
            all.sort();
            all
        };
        assert_eq!(all("TrainConfig", &["model", "optim"]), known(&train));
        assert_eq!(all("DistillConfig", &["optim"]), known(&distill));
        let codec = Table::try_from(CodecTrainConfig::example()).unwrap();
        let mut own = names(plain_keys("CodecTrainConfig"));
        own.extend(["codec".to_string(), "optim".to_string()]);
        own.sort();
        assert_eq!(own, known(&codec));
        assert_eq!(names(fields("CodecSection")), known(codec["codec"].as_table().unwrap()));
        assert!(fields("CodecTrainConfig").iter().chain(&fields("CodecSection")).all(|key| key.doc.ends_with('.')));
        assert_eq!(names(fields("ModelSection")), known(train["model"].as_table().unwrap()));
        assert_eq!(names(fields("OptimSection")), known(train["optim"].as_table().unwrap()));
        let all_keys = TrainConfig::known_keys();
        assert_eq!(names(fields("TeacherSection")), known(all_keys["teacher"].as_table().unwrap()));
        for all_keys in [all_keys, DistillConfig::known_keys(), CodecTrainConfig::known_keys()] {
            assert_eq!(names(fields("CardSection")), known(all_keys["card"].as_table().unwrap()));
        }
        let sections = [
            ("RunConfig", ""),
            ("ModelSection", "model"),
            ("OptimSection", "optim"),
            ("TeacherSection", "teacher"),
            ("CardSection", "card"),
        ];
        for (key, section) in sections {
            assert!(fields(key).iter().all(|key| key.doc.ends_with('.')), "every key of {key} {section} is documented");
        }
    }

    #[test]
    fn the_printed_files_are_valid_and_say_the_defaults() {
        for (kind, objective) in KINDS {
            let text = commented_toml(kind);
            match kind {
                FileKind::Train(expected) => {
                    let config = TrainConfig::parse(&text, "printed", &[]).unwrap();
                    assert_eq!(config, TrainConfig { objective: expected, ..TrainConfig::example() });
                    assert!(text.contains(&format!("objective = \"{objective}\"")), "{text}");
                }
                FileKind::Distill => {
                    assert_eq!(DistillConfig::parse(&text, "printed", &[]).unwrap(), DistillConfig::example());
                }
                FileKind::Codec => {
                    assert_eq!(CodecTrainConfig::parse(&text, "printed", &[]).unwrap(), CodecTrainConfig::example());
                }
            }
            assert!(text.lines().all(|line| line.len() <= 101), "{text}");
        }
    }

    #[test]
    fn sections_of_the_printed_file_are_sections_once_their_comments_are_taken_away() {
        let text = commented_toml(FileKind::Train(Objective::Partition));
        let (head, section) = text.split_once("# [teacher]\n").unwrap();
        let head = &head.replace("# [card]", "[card]").replace("# license = ", "license = ");
        let is_key = |line: &&str| line.contains(" = ");
        let keys: Vec<&str> = section.lines().filter(is_key).map(|line| line.trim_start_matches("# ")).collect();
        let config = TrainConfig::parse(&format!("{head}[teacher]\n{}\n", keys.join("\n")), "printed", &[]).unwrap();
        assert_eq!(config.teacher, Some(TeacherSection::example()));
        assert_eq!(config.run.card.license, CardSection::example().license);
        assert!(!commented_toml(FileKind::Train(Objective::Masked)).contains("teacher"));
    }

    #[test]
    fn every_listed_value_is_a_value() {
        let toml = commented_toml(FileKind::Train(Objective::Partition));
        let distill = commented_toml(FileKind::Distill);
        let mut n = 0;
        for (key, type_name) in [
            ("model.queries", "Queries"),
            ("model.projection", "Projection"),
            ("precision", "Precision"),
            ("validate_estimator", "NelboEstimator"),
            ("optim.schedule", "LrScheduleKind"),
            ("objective", "Objective"),
        ] {
            for (value, _) in choices(type_name) {
                let settings = [format!("{key}={value}")];
                let refused = TrainConfig::parse(&toml, "printed", &settings).err().map(|error| error.to_string());
                assert!(refused.is_none_or(|message| message.contains("weight_floor")), "{key}={value}");
                n += 1;
            }
        }
        for (key, type_name) in
            [("divergence", "Divergence"), ("targets", "TargetGroups"), ("teacher_weights", "TeacherWeights")]
        {
            for (value, _) in choices(type_name) {
                DistillConfig::parse(&distill, "printed", &[format!("{key}={value}")]).unwrap();
                n += 1;
            }
        }
        for (key, type_name) in [("codec.quantizer", "QuantizerKind"), ("loss", "ReconstructionLoss")] {
            for (value, _) in choices(type_name) {
                CodecTrainConfig::parse(CodecTrainConfig::EXAMPLE, "printed", &[format!("{key}={value}")]).unwrap();
                n += 1;
            }
        }
        assert_eq!(n, 4 + 2 + 2 + 2 + 5 + 5 + 4 + 2 + 2 + 2 + 2);
    }

    #[test]
    fn docs_configuration_is_up_to_date() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let expected = markdown();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == expected, "docs/configuration.md is stale; run this test with UPDATE_DOCS=1 to write it anew");
    }
}
