//! BOS, EOS, padding and mask: their ids, and the names by which a user chooses them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// Ids of the special tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecialTokens {
    /// First token of every row.
    pub bos: u32,
    /// Token between documents.
    pub eos: u32,
    /// Padding after a short row. Without it EOS pads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad: Option<u32>,
    /// The mask token. No text contains it, and its logit is never used.
    pub mask: u32,
}

/// Names of special tokens. Where a user chooses them, `None` means that the token is looked up by the usual names; in a
/// manifest it means that the token has no name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecialNames {
    /// Name of the BOS token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos: Option<String>,
    /// Name of the EOS token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eos: Option<String>,
    /// Name of the padding token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad: Option<String>,
    /// Name of the mask token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
}

/// Parses `bos=[CLS],eos=[SEP],pad=[PAD],mask=[MASK]`: any of them, each at most once. A name cannot contain a comma.
impl FromStr for SpecialNames {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let refused = |part: &str, problem: &str| {
            DataError::Option(format!(
                "special token {part:?} {problem}; write role=name, separated by commas, with the roles bos, eos, pad and mask"
            ))
        };
        let mut names = Self::default();
        for part in text.split(',') {
            let (role, name) = part.split_once('=').ok_or_else(|| refused(part, "has no \"=\""))?;
            let slot = match role.trim() {
                "bos" => &mut names.bos,
                "eos" => &mut names.eos,
                "pad" => &mut names.pad,
                "mask" => &mut names.mask,
                _ => return Err(refused(part, "has an unknown role")),
            };
            if name.is_empty() {
                return Err(refused(part, "has no name"));
            }
            if slot.replace(name.to_string()).is_some() {
                return Err(refused(part, "gives its role a second time"));
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::SpecialNames;

    #[test]
    fn special_names_are_parsed_from_one_argument_and_mistakes_are_named() {
        let names: SpecialNames = "bos=[CLS],eos=[SEP],mask=<a=b>".parse().unwrap();
        assert_eq!(
            names,
            SpecialNames {
                bos: Some("[CLS]".into()),
                eos: Some("[SEP]".into()),
                pad: None,
                mask: Some("<a=b>".into())
            }
        );
        for (text, says) in [
            ("", "has no \"=\""),
            ("[CLS]", "has no \"=\""),
            ("bos=a,", "has no \"=\""),
            ("cls=a", "unknown role"),
            ("bos=", "has no name"),
            ("bos=a,bos=b", "a second time"),
        ] {
            let message = text.parse::<SpecialNames>().unwrap_err().to_string();
            assert!(message.contains(says) && message.contains("role=name"), "{text}: {message}");
        }
    }
}
