//! How often the clean tokens of a row are encoded anew.

use std::fmt;
use std::str::FromStr;

use pgm_model::ModelConfig;
use serde::{Deserialize, Serialize};

/// In which of a row's network evaluations all its clean tokens are encoded anew. In the others only new tokens are, against
/// what is kept of the old ones.
///
/// For a model that was trained with one set of clean tokens, everything but [`Always`](Self::Always) is an approximation:
/// old tokens have not seen the new ones. A model that was trained with ordered sets is exact with [`Never`](Self::Never).
/// Where an order forgets a token, its set and all later ones are encoded again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Refresh {
    /// In every evaluation, as in the paper.
    #[default]
    Always,
    /// In one of so many, the first included.
    Every(usize),
    /// In the first only.
    Never,
}

impl Refresh {
    /// What a model was trained for.
    pub fn of_model(config: &ModelConfig) -> Self {
        if config.sets().is_one() { Self::Always } else { Self::Never }
    }

    /// Gives the tokens of a row that have no set yet the set of this evaluation, all of them where they are encoded anew.
    pub fn mark(self, sets: &mut Vec<usize>, n_tokens: usize, evaluation: usize) {
        if self.is_due(evaluation) {
            sets.clear();
        }
        sets.resize(n_tokens, evaluation);
    }

    /// Whether an evaluation of a row, counted from 0, encodes everything anew.
    pub(crate) fn is_due(self, evaluation: usize) -> bool {
        match self {
            Self::Always => true,
            Self::Every(n) => evaluation.is_multiple_of(n),
            Self::Never => evaluation == 0,
        }
    }
}

impl fmt::Display for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("1"),
            Self::Every(n) => write!(f, "{n}"),
            Self::Never => f.write_str("inf"),
        }
    }
}

impl From<Refresh> for String {
    fn from(refresh: Refresh) -> Self {
        refresh.to_string()
    }
}

impl TryFrom<String> for Refresh {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Refresh {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("inf", _) => Ok(Self::Never),
            (_, Ok(1)) => Ok(Self::Always),
            (_, Ok(n)) if n > 1 => Ok(Self::Every(n)),
            _ => Err(format!("\"{text}\" is neither a number of evaluations from 1 nor inf")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_inf_are_read() {
        for (text, refresh) in [("1", Refresh::Always), ("8", Refresh::Every(8)), ("inf", Refresh::Never)] {
            assert_eq!(text.parse::<Refresh>().unwrap(), refresh);
            assert_eq!(refresh.to_string(), text);
        }
        for text in ["0", "-1", "never", "", "1.5"] {
            assert!(text.parse::<Refresh>().unwrap_err().contains("inf"), "{text}");
        }
        let due = |refresh: Refresh| (0..6).filter(|&evaluation| refresh.is_due(evaluation)).collect::<Vec<_>>();
        assert_eq!(due(Refresh::Every(2)), [0, 2, 4]);
        assert_eq!(due(Refresh::Never), [0]);
        assert_eq!(due(Refresh::Always).len(), 6);
    }
}
