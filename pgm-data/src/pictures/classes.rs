//! The classes of all inputs together: their names, in the order of the labels.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::picture::RawLabel;
use crate::error::DataError;

/// Upper bound on the number of classes.
const MOST_CLASSES: u64 = 1 << 20;

/// What the inputs have, counted before anything is decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    /// Pictures.
    pub(crate) n_pictures: u64,
    /// Pictures of each label.
    pub(crate) labels: BTreeMap<RawLabel, u64>,
    /// Names that come with the inputs, in the order of the labels.
    pub(crate) names: Option<Vec<String>>,
}

impl Survey {
    /// Counts `n_pictures` pictures of one label.
    pub(crate) fn count(&mut self, label: Option<&RawLabel>, n_pictures: u64) {
        self.n_pictures += n_pictures;
        if let Some(label) = label {
            match self.labels.get_mut(label) {
                Some(count) => *count += n_pictures,
                None => _ = self.labels.insert(label.clone(), n_pictures),
            }
        }
    }

    /// Adds what another input has.
    pub(crate) fn add(&mut self, other: Self) -> Result<(), DataError> {
        self.n_pictures += other.n_pictures;
        for (label, count) in other.labels {
            *self.labels.entry(label).or_default() += count;
        }
        match (&self.names, other.names) {
            (Some(before), Some(names)) if *before != names => Err(DataError::Option(
                "the inputs have different names of classes; give the names with --class-names FILE".to_string(),
            )),
            (_, Some(names)) => {
                self.names = Some(names);
                Ok(())
            }
            (_, None) => Ok(()),
        }
    }
}

/// The names of the classes and the way from a source's label to a row's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Classes {
    names: Vec<String>,
    by_name: HashMap<String, u32>,
}

impl Classes {
    /// `given` are the names that the user chose; they come before those of the inputs.
    pub(crate) fn new(given: Option<Vec<String>>, survey: &Survey) -> Result<Self, DataError> {
        let has_names = survey.labels.keys().any(|label| matches!(label, RawLabel::Name(_)));
        let greatest = survey.labels.keys().filter_map(|label| match label {
            RawLabel::Number(number) => Some(*number),
            RawLabel::Name(_) => None,
        });
        let greatest = greatest.max();
        if survey.labels.is_empty() {
            return match given {
                Some(_) => {
                    Err(DataError::Option("--class-names has no effect: the pictures have no labels".to_string()))
                }
                None => Ok(Self::default()),
            };
        }
        let names = match (given.or_else(|| survey.names.clone()), greatest) {
            (Some(names), _) => names,
            (None, Some(_)) if has_names => {
                return Err(DataError::Option(
                    "some labels are numbers and others are names; give the names in the order of the numbers with --class-names FILE"
                        .to_string(),
                ));
            }
            (None, Some(greatest)) if greatest >= MOST_CLASSES => {
                return Err(DataError::Option(format!(
                    "the label {greatest} is no class: labels count from 0 to less than {MOST_CLASSES}"
                )));
            }
            (None, Some(greatest)) => (0..=greatest).map(|number| number.to_string()).collect(),
            (None, None) => sorted_names(survey),
        };
        let mut by_name = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            if by_name.insert(name.clone(), index as u32).is_some() {
                return Err(DataError::Option(format!("two classes have the name {name:?}; give each its own")));
            }
        }
        Ok(Self { names, by_name })
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The label of a row. The problem is a sentence whose subject is the picture.
    pub(crate) fn label(&self, label: Option<&RawLabel>) -> Result<Option<u32>, String> {
        if self.names.is_empty() {
            return Ok(None);
        }
        match label {
            None => Err("has no label, and others have one".to_string()),
            Some(RawLabel::Number(number)) if *number < self.names.len() as u64 => Ok(Some(*number as u32)),
            Some(RawLabel::Number(number)) => {
                Err(format!("has the label {number}, and there are names for {} classes", self.names.len()))
            }
            Some(RawLabel::Name(name)) => match self.by_name.get(name) {
                Some(label) => Ok(Some(*label)),
                None => Err(format!("has the label {name:?}, which is no name of a class")),
            },
        }
    }
}

