//! English from the documentation in Rust sources.

use std::collections::HashSet;

/// The paragraphs of plain English in the documentation of Rust sources, each once, without Markdown's marks for code and links.
/// Code, lists, tables, headings and what cites addresses or paths are left out.
#[derive(Debug, Default)]
pub struct Documentation {
    known: HashSet<String>,
    text: String,
}

impl Documentation {
    /// Adds those of one source.
    pub fn add(&mut self, source: &str) {
        let (mut paragraph, mut in_code) = (String::new(), false);
        for line in source.lines().map(str::trim_start) {
            let line = ["///", "//!"].iter().find_map(|mark| line.strip_prefix(mark)).map(str::trim);
            match line {
                // The end of an item's documentation.
                None => {
                    self.keep(&mut paragraph);
                    in_code = false;
                }
                Some(line) if line.starts_with("```") => {
                    self.keep(&mut paragraph);
                    in_code = !in_code;
                }
                Some(_) if in_code => {}
                Some("") => self.keep(&mut paragraph),
                Some(line) => {
                    if !paragraph.is_empty() {
                        paragraph.push(' ');
                    }
                    paragraph.push_str(line);
                }
            }
        }
        self.keep(&mut paragraph);
    }

    /// What was found, with an empty line after each paragraph.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn keep(&mut self, paragraph: &mut String) {
        let links = paragraph.contains("](");
        let paragraph = std::mem::take(paragraph).replace(['`', '[', ']'], "");
        let is_sentence =
            paragraph.len() >= 60 && paragraph.starts_with(char::is_uppercase) && paragraph.ends_with('.');
        let is_plain = !links
            && paragraph.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" .,;:'\"()-!?/&%+".contains(&byte))
            && !["::", "//", ": -"].iter().any(|mark| paragraph.contains(mark));
        if is_sentence && is_plain && !self.known.contains(&paragraph) {
            self.text.push_str(&paragraph);
            self.text.push_str("\n\n");
            self.known.insert(paragraph);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Documentation;

    #[test]
    fn sentences_are_kept_once_without_code_and_links() {
        let source = r#"
            //! A module with a sentence that is long enough to be kept, in two
            //! lines, with [`Links`] to items and `code`.
            //!
            //! Too short.

            /// Returns the number of elements, which is never larger than what it was made with.
            ///
            /// ```
            /// This is code that looks like a sentence and is left out all the same, as it should be.
            /// ```
            fn len() {}
            /// Returns the number of elements, which is never larger than what it was made with.
            fn count() {}
            /// See [the book](https://example.org) for more of this, which is an address and so is left out.
            // A comment is no documentation, however long the sentence is that somebody wrote there.
        "#;
        let mut found = Documentation::default();
        found.add(source);
        let kept = "A module with a sentence that is long enough to be kept, in two lines, with Links to items and code.\n\n\
                    Returns the number of elements, which is never larger than what it was made with.\n\n";
        assert_eq!(found.text(), kept);
    }
}
