//! `tokenizer_config.json` and `chat_template.jinja` of a model folder, as far as they say how a chat becomes a text.
//!
//! They are read leniently: a model without them, or with a broken one, still writes text.

use std::path::Path;

use pgm_model::model_folder::TOKENIZER_CONFIG_FILE;
use serde_json::{Map, Value};

/// A chat template in a file of its own.
const CHAT_TEMPLATE_FILE: &str = "chat_template.jinja";
/// The template that is used where several have names.
const DEFAULT_NAME: &str = "default";

/// The names of special tokens, and the chat templates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SpecialTokens {
    /// Texts such as `bos_token`, by their keys in `tokenizer_config.json`.
    pub texts: Vec<(String, String)>,
    /// The chat templates.
    pub chat: ChatTemplates,
}

/// The chat templates of a model folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatTemplates {
    // Names and sources.
    templates: Vec<(String, String)>,
    // Why a file cannot be used.
    problem: Option<String>,
}

#[cfg_attr(not(feature = "files"), allow(dead_code))] // only a folder has these files
impl SpecialTokens {
    /// What the files of a folder say.
    pub(super) fn read(folder: &Path) -> Self {
        let mut found = Self::default();
        let file = |name: &str| match std::fs::read_to_string(folder.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{name} cannot be read: {error}")),
        };
        let config = file(TOKENIZER_CONFIG_FILE).and_then(|text| {
            let parse = |text: String| serde_json::from_str::<Map<String, Value>>(text.trim_start_matches('\u{feff}'));
            text.map(parse).transpose().map_err(|error| format!("{TOKENIZER_CONFIG_FILE} cannot be read: {error}"))
        });
        match config {
            Ok(config) => found.add(&config.unwrap_or_default()),
            Err(problem) => found.chat.problem = Some(problem),
        }
        match file(CHAT_TEMPLATE_FILE) {
            Ok(Some(source)) => found.chat = ChatTemplates::one(source),
            Ok(None) => {}
            Err(problem) => found.chat.problem = Some(problem),
        }
        found
    }

    fn add(&mut self, config: &Map<String, Value>) {
        for (key, value) in config.iter().filter(|(key, _)| key.ends_with("_token")) {
            // A token is a text, or an object with its text and how it is matched.
            if let Some(text) = value.as_str().or_else(|| value["content"].as_str()) {
                self.texts.push((key.clone(), text.to_string()));
            }
        }
        let named =
            |value: &Value| Some((value["name"].as_str()?.to_string(), value["template"].as_str()?.to_string()));
        match config.get("chat_template") {
            None | Some(Value::Null) => {}
            Some(Value::String(source)) => self.chat = ChatTemplates::one(source.clone()),
            Some(Value::Array(templates)) => match templates.iter().map(named).collect() {
                Some(templates) => self.chat.templates = templates,
                None => {
                    self.chat.problem =
                        Some(format!("chat_template of {TOKENIZER_CONFIG_FILE} has a part without name or template"))
                }
            },
            Some(Value::Object(templates)) => {
                let text = |(name, source): (&String, &Value)| Some((name.clone(), source.as_str()?.to_string()));
                self.chat.templates = templates.iter().filter_map(text).collect();
            }
            Some(_) => {
                self.chat.problem =
                    Some(format!("chat_template of {TOKENIZER_CONFIG_FILE} is neither a text nor a list"))
            }
        }
    }

    /// The text of a special token, for example that of `bos_token`.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.texts.iter().find(|(known, _)| known == key).map(|(_, text)| text.as_str())
    }
}

impl ChatTemplates {
    /// One template.
    pub fn one(source: String) -> Self {
        Self { templates: vec![(DEFAULT_NAME.to_string(), source)], problem: None }
    }

    /// The source of a template. Without a name it is the one named `default`, or the only one.
    ///
    /// # Errors
    /// Says in a sentence what is missing.
    pub fn source(&self, name: Option<&str>) -> Result<&str, String> {
        if self.templates.is_empty() {
            return Err(self.problem.clone().unwrap_or_else(|| {
                format!(
                    "its folder has neither a chat_template in {TOKENIZER_CONFIG_FILE} nor a {CHAT_TEMPLATE_FILE}; use \
                     /v1/completions"
                )
            }));
        }
        let by_name = |name: &str| self.templates.iter().find(|(known, _)| known == name);
        let found = match name {
            Some(name) => by_name(name),
            None => by_name(DEFAULT_NAME).or_else(|| self.templates.first().filter(|_| self.templates.len() == 1)),
        };
        found.map(|(_, source)| source.as_str()).ok_or_else(|| {
            let names: Vec<&str> = self.templates.iter().map(|(name, _)| name.as_str()).collect();
            format!("its chat templates have the names {}; choose one with chat_template", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> SpecialTokens {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
        SpecialTokens::read(folder.path())
    }

    #[test]
    fn a_template_is_a_text_a_list_of_named_ones_or_a_file() {
        let none = read(&[]);
        assert!(none.chat.source(None).unwrap_err().contains(CHAT_TEMPLATE_FILE));
        let config = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": false}, "chat_template": "A"}"#;
        let one = read(&[(TOKENIZER_CONFIG_FILE, config)]);
        assert_eq!(
            (one.text("bos_token"), one.text("eos_token"), one.text("pad_token")),
            (Some("<s>"), Some("</s>"), None)
        );
        assert_eq!(one.chat.source(None), Ok("A"));
        assert!(one.chat.source(Some("tool_use")).unwrap_err().contains("default"));
        let list = r#"{"chat_template": [{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}]}"#;
        let list = read(&[(TOKENIZER_CONFIG_FILE, list)]);
        assert_eq!((list.chat.source(None), list.chat.source(Some("rag"))), (Ok("D"), Ok("R")));
        let both = read(&[(TOKENIZER_CONFIG_FILE, config), (CHAT_TEMPLATE_FILE, "F")]);
        assert_eq!(both.chat.source(None), Ok("F"));
        let broken = read(&[(TOKENIZER_CONFIG_FILE, "{")]);
        assert!(broken.chat.source(None).unwrap_err().contains("tokenizer_config.json cannot be read"));
        let nameless = read(&[(TOKENIZER_CONFIG_FILE, r#"{"chat_template": [{"template": "R"}]}"#)]);
        assert!(nameless.chat.source(None).unwrap_err().contains("without name"));
    }
}