// Names in the order of their characters, as torchvision has them; numbers in the order of numbers.
fn sorted_names(survey: &Survey) -> Vec<String> {
    let names = survey.labels.keys().map(|label| match label {
        RawLabel::Name(name) => name.clone(),
        RawLabel::Number(number) => number.to_string(),
    });
    let mut names: Vec<String> = names.collect();
    let number = |name: &String| name.parse::<u64>().ok().filter(|number| number.to_string() == *name);
    if names.iter().all(|name| number(name).is_some()) {
        names.sort_by_key(number);
    }
    names
}

/// Reads the names of classes: a JSON list, or one name on each line.
///
/// # Errors
/// [`DataError::Io`]; [`DataError::Malformed`] for a file without names.
pub fn read_class_names(path: &Path) -> Result<Vec<String>, DataError> {
    let malformed = |problem: String| DataError::Malformed { path: path.to_path_buf(), problem };
    let text = std::fs::read_to_string(path).map_err(DataError::io("read", path))?;
    let text = text.trim_start_matches('\u{feff}');
    let names: Vec<String> = if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map_err(|error| malformed(format!("is no JSON list of names ({error})")))?
    } else {
        text.trim_end().lines().map(|line| line.trim().to_string()).collect()
    };
    if names.is_empty() || names.iter().any(String::is_empty) {
        return Err(malformed("has a class without a name; write one name on each line".to_string()));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey(labels: &[&str]) -> Survey {
        let mut survey = Survey::default();
        for label in labels {
            survey.count(Some(&RawLabel::parse(label)), 1);
        }
        survey
    }

    fn named(labels: &[&str]) -> Survey {
        let mut survey = Survey::default();
        for label in labels {
            survey.count(Some(&RawLabel::Name(label.to_string())), 1);
        }
        survey
    }

    #[test]
    fn names_are_sorted_and_numbers_keep_their_value() {
        let names = |survey: &Survey| Classes::new(None, survey).unwrap().names().to_vec();
        assert_eq!(names(&named(&["dog", "Cat", "ant"])), ["Cat", "ant", "dog"]);
        // Folders 0 to 10: class 10 has the label 10.
        let folders: Vec<String> = (0..11).map(|number| number.to_string()).collect();
        let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
        assert_eq!(names(&named(&folders)), folders);
        assert_eq!(names(&named(&["01", "2"])), ["01", "2"]);
        assert_eq!(names(&survey(&["2", "0"])), ["0", "1", "2"]);
        assert!(names(&Survey::default()).is_empty());
    }

    #[test]
    fn labels_without_a_name_are_named() {
        let given = |names: &[&str]| Some(names.iter().map(|name| name.to_string()).collect());
        let classes = Classes::new(given(&["a", "b"]), &survey(&["1"])).unwrap();
        assert_eq!(classes.label(Some(&RawLabel::Number(1))), Ok(Some(1)));
        assert_eq!(classes.label(Some(&RawLabel::Name("b".to_string()))), Ok(Some(1)));
        for (label, says) in [
            (None, "no label"),
            (Some(RawLabel::Number(2)), "the label 2, and there are names for 2 classes"),
            (Some(RawLabel::Name("c".to_string())), "\"c\", which is no name"),
        ] {
            let problem = classes.label(label.as_ref()).unwrap_err();
            assert!(problem.contains(says), "{problem}");
        }
        for (given, survey, says) in [
            (None, survey(&["1", "dog"]), "some labels are numbers"),
            (None, survey(&["99999999999"]), "is no class"),
            (given(&["a", "a"]), survey(&["1"]), "two classes"),
            (given(&["a"]), Survey::default(), "no effect"),
        ] {
            let message = Classes::new(given, &survey).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
    }
}
