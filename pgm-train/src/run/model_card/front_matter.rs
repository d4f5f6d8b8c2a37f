//! The lines of YAML at the top of a card.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::words::README_FILE;

/// What of a card is taken over by the models that are made of its model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CardWords {
    /// Absent if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) license: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) languages: Vec<String>,
}

impl CardWords {
    /// Those of a model folder; nothing where it has no card, or one without front matter.
    pub(crate) fn of_folder(folder: &Path) -> Self {
        std::fs::read_to_string(folder.join(README_FILE)).map(|card| Self::parse(&card)).unwrap_or_default()
    }

    /// These, or what `others` has where they have nothing.
    pub(crate) fn or(self, others: Self) -> Self {
        let languages = if self.languages.is_empty() { others.languages } else { self.languages };
        Self { license: self.license.or(others.license), languages }
    }

    // Of YAML it knows what cards have: `key: value`, `key: [a, b]`, and a list of `- value` below the key.
    fn parse(card: &str) -> Self {
        let mut lines = card.trim_start_matches('\u{feff}').lines();
        let (mut found, mut key) = (Self::default(), "");
        if lines.next().map(str::trim_end) != Some("---") {
            return found;
        }
        let mut known = Self::default();
        for line in lines {
            if line.trim_end() == "---" {
                // Only a front matter with an end is one.
                found = known;
                break;
            }
            let values = match (line.trim_start().strip_prefix("- "), line.split_once(':')) {
                (Some(value), _) => value,
                (None, Some((name, values))) if !line.starts_with([' ', '#']) => {
                    key = name;
                    values
                }
                _ => continue,
            };
            let values = values.split(" #").next().unwrap_or_default().trim();
            let values = values.trim_start_matches('[').trim_end_matches(']').split(',');
            let values = values.map(|value| value.trim().trim_matches(['"', '\''])).filter(|value| !value.is_empty());
            for value in values {
                match key {
                    "license" => known.license = Some(value.to_string()),
                    "language" => known.languages.push(value.to_string()),
                    _ => {}
                }
            }
        }
        found
    }
}

/// The front matter of a card.
pub(super) fn front_matter(words: &CardWords, pipeline: Option<&str>, tags: &[&str]) -> String {
    let mut text = "---\n".to_string();
    let mut push = |line: String| text.push_str(&(line + "\n"));
    if let Some(license) = &words.license {
        push(format!("license: {}", quoted(license)));
    }
    match &words.languages[..] {
        [] => {}
        [one] => push(format!("language: {}", quoted(one))),
        several => {
            push("language:".to_string());
            several.iter().for_each(|language| push(format!("- {}", quoted(language))));
        }
    }
    push("library_name: pgm".to_string());
    pipeline.iter().for_each(|pipeline| push(format!("pipeline_tag: {pipeline}")));
    push("tags:".to_string());
    tags.iter().for_each(|tag| push(format!("- {tag}")));
    push("---".to_string());
    text
}

// A JSON string is one of YAML. Without quotes the language `no` would be false.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string always serialises")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(license: Option<&str>, languages: &[&str]) -> CardWords {
        let languages = languages.iter().map(|language| language.to_string()).collect();
        CardWords { license: license.map(str::to_string), languages }
    }

    #[test]
    fn licence_and_languages_are_read_from_what_is_written_and_from_cards_of_the_hub() {
        for written in [words(None, &[]), words(Some("mit"), &["en"]), words(Some("cc-by-4.0"), &["no", "de"])] {
            let card = front_matter(&written, Some("text-generation"), &["pgm"]) + "\n# License: none\nlicense: no\n";
            assert_eq!(CardWords::parse(&card), written, "{card}");
        }
        for (card, expected) in [
            (
                "---\nlicense: mit\nlanguage:\n  - en\n  - de # German\ntags:\n- x\n---\n",
                words(Some("mit"), &["en", "de"]),
            ),
            ("\u{feff}---\r\nlanguage: [en, 'fr']\r\n---\r\n", words(None, &["en", "fr"])),
            ("# Title\nlicense: mit\n", words(None, &[])),
            ("---\nlicense: mit\nno end\n", words(None, &[])),
            ("---\nx:\n  license: mit\n---\n", words(None, &[])),
            ("", words(None, &[])),
        ] {
            assert_eq!(CardWords::parse(card), expected, "{card:?}");
        }
    }

    #[test]
    fn what_is_known_comes_before_what_is_taken_over() {
        let known = words(Some("mit"), &[]);
        assert_eq!(known.or(words(Some("gpl-3.0"), &["en"])), words(Some("mit"), &["en"]));
    }
}
