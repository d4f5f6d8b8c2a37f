//! The text of a JSON record: a field by its path, without a tree of the whole record.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::records::FieldValue;
use crate::error::DataError;

/// The path of a field: `text`, `data.text`, `messages.0.content` or the JSON Pointer `/data/text`. A name that has
/// dots itself is found too. An array without an index in the path stands for all its elements.
#[derive(Clone, Debug)]
pub(super) struct FieldPath {
    parts: Vec<String>,
    is_pointer: bool,
}

impl FieldPath {
    pub(super) fn new(path: &str) -> Self {
        match path.strip_prefix('/') {
            Some(pointer) => {
                let parts = pointer.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
                Self { parts, is_pointer: true }
            }
            None => Self { parts: path.split('.').map(str::to_string).collect(), is_pointer: false },
        }
    }

    /// The number of parts.
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Where the path goes on after part `at` under the name `key`. Several parts together can be one name.
    pub(super) fn step(&self, at: usize, key: &str) -> Option<usize> {
        let longest = if self.is_pointer { (at + 1).min(self.parts.len()) } else { self.parts.len() };
        (at + 1..=longest).find(|&end| match &self.parts[at..end] {
            [part] => part == key,
            parts => parts.join(".") == key,
        })
    }

    fn index(&self, at: usize) -> Option<usize> {
        self.parts.get(at)?.parse().ok()
    }
}

/// Collects the values of a field from one record.
pub(super) struct FieldReader<'p, 's> {
    path: &'p FieldPath,
    /// Longer texts go to `long` while the parser has them, instead of being copied to `values`.
    long_bytes: usize,
    long: &'s mut dyn FnMut(&str) -> Result<(), DataError>,
    /// The values that were found.
    pub(super) values: Vec<FieldValue<'static>>,
    n_long: usize,
    /// Names of the record's fields.
    names: Vec<String>,
    problem: Option<&'static str>,
    /// An error of `long`.
    pub(super) failed: Option<DataError>,
}

impl<'p, 's> FieldReader<'p, 's> {
    pub(super) fn new(
        path: &'p FieldPath,
        long_bytes: usize,
        long: &'s mut dyn FnMut(&str) -> Result<(), DataError>,
    ) -> Self {
        Self { path, long_bytes, long, values: Vec::new(), n_long: 0, names: Vec::new(), problem: None, failed: None }
    }

    /// What is wrong with the record that was read, if it has no value.
    pub(super) fn problem(&self, field: &str) -> Option<String> {
        if let Some(what) = self.problem {
            return Some(format!("its field {field:?} is {what}, not text; name another with --field"));
        }
        if self.n_long > 0 || !self.values.is_empty() {
            return None;
        }
        let names = if self.names.is_empty() { "none".to_string() } else { self.names.join(", ") };
        Some(format!("has no text field {field:?}, its fields are {names}; name one with --field"))
    }

    /// The seed for one record.
    pub(super) fn record<'r>(&'r mut self) -> FieldSeed<'r, 'p, 's> {
        FieldSeed { reader: self, at: 0 }
    }

    fn push(&mut self, value: FieldValue<'static>) {
        self.values.push(value);
    }
}

/// Reads one value, at the part `at` of the path.
pub(super) struct FieldSeed<'r, 'p, 's> {
    reader: &'r mut FieldReader<'p, 's>,
    at: usize,
}

impl FieldSeed<'_, '_, '_> {
    fn is_field(&self) -> bool {
        self.at == self.reader.path.len()
    }

    fn other<E>(self, what: &'static str) -> Result<(), E> {
        if self.is_field() || self.at == 0 {
            self.reader.problem = Some(what);
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        // A record may be the text itself.
        if !self.is_field() && self.at > 0 {
            return Ok(());
        }
        if text.len() <= self.reader.long_bytes {
            self.reader.push(FieldValue::Text(Cow::Owned(text.to_string())));
            return Ok(());
        }
        self.reader.n_long += 1;
        (self.reader.long)(text).map_err(|error| {
            self.reader.failed = Some(error);
            E::custom("stopped")
        })
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.reader.push(FieldValue::Null);
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.other("true or false")
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.other("a number")
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.other("a number")
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.other("a number")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        if self.is_field() {
            let mut ids = Vec::new();
            let mut n_elements = 0;
            while elements.next_element_seed(ElementSeed { reader: &mut *self.reader, ids: &mut ids })?.is_some() {
                n_elements += 1;
            }
            if !ids.is_empty() || n_elements == 0 {
                self.reader.push(FieldValue::Ids(ids));
            }
            return Ok(());
        }
        let wanted = self.reader.path.index(self.at);
        let mut index = 0;
        loop {
            let at = if wanted.is_some() { self.at + 1 } else { self.at };
            let more = if wanted.is_none_or(|wanted| wanted == index) {
                elements.next_element_seed(FieldSeed { reader: &mut *self.reader, at })?.is_some()
            } else {
                elements.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        if self.is_field() {
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return self.other("an object");
        }
        while let Some(name) = entries.next_key::<String>()? {
            match self.reader.path.step(self.at, &name) {
                Some(at) => entries.next_value_seed(FieldSeed { reader: &mut *self.reader, at })?,
                None => entries.next_value::<IgnoredAny>().map(drop)?,
            }
            if self.at == 0 && self.reader.names.len() < 20 {
                self.reader.names.push(name);
            }
        }
        Ok(())
    }
}

/// An element of the field's array: a token id, or a text that is a document.
struct ElementSeed<'r, 'i, 'p, 's> {
    reader: &'r mut FieldReader<'p, 's>,
    ids: &'i mut Vec<u32>,
}

impl<'de> DeserializeSeed<'de> for ElementSeed<'_, '_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ElementSeed<'_, '_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("token ids or texts")
    }

    fn visit_u64<E: Error>(self, id: u64) -> Result<(), E> {
        match u32::try_from(id) {
            Ok(id) => self.ids.push(id),
            Err(_) => self.reader.problem = Some("a list with a number that is no token id"),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.reader.problem = Some("a list with a negative number");
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.reader.problem = Some("a list of fractions");
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.reader.problem = Some("a list of true and false");
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let at = self.reader.path.len();
        FieldSeed { reader: self.reader, at }.visit_str(text)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.reader.push(FieldValue::Null);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        self.reader.problem = Some("a list of lists");
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.reader.problem = Some("a list of objects");
        Ok(())
    }
}
