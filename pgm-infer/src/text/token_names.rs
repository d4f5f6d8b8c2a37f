//! Names of tokens that tell any two of them apart.

use std::collections::{HashMap, HashSet};

/// The tokens whose plain name another token has, too.
#[derive(Debug)]
pub(super) struct TokenNames {
    renamed: HashMap<u32, String>,
}

impl TokenNames {
    /// The names of `n_tokens` tokens. Of several tokens with one plain name the first keeps it.
    pub(super) fn new(n_tokens: u32, plain: &dyn Fn(u32) -> String) -> Self {
        let (mut taken, mut renamed) = (HashSet::new(), HashMap::new());
        for token in 0..n_tokens {
            let name = plain(token);
            if taken.insert(name.clone()) {
                continue;
            }
            let mut other = format!("{name}<{token}>");
            while !taken.insert(other.clone()) {
                other.push('\'');
            }
            renamed.insert(token, other);
        }
        Self { renamed }
    }

    /// The name of a token that does not have its plain one.
    pub(super) fn renamed(&self, token: u32) -> Option<&str> {
        self.renamed.get(&token).map(String::as_str)
    }
}

/// The plain name of a token: its text, its bytes where they are no text, else its entry in the vocabulary.
pub(super) fn plain(bytes: Option<&[u8]>, entry: impl FnOnce() -> Option<String>, token: u32) -> String {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        Some((_, Ok(text))) => text.to_string(),
        Some((bytes, Err(_))) => bytes.iter().fold("bytes:".to_string(), |name, byte| format!("{name}\\x{byte:02x}")),
        None => entry().unwrap_or_else(|| format!("<token {token}>")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tokens_have_one_name() {
        let words = ["a", "b", "a", "a", "a<2>", "a<3>", "b"];
        let names = TokenNames::new(words.len() as u32, &|token| words[token as usize].to_string());
        let named = |token: u32| names.renamed(token).unwrap_or(words[token as usize]).to_string();
        let named: Vec<String> = (0..words.len() as u32).map(named).collect();
        assert_eq!(named, ["a", "b", "a<2>", "a<3>", "a<2><4>", "a<3><5>", "b<6>"]);
    }

    #[test]
    fn bytes_that_are_no_text_are_named_by_their_values() {
        let none = || panic!("it has bytes");
        assert_eq!(plain(Some(b"\xe2\x80"), none, 1), r"bytes:\xe2\x80");
        assert_eq!(plain(Some("é ".as_bytes()), none, 1), "é ");
        assert_eq!(plain(None, || Some("<s>".into()), 1), "<s>");
        assert_eq!(plain(None, || None, 1), "<token 1>");
    }
}
