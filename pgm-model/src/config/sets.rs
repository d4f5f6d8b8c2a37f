//! Ordered sets of clean tokens: what a token of a group sees of its group.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::visibility::MAX_SETS;

// The most sets that are drawn, half of what labels can tell apart: the sets of a sampling run may follow.
const MAX_DRAWN: usize = MAX_SETS / 2;

/// How the tokens of a group are divided into ordered sets in training. A token is encoded from its own set and from
/// earlier ones, so what is encoded stays valid when later sets come.
///
/// `one` is the paper's model: all clean tokens see each other. As many sets as tokens is causality in decoding order, as in
/// Eso-LM (arXiv 2506.01928).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sets {
    /// All tokens of a group are one set.
    #[default]
    One,
    /// The number is drawn for each group from 1, 2, 4, ... below the number of its tokens, and that number.
    Mix,
    /// This many, or as many as the group has tokens.
    Fixed(usize),
}

impl Sets {
    /// Whether all clean tokens see each other, as in the paper.
    pub fn is_one(&self) -> bool {
        *self == Self::One
    }

    /// Draws the set of each of `n_tokens` tokens, from 0: sets of equal size (to one token), in a random order. One set takes
    /// no uniform number.
    pub fn draw(self, n_tokens: usize, mut uniform: impl FnMut() -> f64) -> Vec<usize> {
        let mut below = |n: usize| ((uniform() * n as f64) as usize).min(n - 1);
        let n_sets = match self {
            Self::Mix if n_tokens > 1 => {
                // 2^0, 2^1, ... below `n_tokens`, and `n_tokens` itself.
                let n_powers = (n_tokens - 1).ilog2() as usize + 1;
                let choice = below(n_powers + 1);
                if choice == n_powers { n_tokens } else { 1 << choice }
            }
            Self::Fixed(n_sets) => n_sets.min(n_tokens),
            Self::One | Self::Mix => 1,
        };
        let n_sets = n_sets.min(MAX_DRAWN);
        if n_sets <= 1 {
            return vec![0; n_tokens];
        }
        let mut order: Vec<usize> = (0..n_tokens).collect();
        (1..n_tokens).rev().for_each(|last| order.swap(last, below(last + 1)));
        let mut sets = vec![0; n_tokens];
        order.into_iter().enumerate().for_each(|(rank, token)| sets[token] = rank * n_sets / n_tokens);
        sets
    }

    /// Draws the set of each token of a row that is split into two groups: first those of group 0, then those of group 1.
    pub fn draw_groups(self, groups: &[bool], mut uniform: impl FnMut() -> f64) -> Vec<usize> {
        let mut sets = vec![0; groups.len()];
        for group in [false, true] {
            let members: Vec<usize> = (0..groups.len()).filter(|&index| groups[index] == group).collect();
            for (member, set) in members.iter().zip(self.draw(members.len(), &mut uniform)) {
                sets[*member] = set;
            }
        }
        sets
    }
}

impl fmt::Display for Sets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One => f.write_str("one"),
            Self::Mix => f.write_str("mix"),
            Self::Fixed(n) => write!(f, "{n}"),
        }
    }
}

impl FromStr for Sets {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "one" => Ok(Self::One),
            "mix" => Ok(Self::Mix),
            number => match number.parse() {
                Ok(1) => Ok(Self::One),
                Ok(n) if (2..=MAX_DRAWN).contains(&n) => Ok(Self::Fixed(n)),
                _ => Err(format!("\"{text}\" is neither one, nor mix, nor a number of sets from 1 to {MAX_DRAWN}")),
            },
        }
    }
}

impl Serialize for Sets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(n) => serializer.serialize_u64(*n as u64),
            name => serializer.serialize_str(&name.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for Sets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "\"one\", \"mix\" or a number of sets")]
        enum NameOrNumber {
            Name(String),
            Number(u64),
        }
        let text = match NameOrNumber::deserialize(deserializer)? {
            NameOrNumber::Name(name) => name,
            NameOrNumber::Number(number) => number.to_string(),
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A small generator of uniform numbers.
    fn uniforms() -> impl FnMut() -> f64 {
        let mut state = 1_u64;
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    #[test]
    fn sets_have_equal_sizes_and_every_token_is_in_each_as_often() {
        let mut uniform = uniforms();
        let mut counts = [[0; 4]; 10];
        for _ in 0..4000 {
            let sets = Sets::Fixed(4).draw(10, &mut uniform);
            let sizes: Vec<usize> = (0..4).map(|set| sets.iter().filter(|&&other| other == set).count()).collect();
            assert_eq!(sizes, [3, 2, 3, 2]);
            sets.iter().enumerate().for_each(|(token, &set)| counts[token][set] += 1);
        }
        // The standard error of 1200 of 4000 is 29.
        for token in counts {
            assert!((token[0] - 1200_i32).abs() < 120 && (token[1] - 800_i32).abs() < 120, "{token:?}");
        }
    }

    #[test]
    fn a_mix_draws_powers_of_two_and_one_set_for_each_token_equally_often() {
        let mut uniform = uniforms();
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..6000 {
            let n_sets = Sets::Mix.draw(20, &mut uniform).into_iter().max().unwrap() + 1;
            *counts.entry(n_sets).or_insert(0) += 1;
        }
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [1, 2, 4, 8, 16, 20]);
        assert!(counts.values().all(|&n: &i32| (n - 1000).abs() < 120), "{counts:?}");
        for n in 0..4 {
            assert_eq!(Sets::Mix.draw(n, &mut uniform).len(), n);
            assert_eq!(Sets::Fixed(9).draw(n, &mut uniform).len(), n);
        }
        assert_eq!(Sets::One.draw(5, || unreachable!("one set needs no number")), [0; 5]);
    }

    #[test]
    fn names_and_numbers_are_read_and_others_named() {
        for (text, sets) in [("\"one\"", Sets::One), ("1", Sets::One), ("\"mix\"", Sets::Mix), ("16", Sets::Fixed(16))]
        {
            assert_eq!(serde_json::from_str::<Sets>(text).unwrap(), sets);
            assert_eq!(serde_json::from_str::<Sets>(&serde_json::to_string(&sets).unwrap()).unwrap(), sets);
        }
        for text in ["0", "\"two\"", "70000", "true", "-1"] {
            let message = serde_json::from_str::<Sets>(text).unwrap_err().to_string();
            assert!(message.contains("one") && message.contains("mix"), "{message}");
        }
    }
}
